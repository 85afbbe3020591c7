// A switch in the panel: its state, its power, its ports, and what its routing says.

import * as api from "./api.js";
import { el, setAttribute, setText } from "./dom.js";
import { guestText, rate, step } from "./format.js";
import { Outcome, facts, section, twice } from "./panel.js";

const QUESTIONS = [
  ["Routes", "show ip route"],
  ["Neighbours", "show bgp summary"],
  ["IPv6 routes", "show ipv6 route"],
  ["Interfaces", "show interface brief"],
];
// What is shown of an answer: a full table of routes would be slow to scroll.
const LONGEST = 60_000;

export class SwitchView {
  constructor(fabric, name, refresh, open) {
    this.fabric = fabric;
    this.name = name;
    this.key = `switch ${name}`;
    this.title = name;
    this.refresh = refresh;
    this.open = open;
    this.plan = fabric.nodes.find((node) => node.name === name);
    this.kind = `${this.plan?.role ?? "switch"} \u00b7 AS ${this.plan?.asn ?? "?"}`;
    this.facts = facts(["State", "BGP sessions", "Loopback", "Log in"]);
    this.note = el("p", { class: "warning", hidden: true });
    this.ports = el("table", { class: "ports" }, el("tbody", {}));
    this.body = el("div", { class: "panel-body" },
      section("", this.facts.element, this.note),
      section("Power", this.power()),
      section("Ask it", this.questions()),
      section("Ports", this.ports),
    );
  }

  power() {
    const said = new Outcome();
    const act = async (action, done) => {
      await said.of(this.powerButtons, () => api.power(this.name, action), done);
      this.refresh();
    };
    this.powerButtons = [
      el("button", { type: "button", onclick: () => act("on", "Switched on.") }, "On"),
      twice("Off", "Off: sure?", () => act("off", "Switched off: its neighbours lose carrier.")),
      twice("Cycle", "Cycle: sure?", () => act("cycle", "Switched off and on again.")),
    ];
    return el("div", {}, el("div", { class: "buttons" }, this.powerButtons), said.element);
  }

  questions() {
    this.answer = el("pre", { class: "answer", tabindex: "0", role: "region", "aria-label": "Answer", hidden: true });
    const said = new Outcome();
    const buttons = QUESTIONS.map(([word, command]) =>
      el("button", { type: "button", title: `vtysh -c '${command}'`, onclick: () => ask(command) }, word));
    const ask = (command) => said.of(buttons, async () => {
      const answer = await api.exec(this.name, ["vtysh", "-c", command]);
      const text = guestText(answer.stdout) + guestText(answer.stderr);
      const isLong = answer.truncated || text.length > LONGEST;
      this.answer.hidden = false;
      this.answer.textContent = text.slice(0, LONGEST).trimEnd() || "(no output)";
      if (answer.status !== 0) throw new Error(`vtysh ended with status ${answer.status}`);
      return isLong ? { notes: [`Cut here; whole: ikv-fabric exec ${this.name} -- vtysh -c '${command}'`] } : null;
    }, "");
    return el("div", {}, el("div", { class: "buttons" }, buttons), said.element, this.answer);
  }

  update() {
    const node = this.fabric.node(this.name);
    const values = this.facts.values;
    const { established, expected } = node?.bgp ?? { established: 0, expected: 0 };
    const state = node?.state ?? "not run: its ends are taps to plug into";
    setText(values.get("State"), state);
    setAttribute(values.get("State"), "class", `is-${node?.state ?? "tap"}`);
    setText(values.get("BGP sessions"), node ? `${established} of ${expected}` : "\u2013");
    setAttribute(values.get("BGP sessions"), "class", established === expected ? null : "lacks");
    setText(values.get("Loopback"), this.plan?.loopback ?? "\u2013");
    setText(values.get("Log in"), node ? `ikv-fabric ssh ${this.name}` : "\u2013");
    this.note.hidden = !node?.note;
    setText(this.note, node?.note ?? "");
    for (const button of [...this.body.querySelectorAll("section button")]) {
      if (!node && !button.closest("table")) button.disabled = true;
    }
    this.writePorts();
  }

  writePorts() {
    const ports = this.plan?.ports ?? [];
    if (!this.rows) {
      this.rows = ports.map((port) => {
        const button = el("button", { type: "button", class: "link", onclick: () => this.open(`cable ${port.cable}`) }, port.alias);
        return [port, el("tr", {}, el("th", { scope: "row" }, button), el("td", { class: "far" }), el("td", { class: "n" }), el("td", { class: "n" }))];
      });
      this.ports.tBodies[0].replaceChildren(...this.rows.map(([, row]) => row));
    }
    for (const [port, row] of this.rows) {
      const cable = this.fabric.cables.get(port.cable);
      if (!cable) continue;
      const side = cable.ends.indexOf(port.name);
      const look = this.fabric.look(cable, step);
      setAttribute(row, "class", look);
      const far = `${this.fabric.alias(cable.ends[1 - side])}${{ down: ", cut", blackhole: ", blackhole", impaired: ", impaired" }[look] ?? ""}`;
      const texts = [far, `\u2192 ${rate(cable.lanes[side].rate)}`, `\u2190 ${rate(cable.lanes[1 - side].rate)}`];
      texts.forEach((text, index) => setText(row.cells[index + 1], text));
    }
  }
}
