// The cables as a table: for finding one, and for readers of the screen.

import { el, setAttribute, setText } from "./dom.js";
import { perSecond, plural, rate, step } from "./format.js";

const AT_FIRST = 40;
const WORDS = { down: "cut", closed: "closed", blackhole: "blackhole" };

const KINDS = [
  ["between", "Between switches", (fabric, cable) => fabric.isBetweenSwitches(cable)],
  ["plugged", "Plugged in", (fabric, cable) => fabric.isPlugged(cable)],
  ["changed", "Cut or impaired", (fabric, cable) => cable.state !== "up" || cable.isImpaired],
  ["all", "All", () => true],
];

export class List {
  constructor({ table, find, chips, more }, open) {
    this.body = table.tBodies[0];
    this.open = open;
    this.rows = new Map();
    this.kind = "between";
    this.isWhole = false;
    this.find = find;
    this.more = more;
    this.chips = KINDS.map(([kind, word]) => {
      const count = el("span", { class: "count" });
      const button = el("button", { type: "button", onclick: () => this.choose(kind) }, `${word} `, count);
      chips.append(button);
      return { kind, button, count };
    });
    find.addEventListener("input", () => this.update(this.fabric));
  }

  choose(kind) {
    this.kind = kind;
    this.isWhole = false;
    this.update(this.fabric);
  }

  update(fabric) {
    if (!fabric) return;
    this.fabric = fabric;
    const all = [...fabric.cables.values()];
    for (const chip of this.chips) {
      const [, , holds] = KINDS.find(([kind]) => kind === chip.kind);
      setText(chip.count, String(all.filter((cable) => holds(fabric, cable)).length));
      setAttribute(chip.button, "aria-pressed", String(chip.kind === this.kind));
    }
    const found = this.found(fabric, all);
    const shown = this.isWhole ? found : found.slice(0, AT_FIRST);
    this.place(shown);
    for (const cable of shown) this.write(fabric, cable);
    this.sayMore(found.length - shown.length, found.length);
  }

  found(fabric, all) {
    const words = this.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [, , holds] = KINDS.find(([kind]) => kind === this.kind);
    if (words.length === 0) return all.filter((cable) => holds(fabric, cable));
    const text = (cable) => [cable.name, ...cable.ends, ...cable.ends.map((end) => fabric.alias(end))].join(" ").toLowerCase();
    return all.filter((cable) => words.every((word) => text(cable).includes(word)));
  }

  // The rows of these cables, in this order; nothing moves if they stand there already.
  place(cables) {
    const rows = cables.map((cable) => this.row(cable.name).element);
    const same = rows.length === this.body.children.length && rows.every((row, index) => row === this.body.children[index]);
    if (!same) this.body.replaceChildren(...rows);
  }

  row(name) {
    const known = this.rows.get(name);
    if (known) return known;
    const button = el("button", { type: "button" }, name);
    const cells = Array.from({ length: 5 }, (_, index) => el("td", { class: ["ends", "state", "n", "n", "n drops"][index] }));
    const element = el("tr", {}, el("th", { scope: "row" }, button), cells);
    element.addEventListener("click", () => this.open(`cable ${name}`, button));
    const row = { element, cells };
    this.rows.set(name, row);
    return row;
  }

  write(fabric, cable) {
    const { element, cells } = this.row(cable.name);
    const look = fabric.look(cable, step);
    setAttribute(element, "class", look);
    const state = WORDS[cable.state] ?? (cable.isImpaired ? "impaired" : look === "free" ? "free" : "up");
    const [a, b] = cable.lanes;
    const texts = [cable.ends.map((end) => fabric.alias(end)).join(" \u2194 "), state, rate(a.rate), rate(b.rate), cable.drops > 0 ? perSecond(cable.drops) : "\u2013"];
    texts.forEach((text, index) => setText(cells[index], text));
  }

  sayMore(hidden, number) {
    if (hidden > 0) {
      if (!this.button) {
        this.button = el("button", { type: "button", onclick: () => ((this.isWhole = true), this.update(this.fabric)) });
        this.more.replaceChildren(this.button);
      }
      setText(this.button, `Show ${hidden} more`);
      return;
    }
    this.button = null;
    setText(this.more, number === 0 ? (this.find.value ? "No cable has such a name." : "None.") : plural(number, "cable"));
  }
}
