// The aisle: racks, switches and every cable, as SVG. It is built anew when the plan or the width changes;
// in between only attributes change, and only those that differ.

import { svg, setAttribute, setText } from "./dom.js";
import { rate, step, perSecond } from "./format.js";
import { layout, ways } from "./layout.js";
import { arrows } from "./keys.js";

const LOOKS = { free: "free", idle: "idle", impaired: "impaired", down: "cut", blackhole: "blackhole" };
// Text that is wider than its box is cut: about this many units of width for a letter.
const LETTER = 7.1;

function fitting(text, width) {
  const most = Math.max(2, Math.floor(width / LETTER));
  return text.length <= most ? text : `${text.slice(0, most - 1)}\u2026`;
}

export class Aisle {
  // `open` is called with the key of what was chosen and its element, `point` with the key of what is
  // pointed at, or null.
  constructor(element, frame, { open, point }) {
    this.element = element;
    this.frame = frame;
    this.items = new Map();
    this.version = -1;
    this.width = 0;
    const keyOf = (event) => event.target.closest?.("[data-key]")?.dataset.key ?? null;
    element.addEventListener("click", (event) => {
      const key = keyOf(event);
      if (key) open(key, this.items.get(key).element);
    });
    const points = (event) => {
      const key = keyOf(event);
      this.light(key);
      point(key);
    };
    element.addEventListener("pointerover", points);
    element.addEventListener("focusin", points);
    element.addEventListener("focusin", (event) => this.rove(keyOf(event)));
    element.addEventListener("pointerleave", () => (this.light(null), point(null)));
    element.addEventListener("focusout", () => (this.light(null), point(null)));
    arrows(element, () => [...this.items.values()]);
  }

  // Draws what there is, if it differs from what stands there.
  draw(fabric) {
    const width = Math.floor(this.frame.clientWidth);
    if (fabric.version === this.version && width === this.width) return;
    [this.version, this.width] = [fabric.version, width];
    const chosen = this.element.querySelector("[tabindex='0']")?.dataset.key;
    const hadFocus = this.element.contains(document.activeElement);
    this.items.clear();
    const plan = layout(fabric.nodes, fabric.places, width);
    const found = ways(plan, fabric);
    this.element.setAttribute("viewBox", `0 0 ${plan.width} ${plan.height}`);
    this.element.setAttribute("width", plan.width);
    this.element.setAttribute("height", plan.height);
    this.element.classList.toggle("small", plan.small);
    const switches = [...plan.internet, ...plan.spines, ...plan.racks.flatMap((rack) => rack.leaves)];
    this.element.replaceChildren(
      svg("g", { class: "racks" }, plan.racks.map(frameOf)),
      svg("g", { class: "ways" }, found.map((way) => this.way(way))),
      (this.glyphs = svg("g", { class: "glyphs", "aria-hidden": "true" })),
      svg("g", { class: "slots" }, plan.racks.flatMap((rack) => rack.slots.map((slot) => this.slot(slot, plan.slotHeight)))),
      svg("g", { class: "devices" }, host(plan.host), switches.map((box) => this.device(box))),
    );
    const first = this.items.get(chosen) ?? [...this.items.values()].find(({ kind }) => kind === "switch");
    first?.element.setAttribute("tabindex", "0");
    if (hadFocus) first?.element.focus({ preventScroll: true });
    this.choose(this.chosen ?? null);
  }

  item(kind, name, attributes, x, y, children) {
    const key = `${kind} ${name}`;
    const element = svg("g", { "data-key": key, role: "button", tabindex: "-1", ...attributes }, children);
    const item = { key, kind, name, element, x, y };
    this.items.set(key, item);
    return item;
  }

  way({ cable, kind, d, stub, x, y }) {
    const path = svg("path", { class: "cable", d });
    const flow = svg("path", { class: "flow", d });
    const parts = [svg("path", { class: `hit ${kind}`, d: stub ?? d }), path, flow];
    const item = this.item("cable", cable.name, { class: "way idle" }, x, y, parts);
    Object.assign(item, { glyph: null, ends: cable.ends, span: kind });
    return item.element;
  }

