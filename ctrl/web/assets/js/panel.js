// The panel beside the aisle: what was opened, until Escape or its button closes it.

import { el } from "./dom.js";

export class Panel {
  constructor(element, closed) {
    this.element = element;
    this.closed = closed;
    this.view = null;
    this.opener = null;
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  get key() {
    return this.view?.key ?? null;
  }

  // Shows `view`; closing gives the focus back to `opener`.
  show(view, opener) {
    if (this.view === null || opener) this.opener = opener ?? document.activeElement;
    this.view = view;
    const close = el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.close() }, "\u00d7");
    const title = el("h2", { id: "panel-title" }, view.title);
    this.element.replaceChildren(
      el("header", { class: "panel-head" }, el("div", {}, el("p", { class: "kind" }, view.kind), title), close),
      view.body,
    );
    this.element.setAttribute("aria-labelledby", "panel-title");
    this.element.hidden = false;
    document.body.classList.add("with-panel");
    view.update();
    this.element.scrollTop = 0;
    this.element.focus({ preventScroll: true });
  }

  update() {
    this.view?.update();
  }

  close() {
    if (!this.view) return;
    const { key } = this;
    this.view = null;
    this.element.hidden = true;
    this.element.replaceChildren();
    document.body.classList.remove("with-panel");
    // What opened it may have been drawn anew.
    if (this.opener?.isConnected) this.opener.focus({ preventScroll: true });
    this.closed(key, Boolean(this.opener?.isConnected));
    this.opener = null;
  }
}

export function section(title, ...children) {
  return el("section", {}, title ? el("h3", {}, title) : null, ...children);
}

// A line for what became of an action. What fails stays until the next one.
export class Outcome {
  constructor() {
    this.element = el("p", { class: "outcome", role: "status" });
  }

  // Runs `action` while its controls are switched off; shows `done`, or what the fabric said.
  async of(controls, action, done) {
    for (const each of controls) each.disabled = true;
    this.say("", "");
    try {
      const answer = await action();
      const notes = answer?.notes?.length ? answer.notes.join(" ") : "";
      this.say(notes || done, notes ? "note" : "good");
    } catch (error) {
      this.say(error.name === "TimeoutError" ? "no answer within 30 s" : error.message, "bad");
    } finally {
      for (const each of controls) each.disabled = false;
    }
  }

  say(text, kind) {
    this.element.textContent = text;
    this.element.dataset.kind = kind;
  }
}

// A button that asks again before it acts: the second press within four seconds counts.
export function twice(word, again, act, attributes = {}) {
  const button = el("button", { type: "button", ...attributes }, word);
  let timer = null;
  const rest = () => {
    clearTimeout(timer);
    timer = null;
    button.textContent = word;
    button.classList.remove("sure");
  };
  button.addEventListener("click", () => {
    if (timer !== null) {
      rest();
      act();
      return;
    }
    button.textContent = again;
    button.classList.add("sure");
    timer = setTimeout(rest, 4000);
  });
  button.addEventListener("blur", rest);
  return button;
}

// Names and values; `write` sets the values by the names.
export function facts(names) {
  const values = new Map(names.map((name) => [name, el("dd", {})]));
  const element = el("dl", { class: "facts" }, names.map((name) => el("div", {}, el("dt", {}, name), values.get(name))));
  return { element, values };
}
