// Where everything stands in the aisle: pure functions of the plan and of the width.

const MARGIN = 18;
const GAP = 22;
const RACK = { least: 104, most: 268 };
const TALL = 400;

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

// The racks: their leaves, and their positions with the end of each NIC.
function racks(nodes, places) {
  const found = new Map();
  for (const place of places) {
    const rack = found.get(place.rack) ?? { number: place.rack, leaves: [], slots: new Map() };
    found.set(place.rack, rack);
    if (!rack.leaves[place.nic - 1]) rack.leaves[place.nic - 1] = place.leaf;
    const slot = rack.slots.get(place.u) ?? { u: place.u, ends: [] };
    slot.ends[place.nic - 1] = place.name;
    rack.slots.set(place.u, slot);
  }
  const housed = new Set([...found.values()].flatMap((rack) => rack.leaves));
  const alone = nodes.filter((node) => node.role === "leaf" && !housed.has(node.name));
  for (let at = 0; at < alone.length; at += 2) {
    const leaves = alone.slice(at, at + 2).map((node) => node.name);
    found.set(`+${at}`, { number: null, leaves, slots: new Map() });
  }
  return [...found.values()];
}

function device(name, x, y, width, height) {
  return { name, x, y, width, height, cx: x + width / 2, cy: y + height / 2 };
}

function row(names, y, centre, room, width, height) {
  const pitch = Math.min(width * 1.9, (room - width) / Math.max(1, names.length - 1));
  const first = centre - (pitch * (names.length - 1)) / 2;
  return names.map((name, index) => device(name, first + pitch * index - width / 2, y, width, height));
}

function slotsOf(rack, x, y, width, slotHeight) {
  const slots = [...rack.slots.values()].sort((a, b) => a.u - b.u);
  const band = clamp(slots.length * 2.4, 8, width * 0.21);
  return slots.map((slot, index) => {
    const top = y + index * slotHeight;
    const left = x + band + 7;
    return {
      ...slot,
      name: `rack${rack.number}:u${slot.u}`,
      x: left,
      y: top,
      width: width - 2 * (band + 7),
      height: Math.max(2, slotHeight - 2),
      cy: top + (slotHeight - 2) / 2,
      // The cable of the uppermost position runs nearest to it, so that none crosses another.
      lanes: [x + 4 + band - ((index + 0.5) * band) / slots.length, x + width - 4 - band + ((index + 0.5) * band) / slots.length],
    };
  });
}

export function layout(nodes, places, roomWidth) {
  const all = racks(nodes, places);
  const of = (role) => nodes.filter((node) => node.role === role).map((node) => node.name);
  const number = Math.max(1, all.length);
  const rackWidth = clamp((roomWidth - 2 * MARGIN - GAP * (number - 1)) / number, RACK.least, RACK.most);
  const gap = Math.min(GAP * 3, Math.max(GAP * 0.6, (roomWidth - 2 * MARGIN - rackWidth * number) / Math.max(1, number - 1)));
  const used = rackWidth * number + gap * (number - 1);
  const width = Math.max(roomWidth, used + 2 * MARGIN);
  const small = roomWidth < 560;
  const centre = width / 2;
  const box = { width: small ? 84 : 148, height: small ? 28 : 34 };
  const internet = row(of("internet"), 16, centre, width - 2 * MARGIN, box.width, box.height);
  const spineTop = small ? 86 : 104;
  const spines = row(of("spine"), spineTop, centre, width - 2 * MARGIN, box.width, box.height);
  const rackTop = spineTop + box.height + (small ? 84 : 118);
  const leafHeight = 30;
  const most = Math.max(1, ...all.map((rack) => rack.slots.size));
  const slotHeight = clamp(TALL / most, 7, 17);
  const first = (width - used) / 2;
  const built = all.map((rack, index) => {
    const x = first + index * (rackWidth + gap);
    const half = (rackWidth - 12) / Math.max(1, rack.leaves.length);
    const leaves = rack.leaves.map((name, side) => device(name, x + 4 + side * (half + 4), rackTop + 4, half, leafHeight));
    const slotTop = rackTop + leafHeight + 16;
    const height = leafHeight + 38 + rack.slots.size * slotHeight;
    return { number: rack.number, x, y: rackTop, width: rackWidth, height, leaves, slots: slotsOf(rack, x, slotTop, rackWidth, slotHeight) };
  });
  const height = rackTop + Math.max(60, ...built.map((rack) => rack.height)) + 14;
  const hostX = internet.length ? Math.max(MARGIN, internet[0].x - box.width - (small ? 40 : 120)) : MARGIN;
  const host = device("host", hostX, 16, small ? 60 : 96, box.height);
  return { width, height, host, internet, spines, racks: built, slotHeight, small };
}

