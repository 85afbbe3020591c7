// What the page knows of the fabric: its plan, what each part of it does, and the last five minutes.

import * as api from "./api.js";

// Samples of a cable that are kept, one a second.
export const HISTORY = 300;
// Ticks between two looks at who is plugged in, and between two at the plan.
const PLACES_EVERY = 4;
const PLAN_EVERY = 30;

class Lane {
  constructor() {
    this.last = null;
    this.rate = 0;
    this.frames = 0;
    this.drops = 0;
  }

  // Takes a report that came `seconds` after the one before. Counters of a new cable begin anew.
  take(report, seconds) {
    const drops = Object.values(report.drops).reduce((sum, each) => sum + each, 0);
    const now = { bytes: report.bytes_in, frames: report.frames_in, drops };
    const before = this.last;
    this.last = now;
    if (!before || seconds <= 0) return;
    const speed = (key) => Math.max(0, now[key] - before[key]) / seconds;
    [this.rate, this.frames, this.drops] = [speed("bytes"), speed("frames"), speed("drops")];
  }
}

export class Cable {
  constructor(plan) {
    this.name = plan.name;
    this.ends = [plan.a, plan.b];
    this.lanes = [new Lane(), new Lane()];
    this.report = null;
    this.history = [];
  }

  take(report, at) {
    const before = this.history.at(-1);
    const seconds = before ? (at - before.at) / 1000 : 0;
    this.report = report;
    this.lanes.forEach((lane, side) => lane.take(report.lanes[side], seconds));
    const [a, b] = this.lanes;
    this.history.push({ at, rates: [a.rate, b.rate], drops: a.drops + b.drops });
    if (this.history.length > HISTORY) this.history.shift();
  }

  get state() {
    if (!this.report) return "up";
    return this.report.closed ? "closed" : this.report.state;
  }

  get isImpaired() {
    return Boolean(this.report?.lanes.some((lane) => lane.impairment));
  }

  get rate() {
    return this.lanes[0].rate + this.lanes[1].rate;
  }

  get drops() {
    return this.lanes[0].drops + this.lanes[1].drops;
  }

  get isBusy() {
    return this.lanes[0].frames + this.lanes[1].frames > 0;
  }
}

export class Fabric {
  constructor() {
    this.status = null;
    this.nodes = [];
    this.cables = new Map();
    this.places = [];
    this.placeOf = new Map();
    this.ports = new Map();
    this.byEnd = new Map();
    // Rises when what is drawn has to be drawn anew.
    this.version = 0;
    this.ticks = 0;
  }

  // Asks the fabric what is new. Rejects when it does not answer.
  async tick() {
    const due = (every) => this.ticks % every === 0;
    const asked = [api.status(), api.cables()];
    if (due(PLACES_EVERY)) asked.push(this.readPlaces());
    if (due(PLAN_EVERY)) asked.push(this.readPlan());
    const [status, reports] = await Promise.all(asked);
    const at = performance.now();
    this.status = status;
    const isNew = reports.length !== this.cables.size || reports.some(({ name }) => !this.cables.has(name));
    if (isNew && !due(PLAN_EVERY)) await Promise.all([this.readPlan(), this.readPlaces()]);
    for (const report of reports) this.cables.get(report.name)?.take(report, at);
    this.ticks += 1;
  }

  async readPlaces() {
    const places = await api.places().then((answer) => answer.places, notPlanned);
    if (places.length !== this.places.length) this.version += 1;
    this.places = places;
    this.placeOf = new Map(places.map((place) => [place.name, place]));
  }

  async readPlan() {
    const plan = await api.topology();
    const known = JSON.stringify([plan.nodes, plan.cables]);
    if (known === this.plan) return;
    this.plan = known;
    this.version += 1;
    this.nodes = plan.nodes;
    this.ports = new Map(plan.nodes.flatMap((node) => node.ports.map((port) => [port.name, { ...port, node: node.name }])));
    const cables = plan.cables.map((cable) => {
      const before = this.cables.get(cable.name);
      const same = before && before.ends[0] === cable.a && before.ends[1] === cable.b;
      return [cable.name, same ? before : new Cable(cable)];
    });
    this.cables = new Map(cables);
    this.byEnd = new Map([...this.cables.values()].flatMap((cable) => cable.ends.map((end) => [end, cable])));
  }

  node(name) {
    return this.status?.nodes.find((node) => node.name === name);
  }

  // Whether this is the host's own end: the other one is a port of internet, and this one nobody's.
  isHost(end) {
    if (this.ports.has(end) || this.placeOf.has(end)) return false;
    const far = this.byEnd.get(end)?.ends.find((other) => other !== end);
    return this.nodes.some(({ name, role }) => role === "internet" && name === this.ports.get(far)?.node);
  }

  // The readable name of an end, such as `spine1:2`, or `rack1:u3:1`.
  alias(end) {
    const port = this.ports.get(end);
    if (port) return port.alias;
    const place = this.placeOf.get(end);
    if (place) return `rack${place.rack}:u${place.u}:${place.nic}`;
    return this.isHost(end) ? "host" : end;
  }

  isBetweenSwitches(cable) {
    return cable.ends.every((end) => this.ports.has(end) || this.isHost(end));
  }

  // Whether a VM is plugged in at an end.
  isPlugged(cable) {
    return cable.ends.some((end) => this.placeOf.get(end)?.held);
  }

  // Whether the cable leads to a position where nobody is plugged in.
  isFree(cable) {
    const places = cable.ends.map((end) => this.placeOf.get(end)).filter(Boolean);
    return places.length > 0 && places.every(({ held }) => !held);
  }

  // What the cable looks like: one class, of the strongest thing to say about it.
  look(cable, step) {
    const state = cable.state;
    if (state === "down" || state === "closed") return "down";
    if (state === "blackhole") return "blackhole";
    if (cable.isImpaired) return "impaired";
    const busy = step(cable.rate);
    if (busy) return `r${busy}`;
    return this.isFree(cable) ? "free" : "idle";
  }
}

function notPlanned(error) {
  if (error instanceof api.Refused && error.status === 409) return [];
  throw error;
}
