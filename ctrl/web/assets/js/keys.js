// Arrow keys in the aisle: it is one stop of the Tab key, and the arrows move within it.

const WAYS = {
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
};

// The item that lies nearest in a direction: what lies aside counts twice as far.
function nearest(items, from, [dx, dy]) {
  let best = null;
  let least = Infinity;
  for (const item of items) {
    const [x, y] = [item.x - from.x, item.y - from.y];
    const along = x * dx + y * dy;
    if (item === from || along < 1) continue;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along + 2 * aside < least) [best, least] = [item, along + 2 * aside];
  }
  return best;
}

// `items` gives the things that can have the focus, each with its element and its middle.
export function arrows(frame, items) {
  frame.addEventListener("keydown", (event) => {
    const all = items();
    const from = all.find(({ element }) => element === document.activeElement);
    if (!from) return;
    if (WAYS[event.key]) {
      event.preventDefault();
      const to = nearest(all, from, WAYS[event.key]);
      to?.element.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      from.element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    }
  });
}
