// Numbers and texts as people read them.

const STEPS = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

function scaled(value) {
  for (const [unit, letter] of STEPS) {
    if (value >= unit * 0.9995) return [value / unit, letter];
  }
  return [value, ""];
}

function digits(value) {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

// Bits per second, of bytes per second.
export function rate(bytes) {
  const [value, letter] = scaled(bytes * 8);
  if (value === 0) return "0";
  return `${letter ? digits(value) : value.toFixed(0)} ${letter}b/s`;
}

// A number of frames, with thin spaces between thousands.
export function count(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

export function perSecond(value) {
  const [scaledValue, letter] = scaled(value);
  return `${letter ? digits(scaledValue) : count(scaledValue)}${letter ? `\u2009${letter}` : ""}/s`;
}

export function bytes(value) {
  for (const [unit, word] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (value >= unit) return `${digits(value / unit)} ${word}`;
  }
  return `${value} B`;
}

// The step of a rate: 0 for none, then up to 10 kb/s, 1 Mb/s, 100 Mb/s and more.
export function step(bytes) {
  const bits = bytes * 8;
  if (bits < 1) return 0;
  return bits < 1e4 ? 1 : bits < 1e6 ? 2 : bits < 1e8 ? 3 : 4;
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

// What a program on a switch wrote: bytes in base64, of which only printable ones are shown. Bidirectional
// and invisible marks go too, as they change what a reader sees.
export function guestText(base64) {
  const raw = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const text = new TextDecoder().decode(raw).replaceAll("\r\n", "\n");
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]|\p{Cf}|[\u2028\u2029]/gu, "\ufffd");
}

// A word as a shell takes it.
export function shellWord(word) {
  return /^[A-Za-z0-9\-_=,.:\/+@%]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