// Every device by its name.
export function devices(plan) {
  const all = [plan.host, ...plan.internet, ...plan.spines, ...plan.racks.flatMap((rack) => rack.leaves)];
  return new Map(all.map((each) => [each.name, each]));
}

// The end of a cable as a point, and the way it leaves: down, up or sideways.
function spread(box, index, number, edge) {
  const x = box.x + (box.width * (index + 1)) / (number + 1);
  return { x, y: edge === "bottom" ? box.y + box.height : box.y, down: edge === "bottom" ? 1 : -1 };
}

function curve(from, to) {
  const bend = Math.max(26, Math.abs(to.y - from.y) * 0.52);
  return {
    d: `M${from.x.toFixed(1)} ${from.y.toFixed(1)}C${from.x.toFixed(1)} ${(from.y + bend * from.down).toFixed(1)} ${to.x.toFixed(1)} ${(to.y + bend * to.down).toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`,
    x: (from.x + to.x) / 2,
    y: (from.y + to.y) / 2 + (bend * (from.down + to.down) * 3) / 8,
  };
}

// A cable from a leaf down the side of its rack to a position.
function drop(leaf, slot, side) {
  const x = slot.lanes[side];
  const to = side === 0 ? slot.x : slot.x + slot.width;
  const bend = Math.min(4, slot.height / 2);
  const turn = to > x ? bend : -bend;
  const top = leaf.y + leaf.height;
  return {
    d: `M${x.toFixed(1)} ${top}V${(slot.cy - bend).toFixed(1)}q0 ${bend} ${turn} ${bend}H${to.toFixed(1)}`,
    stub: `M${x.toFixed(1)} ${slot.cy.toFixed(1)}H${to.toFixed(1)}`,
    x: (x + to) / 2,
    y: slot.cy,
  };
}

// The way of each cable: its name, path and middle. Ends that stand nowhere are left out.
export function ways(plan, fabric) {
  const boxes = devices(plan);
  const slots = new Map();
  for (const rack of plan.racks) {
    for (const slot of rack.slots) slot.ends.forEach((end, side) => slots.set(end, { slot, side, rack }));
  }
  const found = [];
  const free = [];
  for (const cable of fabric.cables.values()) {
    const placed = cable.ends.map((end) => {
      const port = fabric.ports.get(end);
      return { end, box: port ? boxes.get(port.node) : fabric.isHost(end) ? plan.host : null, at: slots.get(end) };
    });
    const server = placed.find((end) => end.at);
    const other = placed.find((end) => end !== server);
    if (server && other?.box && server.at.rack.leaves.includes(other.box)) {
      found.push({ cable, kind: "drop", ...drop(other.box, server.at.slot, server.at.side) });
    } else if (placed.every((end) => end.box || end.at)) {
      free.push({ cable, placed });
    }
  }
  return [...found, ...joined(free)];
}

// Cables between devices: at each edge they stand in the order of where they go, so that few cross.
function joined(cables) {
  const edges = new Map();
  const ends = cables.map(({ cable, placed }) => {
    const boxes = placed.map(({ box, at }) => box ?? { ...at.slot, cx: at.slot.x + at.slot.width / 2 });
    const [a, b] = boxes;
    const level = Math.abs(a.cy - b.cy) < 12;
    const edge = (own, other) => (level ? "top" : own.cy < other.cy ? "bottom" : "top");
    const both = [[a, b], [b, a]].map(([own, other]) => {
      const name = edge(own, other);
      const key = `${own.name} ${name}`;
      const entry = { own, name, aim: other.cx, index: 0, number: 0 };
      edges.set(key, [...(edges.get(key) ?? []), entry]);
      return entry;
    });
    return { cable, both, level, boxes };
  });
  for (const edge of edges.values()) {
    edge.sort((a, b) => a.aim - b.aim);
    edge.forEach((entry, index) => Object.assign(entry, { index, number: edge.length }));
  }
  return ends.map(({ cable, both, level, boxes }) => {
    const isHost = level && boxes.some((box) => box.name === "host");
    if (isHost) return { cable, kind: "trunk", ...straight(...boxes) };
    const [from, to] = both.map((entry) => spread(entry.own, entry.index, entry.number, entry.name));
    return { cable, kind: "trunk", ...curve(from, to) };
  });
}

function straight(a, b) {
  const [left, right] = a.x < b.x ? [a, b] : [b, a];
  const ends = [left.x + left.width, right.x];
  const way = a.x < b.x ? ends : [...ends].reverse();
  return { d: `M${way[0]} ${a.cy}H${way[1]}`, x: (ends[0] + ends[1]) / 2, y: a.cy };
}
