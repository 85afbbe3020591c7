// A position in the panel: who is plugged in, and the lines that plug a VM in.

import * as api from "./api.js";
import { el, setAttribute, setText } from "./dom.js";
import { rate, shellWord, step } from "./format.js";
import { Outcome, section } from "./panel.js";

const KINDS = [["tap", "Tap"], ["vhost-user", "vhost-user"]];

export class PositionView {
  constructor(fabric, name, open) {
    this.fabric = fabric;
    this.name = name;
    this.key = `position ${name}`;
    this.title = name;
    this.kind = "Position";
    this.open = open;
    this.places = fabric.places.filter((place) => `rack${place.rack}:u${place.u}` === name);
    this.nics = el("tbody", {});
    this.rows = this.places.map((place) => {
      const cable = fabric.byEnd.get(place.name);
      const button = el("button", { type: "button", class: "link", onclick: () => cable && open(`cable ${cable.name}`) }, `NIC ${place.nic}`);
      const row = el("tr", {}, el("th", { scope: "row" }, button), [0, 1, 2].map((index) => el("td", { class: index === 2 ? "n" : "" })));
      return [place, cable, row];
    });
    this.nics.append(...this.rows.map(([, , row]) => row));
    this.body = el("div", { class: "panel-body" },
      section("Who is plugged in", el("table", { class: "ports" }, this.nics), this.addresses()),
      section("Plug a VM in", this.plugIn()),
    );
  }

  addresses() {
    return el("dl", { class: "facts" }, this.places.map((place) =>
      el("div", {}, el("dt", {}, `NIC ${place.nic}`), el("dd", {}, `${place.name}, ${place.mac}`))));
  }

  plugIn() {
    this.lines = el("pre", { class: "answer", tabindex: "0", role: "region", "aria-label": "Options for QEMU" });
    this.said = new Outcome();
    this.choices = KINDS.map(([kind, word]) => el("button", { type: "button", "data-nic": kind, onclick: () => this.ask(kind) }, word));
    const copy = el("button", { type: "button", class: "primary", onclick: () => this.copy() }, "Copy");
    this.ask("tap");
    return el("div", {},
      el("div", { class: "row" }, el("div", { class: "segments", role: "group", "aria-label": "How" }, this.choices), copy),
      this.lines, this.said.element,
      el("p", { class: "hint" }, "Append these to a qemu-system-x86_64 command line. For vhost-user, size= is the VM's memory."));
  }

  ask(kind) {
    for (const choice of this.choices) setAttribute(choice, "aria-pressed", String(choice.dataset.nic === kind));
    return this.said.of(this.choices, async () => {
      const words = await api.vmArgs(this.name, kind);
      const lines = [];
      for (const word of words.map(shellWord)) {
        if (word.startsWith("-") || lines.length === 0) lines.push(word);
        else lines[lines.length - 1] += ` ${word}`;
      }
      this.lines.textContent = lines.join(" \\\n");
    }, "");
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.lines.textContent);
      this.said.say("Copied.", "good");
    } catch {
      getSelection().selectAllChildren(this.lines);
      this.said.say("Selected: Ctrl-C copies it.", "note");
    }
  }

  update() {
    for (const [place, cable, row] of this.rows) {
      const now = this.fabric.placeOf.get(place.name) ?? place;
      const held = { tap: "VM at its tap", "vhost-user": "VM, vhost-user" }[now.held] ?? "free";
      const state = { down: ", cut", blackhole: ", blackhole" }[now.cable] ?? "";
      const rates = cable ? `\u2192 ${rate(cable.lanes[0].rate)}  \u2190 ${rate(cable.lanes[1].rate)}` : "";
      setAttribute(row, "class", cable ? this.fabric.look(cable, step) : null);
      [held, `${now.leaf}${state}`, rates].forEach((text, index) => setText(row.cells[index + 1], text));
    }
  }
}
