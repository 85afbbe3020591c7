// A cable in the panel: its state, both lanes, its rate, its impairments, a capture.

import * as api from "./api.js";
import { el, setAttribute, setText } from "./dom.js";
import { bytes, count, rate } from "./format.js";
import { Outcome, section } from "./panel.js";
import { Plot } from "./plot.js";

const STATES = [["up", "Up"], ["down", "Cut"], ["blackhole", "Blackhole"]];
// The keys that have a field; the command `ikv-fabric impair` has all.
const FIELDS = [["delay", "10ms"], ["jitter", "1ms"], ["loss", "1%"], ["rate", "100mbit"], ["duplicate", "0.1%"], ["corrupt", "0.1%"], ["reorder", "25%"]];
const COUNTERS = [
  ["Frames in", (lane) => count(lane.frames_in)],
  ["Bytes in", (lane) => bytes(lane.bytes_in)],
  ["Frames out", (lane) => count(lane.frames_out)],
  ["Held back", (lane) => count(lane.held)],
];
const RARE = ["duplicated", "corrupted", "delayed", "reordered", "marked", "throttled"];

export class CableView {
  constructor(fabric, name, refresh) {
    this.fabric = fabric;
    this.name = name;
    this.key = `cable ${name}`;
    this.kind = `Cable ${name}`;
    this.refresh = refresh;
    this.outcome = new Outcome();
    const cable = fabric.cables.get(name);
    this.aliases = cable ? cable.ends.map((end) => fabric.alias(end)) : [name, ""];
    this.ends = cable?.ends ?? [];
    this.title = this.aliases.join(" \u2194 ");
    this.plot = new Plot();
    this.plot.redraw = () => this.update();
    this.readout = el("p", { class: "plot-readout" });
    this.counters = el("table", { class: "lanes" });
    this.impaired = el("div", { class: "impaired-now" });
    this.closed = el("p", { class: "warning", hidden: true });
    this.body = el("div", { class: "panel-body" },
      this.states(), this.closed,
      section("Rate, last five minutes", this.plot.element, this.readout),
      section("Lanes", this.counters),
      section("Impairment", this.impaired, this.form()),
      section("Capture", this.capture()),
    );
  }

  states() {
    this.buttons = STATES.map(([state, word]) =>
      el("button", { type: "button", "data-state": state, onclick: () => this.setState(state, word) }, word));
    return el("section", {}, el("div", { class: "segments", role: "group", "aria-label": "State of the cable" }, this.buttons), this.outcome.element);
  }

  async setState(state, word) {
    await this.outcome.of(this.buttons, () => api.setState(this.name, state), `${word}, as asked.`);
    this.refresh();
  }

