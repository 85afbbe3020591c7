// The page of a running fabric: asks once a second, while somebody looks, and shows the answer.

import { Refused } from "./api.js";
import { Aisle, inWords } from "./aisle.js";
import { CableView } from "./cable.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { Fabric } from "./fabric.js";
import { perSecond, plural, rate } from "./format.js";
import { List } from "./list.js";
import { Panel } from "./panel.js";
import { PositionView } from "./position.js";
import { SwitchView } from "./switch.js";

const EVERY = 1000;
const SLOWEST = 5000;

const fabric = new Fabric();
let pointed = null;
let wake = null;
let failures = 0;

const panel = new Panel(byId("panel"), (key, hasFocus) => {
  aisle.choose(null);
  if (!hasFocus) aisle.focus(key);
});
const aisle = new Aisle(byId("aisle"), byId("aisle-frame"), { open, point });
const list = new List({ table: byId("cables"), find: byId("find"), chips: byId("chips"), more: byId("more") }, open);

function open(key, opener) {
  const [kind, name] = key.split(/ (.*)/s);
  const views = {
    cable: () => new CableView(fabric, name, refresh),
    switch: () => new SwitchView(fabric, name, refresh, open),
    position: () => new PositionView(fabric, name, open),
  };
  panel.show(views[kind](), opener);
  aisle.choose(key);
}

function point(key) {
  pointed = key;
  readOut();
}

function readOut() {
  const item = pointed && aisle.items.get(pointed);
  const cable = item?.kind === "cable" ? fabric.cables.get(item.name) : null;
  setText(byId("readout"), cable ? inWords(fabric, cable) : item ? item.element.getAttribute("aria-label") : "Choose a cable, a switch or a position.");
}

// Asks at once, after a change.
function refresh() {
  wake?.();
}

function sleep(time) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

function visible() {
  return new Promise((resolve) => {
    if (!document.hidden) resolve();
    else document.addEventListener("visibilitychange", () => resolve(visible()), { once: true });
  });
}

async function follow() {
  for (;;) {
    await visible();
    const began = performance.now();
    try {
      await fabric.tick();
      failures = 0;
      show();
    } catch (error) {
      failures += 1;
      if (lost(error)) return;
    }
    const pause = Math.min(SLOWEST, EVERY * 2 ** Math.max(0, failures - 1));
    await sleep(Math.max(100, pause - (performance.now() - began)));
  }
}

function show() {
  aisle.draw(fabric);
  aisle.update(fabric);
  list.update(fabric);
  panel.update();
  readOut();
  live();
  figures();
}

// What keeps the fabric from being ready, a sentence for each.
function reasons(status) {
  const said = [...(status.host ?? [])];
  for (const node of status.nodes) {
    const { established, expected } = node.bgp;
    const note = node.note ? `: ${node.note}` : "";
    if (node.state !== "running") said.push(`${node.name} is ${node.state}${note}`);
    else if (established < expected) said.push(`${node.name} has ${established} of ${expected} sessions${note}`);
  }
  // The problems name those of the host again.
  return [...new Set([...said, ...(status.problems ?? [])])];
}

function live() {
  const { status } = fabric;
  const said = reasons(status);
  const word = status.ready ? "Ready" : "Not ready";
  let why = status.ready ? "" : (said[0] ?? "some loopbacks do not answer yet");
  if (status.applying) why = `apply ${status.applying}`;
  say(status.ready ? "ready" : "not", word, why);
  const troubles = byId("troubles");
  const most = status.ready ? 0 : 1;
  troubles.hidden = said.length <= most;
  setText(troubles.querySelector("summary"), plural(said.length, "remark"));
  const text = said.join("\n");
  if (troubles.dataset.text !== text) {
    troubles.dataset.text = text;
    troubles.querySelector("ul").replaceChildren(...said.map((sentence) => el("li", {}, sentence)));
  }
  document.title = `${status.ready ? "" : "! "}ikv-fabric`;
}

function say(state, word, why) {
  setAttribute(byId("live"), "data-state", state);
  setText(byId("live-word"), word);
  setText(byId("live-why"), why);
}

// Says that the fabric does not answer. Whether to give up: a link does not become valid again.
function lost(error) {
  const expired = error instanceof Refused && (error.status === 401 || error.status === 403);
  if (expired) say("lost", "Link expired", "this page's link is not this fabric's any more: `ikv-fabric web` prints the present one");
  else if (error instanceof Refused) say("lost", "Refused", error.message);
  else say("lost", "No answer", "the fabric does not answer; the page asks again");
  document.title = "? ikv-fabric";
  return expired;
}

function figures() {
  const { status, places } = fabric;
  const cables = [...fabric.cables.values()];
  const sum = (of) => cables.reduce((total, cable) => total + of(cable), 0);
  const running = status.nodes.filter((node) => node.state === "running").length;
  const established = status.nodes.reduce((total, node) => total + node.bgp.established, 0);
  const expected = status.nodes.reduce((total, node) => total + node.bgp.expected, 0);
  const drops = sum((cable) => cable.drops);
  const shown = [
    ["Switches", status.nodes.length ? `${running}/${status.nodes.length}` : "none", running < status.nodes.length],
    ["Sessions", status.nodes.length ? `${established}/${expected}` : "\u2013", established < expected],
    ["Cables", String(cables.length), false],
    ["Plugged in", String(places.filter(({ held }) => held).length), false],
    ["Traffic", rate(sum((cable) => cable.rate)), false],
    ["Dropped", drops > 0 ? perSecond(drops) : "0", false],
  ];
  const element = byId("figures");
  if (element.children.length === 0) element.append(...shown.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", {}))));
  shown.forEach(([, value, lacks], index) => {
    const written = element.children[index].lastChild;
    setText(written, value);
    setAttribute(written, "class", lacks ? "lacks" : null);
  });
}

new ResizeObserver(() => {
  if (!fabric.status) return;
  aisle.draw(fabric);
  aisle.update(fabric);
}).observe(byId("aisle-frame"));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") panel.close();
});
follow();