  device(box) {
    const narrow = box.width < 70;
    const led = narrow
      ? svg("circle", { class: "led", cx: box.x + box.width / 2, cy: box.y + 6, r: 2.4 })
      : svg("circle", { class: "led", cx: box.x + 11, cy: box.cy, r: 3.2 });
    const label = narrow
      ? svg("text", { class: "name narrow", x: box.cx, y: box.cy + 8, "text-anchor": "middle" })
      : svg("text", { class: "name", x: box.x + 20, y: box.cy + 4 });
    const room = box.width - (narrow ? 4 : 24);
    label.textContent = fitting(box.name, room);
    const count = svg("text", { class: "count", x: box.x + box.width - 8, y: box.cy + 4, "text-anchor": "end" });
    const rect = svg("rect", { class: "box", x: box.x, y: box.y, width: box.width, height: box.height, rx: 5 });
    const item = this.item("switch", box.name, { class: "device" }, box.cx, box.cy, [rect, led, label, count]);
    // The sessions are left out where they would stand over the name.
    Object.assign(item, { count, hasRoom: box.name.length * LETTER + 34 < room });
    return item.element;
  }

  slot(slot, slotHeight) {
    const rect = svg("rect", { class: "unit", x: slot.x, y: slot.y, width: slot.width, height: slot.height, rx: 1.5 });
    const parts = [rect];
    if (slotHeight >= 9) {
      const number = svg("text", { class: "u", x: slot.x + 5, y: slot.cy + 3 });
      number.textContent = String(slot.u);
      parts.push(number);
    }
    const leds = [0, 1].map((side) => svg("circle", { class: "nic", cx: slot.x + slot.width - 12 + side * 6, cy: slot.cy, r: Math.min(1.8, slot.height / 3) }));
    const item = this.item("position", slot.name, { class: "slot" }, slot.x + slot.width / 2, slot.cy, [...parts, ...leds]);
    Object.assign(item, { leds, ends: slot.ends });
    return item.element;
  }

  update(fabric) {
    for (const item of this.items.values()) {
      if (item.kind === "cable") updateWay(item, fabric, this.glyphs);
      else if (item.kind === "switch") updateDevice(item, fabric);
      else updateSlot(item, fabric);
    }
  }

  // The Tab key comes back to where it left.
  rove(key) {
    for (const item of this.items.values()) setAttribute(item.element, "tabindex", item.key === key ? "0" : "-1");
  }

  focus(key) {
    this.items.get(key)?.element.focus({ preventScroll: true });
  }

  // Marks what the panel shows.
  choose(key) {
    this.chosen = key;
    for (const item of this.items.values()) setAttribute(item.element, "aria-pressed", item.key === key ? "true" : null);
  }

  // Lights up the cables of what is pointed at, and the ends of a cable.
  light(key) {
    const item = this.items.get(key);
    this.element.classList.toggle("pointing", Boolean(item));
    for (const each of this.items.values()) each.element.classList.toggle("lit", Boolean(item) && isNear(item, each));
  }
}

function isNear(item, other) {
  if (item === other) return true;
  const [a, b] = item.kind === "cable" ? [item, other] : [other, item];
  if (a.kind !== "cable" || b.kind === "cable") return false;
  if (b.kind === "position") return b.ends.some((end) => a.ends.includes(end));
  return a.nodes?.includes(b.name) ?? false;
}

function frameOf(rack) {
  const label = svg("text", { class: "rack-name", x: rack.x + rack.width / 2, y: rack.y + rack.height - 8, "text-anchor": "middle" });
  label.textContent = rack.number === null ? "without positions" : `rack ${rack.number}`;
  return svg("g", { class: "rack", "aria-hidden": "true" },
    svg("rect", { x: rack.x, y: rack.y, width: rack.width, height: rack.height, rx: 7 }), label);
}