  form() {
    const side = el("select", { id: "impair-side" },
      el("option", { value: "" }, "both ways"),
      this.ends.map((end, index) => el("option", { value: end }, `from ${this.aliases[index]}`)));
    const inputs = FIELDS.map(([key, example]) => [key, el("input", { id: `impair-${key}`, placeholder: example, autocomplete: "off", spellcheck: "false", maxlength: "80" })]);
    const apply = el("button", { type: "submit", class: "primary" }, "Impair");
    const clear = el("button", { type: "button" }, "Clear");
    const said = new Outcome();
    const change = async (body, done) => {
      if (side.value) body.from = side.value;
      await said.of([apply, clear], () => api.impair(this.name, body), done);
      this.refresh();
    };
    clear.addEventListener("click", () => change({ clear: true }, "Cleared."));
    const form = el("form", { class: "impair" },
      el("label", { for: "impair-side" }, "Direction", side),
      inputs.map(([key, input]) => el("label", { for: input.id }, key, input)),
      el("div", { class: "buttons" }, apply, clear), said.element);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const set = Object.fromEntries(inputs.map(([key, input]) => [key, input.value.trim()]).filter(([, value]) => value));
      if (Object.keys(set).length === 0) said.say("Fill in a field first, such as delay: 10ms.", "bad");
      else change({ set }, "Impaired, as asked.");
    });
    return form;
  }

  capture() {
    const link = el("a", { class: "button primary", download: "" }, "Download pcapng");
    const seconds = el("select", { id: "capture-for" }, [10, 30, 60, 300].map((each) => el("option", { value: each }, each < 60 ? `${each} s` : `${each / 60} min`)));
    const aim = () => link.setAttribute("href", api.capturePath(this.name, seconds.value));
    seconds.addEventListener("change", aim);
    aim();
    return el("div", { class: "capture" },
      el("label", { for: "capture-for" }, "from now, for", seconds), link,
      el("p", { class: "hint" }, "Both lanes, each frame with its verdict; ends after 64 MiB."));
  }

  update() {
    const cable = this.fabric.cables.get(this.name);
    const report = cable?.report;
    if (!report) {
      this.closed.hidden = false;
      setText(this.closed, "This cable is not in the fabric any more.");
      return;
    }
    for (const button of this.buttons) setAttribute(button, "aria-pressed", String(report.state === button.dataset.state));
    this.closed.hidden = !report.closed;
    setText(this.closed, report.closed ? `Closed after a fault: ${report.closed}. Up opens it again.` : "");
    const names = [`from ${this.aliases[0]}`, `from ${this.aliases[1]}`];
    this.plot.draw(cable, names, performance.now(), this.readout);
    this.writeCounters(cable, report.lanes);
    this.writeImpairments(report.lanes);
  }

  writeCounters(cable, lanes) {
    const rows = [["Rate", cable.lanes.map((lane) => rate(lane.rate))]];
    for (const [name, value] of COUNTERS) rows.push([name, lanes.map(value)]);
    const reasons = new Set(lanes.flatMap((lane) => Object.keys(lane.drops)));
    const dropped = (lane) => Object.values(lane.drops).reduce((sum, each) => sum + each, 0);
    rows.push(["Dropped", lanes.map((lane) => count(dropped(lane))), reasons.size ? "bad" : ""]);
    for (const reason of [...reasons].sort()) rows.push([reason, lanes.map((lane) => count(lane.drops[reason] ?? 0)), "reason"]);
    for (const key of RARE.filter((key) => lanes.some((lane) => lane[key]))) {
      rows.push([key[0].toUpperCase() + key.slice(1), lanes.map((lane) => count(lane[key] ?? 0))]);
    }
    const shape = rows.map(([name]) => name).join();
    if (this.shape !== shape) {
      this.shape = shape;
      const head = el("thead", {}, el("tr", {}, el("td", {}), this.aliases.map((alias) => el("th", { scope: "col", class: "n" }, `from ${alias}`))));
      const body = rows.map(([name, values, kind]) => el("tr", { class: kind }, el("th", { scope: "row" }, name), values.map(() => el("td", { class: "n" }))));
      this.counters.replaceChildren(head, el("tbody", {}, body));
    }
    const written = this.counters.tBodies[0].rows;
    rows.forEach(([, values], index) => values.forEach((value, side) => setText(written[index].cells[side + 1], value)));
  }

  writeImpairments(lanes) {
    const lines = lanes.flatMap((lane, side) => {
      if (!lane.impairment) return [];
      const keys = Object.entries(lane.impairment).map(([key, value]) => `${key} ${plain(value)}`);
      const doubt = lane.accuracy && !lane.accuracy.trusted ? ` (not kept: ${lane.accuracy.note})` : "";
      return [`from ${this.aliases[side]}: ${keys.join(", ")}${doubt}`];
    });
    const text = lines.join("\n");
    if (this.impairments === text) return;
    this.impairments = text;
    this.impaired.replaceChildren(...(lines.length ? lines.map((line) => el("p", {}, line)) : [el("p", { class: "none" }, "None: frames pass as they come.")]));
  }
}

// A value of a key that the page has no field for may be more than a word.
function plain(value) {
  return typeof value === "object" ? JSON.stringify(value).slice(0, 80) : String(value);
}
