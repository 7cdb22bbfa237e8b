// Numbers, sizes and times for people.

import { h } from "./dom.js";

const THOUSANDS = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

export const count = (value) => (value === null || value === undefined ? "–" : THOUSANDS.format(value));

export function noun(value, word) {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

export function rate(value) {
  if (value === 0) return "0";
  if (value < 0.095) return value.toFixed(2);
  if (value < 9.95) return value.toFixed(1);
  return count(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

const STEPS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function duration(seconds) {
  if (seconds < 0.01) return `${Number((seconds * 1000).toPrecision(2))} ms`; // a fast disk's
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  let left = Math.round(seconds);
  const parts = [];
  for (const [size, unit] of STEPS) {
    const number = Math.floor(left / size);
    left -= number * size;
    if (number || parts.length) parts.push(number ? `${number} ${unit}` : "");
    if (parts.length === 2) break;
  }
  return parts.filter(Boolean).join(" ");
}

export function ago(time, now = Date.now() / 1000) {
  if (!time) return "never";
  const seconds = now - time;
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

export function clock(time) {
  return `${new Date(time * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

// The same, and what the clock says where the reader is.
export function clocks(time) {
  return `${clock(time)}\n${new Date(time * 1000).toLocaleString()} where you are`;
}

// Labels of a time axis, in UTC: at the first of them, and where a day or a year begins, which it is.
export function ticks(times, step) {
  const [whole, part] = step >= 86400 ? [[0, 4], [5, 10]] : [[0, 10], [11, step < 1 ? 23 : step < 60 ? 19 : 16]];
  let before = "";
  return times.map((time) => {
    const text = new Date(time * 1000).toISOString();
    const label = text.slice(...part);
    const now = text.slice(...whole);
    const isNew = now !== before;
    before = now;
    return isNew ? `${label}\n${now}` : label;
  });
}

export function value(number) {
  if (number === null || number === undefined) return "–";
  if (Math.abs(number) >= 1e15) return number.toExponential(5).replace(/\.?0+e/, "e");
  if (Number.isInteger(number)) return String(number);
  return String(Number(number.toPrecision(6)));
}

export const STATES = {
  online: ["●", "Connected, and heard of late"],
  silent: ["○", "Not connected, or not heard"],
  failing: ["▲", "Connected, but something of it is refused or stuck"],
  refused: ["✕", "It tries, and is not let in"],
  disabled: ["–", "Disabled by an operator"],
};

export function state(name) {
  const [glyph, title] = STATES[name] ?? ["?", ""];
  return h("span", { class: `state ${name}`, title },
    h("span", { class: "glyph", "aria-hidden": "true" }, glyph), ` ${name}`);
}
