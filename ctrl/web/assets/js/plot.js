// The rate of a cable over the last five minutes: one lane upwards, the other downwards, drops on the line
// between them.

import { svg, setAttribute, setText } from "./dom.js";
import { rate, perSecond } from "./format.js";
import { HISTORY } from "./fabric.js";

const WIDTH = 340;
const HALF = 62;
const MIDDLE = HALF + 8;
const SPAN = HISTORY * 1000;

// The least 1, 2 or 5 times a power of ten that is not less than `value`.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Plot {
  constructor() {
    this.areas = [0, 1].map((side) => svg("path", { class: `area area-${side}` }));
    this.drops = svg("path", { class: "plot-drops" });
    this.scale = svg("text", { class: "axis", x: WIDTH, y: 18, "text-anchor": "end" });
    this.cursor = svg("path", { class: "cursor", d: "" });
    this.names = [18, 2 * HALF + 4].map((y) => svg("text", { class: "axis", x: 0, y }));
    const minutes = [1, 2, 3, 4].map((minute) => svg("path", { class: "grid", d: `M${WIDTH - (WIDTH * minute) / 5} 8V${2 * HALF + 8}` }));
    const labels = [["5 min ago", 0, "start"], ["now", WIDTH, "end"]].map(([word, x, anchor]) =>
      svg("text", { class: "axis", x, y: 2 * HALF + 24, "text-anchor": anchor }, word));
    this.element = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${2 * HALF + 30}`, role: "img" },
      minutes, this.areas, this.drops, svg("path", { class: "zero", d: `M0 ${MIDDLE}H${WIDTH}` }), this.cursor, this.scale, this.names, labels);
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.point(null));
    this.pointed = null;
  }

  draw(cable, names, now, readout) {
    const shown = cable.history.filter(({ at }) => now - at <= SPAN);
    const x = (at) => WIDTH - ((now - at) / SPAN) * WIDTH;
    // Bits per second, for a round number on the axis.
    const most = ceiling(8 * Math.max(125, ...shown.flatMap(({ rates }) => rates))) / 8;
    this.areas.forEach((area, side) => {
      const y = (value) => MIDDLE + (side === 0 ? -1 : 1) * (value / most) * HALF;
      const line = shown.map(({ at, rates }) => `L${x(at).toFixed(1)} ${y(rates[side]).toFixed(1)}`).join("");
      const ends = shown.length ? [x(shown[0].at), x(shown.at(-1).at)] : [0, 0];
      setAttribute(area, "d", shown.length > 1 ? `M${ends[0].toFixed(1)} ${MIDDLE}${line}L${ends[1].toFixed(1)} ${MIDDLE}Z` : "");
    });
    const lost = shown.filter(({ drops }) => drops > 0);
    setAttribute(this.drops, "d", lost.map(({ at }) => `M${x(at).toFixed(1)} ${MIDDLE - 2}v4`).join(""));
    setText(this.scale, rate(most));
    names.forEach((name, side) => setText(this.names[side], `${side === 0 ? "\u2191" : "\u2193"} ${name}`));
    const last = shown.at(-1)?.rates ?? [0, 0];
    setAttribute(this.element, "aria-label", `Rate of the last five minutes, now ${rate(last[0])} ${names[0]} and ${rate(last[1])} ${names[1]}`);
    this.read(shown, now, names, readout);
  }

  point(event) {
    const box = this.element.getBoundingClientRect();
    this.pointed = event ? (event.clientX - box.left) / box.width : null;
    this.redraw?.();
  }

  // Says what was at the pointer, or is now.
  read(shown, now, names, readout) {
    let sample = shown.at(-1);
    if (this.pointed !== null && shown.length) {
      const at = now - (1 - this.pointed) * SPAN;
      sample = shown.reduce((best, each) => (Math.abs(each.at - at) < Math.abs(best.at - at) ? each : best));
      const x = (WIDTH - ((now - sample.at) / SPAN) * WIDTH).toFixed(1);
      setAttribute(this.cursor, "d", `M${x} 8V${2 * HALF + 8}`);
    } else {
      setAttribute(this.cursor, "d", "");
    }
    const ago = sample ? Math.round((now - sample.at) / 1000) : 0;
    const when = this.pointed === null || ago < 1 ? "now" : `${ago} s ago`;
    const [there, back] = sample?.rates ?? [0, 0];
    const drops = sample?.drops ? `, ${perSecond(sample.drops)} dropped` : "";
    setText(readout, `${when}: \u2191 ${rate(there)}  \u2193 ${rate(back)}${drops}`);
  }
}