function host(box) {
  const label = svg("text", { class: "name", x: box.cx, y: box.cy + 4, "text-anchor": "middle" });
  label.textContent = "host";
  return svg("g", { class: "host", "aria-hidden": "true" },
    svg("rect", { class: "box", x: box.x, y: box.y, width: box.width, height: box.height, rx: box.height / 2 }), label);
}

export function inWords(fabric, cable) {
  const look = fabric.look(cable, step);
  const [a, b] = cable.lanes;
  const words = [LOOKS[look] ?? "busy", `\u2192 ${rate(a.rate)}`, `\u2190 ${rate(b.rate)}`];
  if (look === "impaired") {
    const keys = cable.report.lanes.flatMap((lane) => Object.entries(lane.impairment ?? {}).map(([key, value]) => `${key} ${value}`));
    words[0] = `impaired: ${[...new Set(keys)].join(", ")}`;
  }
  if (cable.drops > 0) words.push(`${perSecond(cable.drops)} dropped`);
  return `${cable.ends.map((end) => fabric.alias(end)).join(" \u2194 ")}: ${words.join(", ")}`;
}

function updateWay(item, fabric, glyphs) {
  const cable = fabric.cables.get(item.name);
  if (!cable) return;
  item.nodes = cable.ends.map((end) => fabric.ports.get(end)?.node).filter(Boolean);
  const look = fabric.look(cable, step);
  const speed = step(cable.rate);
  const moves = speed > 0 && look !== "down" && look !== "blackhole";
  const classes = `way ${item.span} ${look}${moves ? ` moves s${speed}` : ""}${item.element.classList.contains("lit") ? " lit" : ""}`;
  setAttribute(item.element, "class", classes);
  setAttribute(item.element, "aria-label", `Cable ${item.name}, ${inWords(fabric, cable)}`);
  mark(item, look, glyphs);
}

// The sign on a cable that is not as it should be; above all cables, so that none hides it.
function mark(item, look, glyphs) {
  const shape = { impaired: "M0 -4.6L4.6 0L0 4.6L-4.6 0Z", down: "M-4 -4L4 4M4 -4L-4 4", blackhole: "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0" }[look];
  if (!shape) {
    item.glyph?.remove();
    item.glyph = null;
    return;
  }
  item.glyph ??= glyphs.appendChild(svg("path", {}));
  setAttribute(item.glyph, "class", `glyph ${look}`);
  setAttribute(item.glyph, "d", shape);
  setAttribute(item.glyph, "transform", `translate(${item.x.toFixed(1)} ${item.y.toFixed(1)})${item.span === "drop" ? " scale(.72)" : ""}`);
}

function updateDevice(item, fabric) {
  const node = fabric.node(item.name);
  const state = node?.state ?? "tap";
  const { established, expected } = node?.bgp ?? { established: 0, expected: 0 };
  const whole = established === expected;
  const lit = item.element.classList.contains("lit") ? " lit" : "";
  setAttribute(item.element, "class", `device is-${state}${whole ? "" : " lacks"}${lit}`);
  setText(item.count, node && item.hasRoom ? `${established}/${expected}` : "");
  const words = node ? `${state}, ${established} of ${expected} BGP sessions` : "not run as a VM";
  setAttribute(item.element, "aria-label", `Switch ${item.name}, ${words}`);
}

function updateSlot(item, fabric) {
  const held = item.ends.map((end) => fabric.placeOf.get(end)?.held ?? null);
  const lit = item.element.classList.contains("lit") ? " lit" : "";
  setAttribute(item.element, "class", `slot${held.some(Boolean) ? " held" : ""}${lit}`);
  item.leds.forEach((led, side) => setAttribute(led, "class", `nic${held[side] ? " on" : ""}`));
  const words = held.some(Boolean) ? held.map((kind, side) => `NIC ${side + 1} ${kind ?? "free"}`).join(", ") : "free";
  setAttribute(item.element, "aria-label", `Position ${item.name}, ${words}`);
}
