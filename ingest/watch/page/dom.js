// Elements. Text is only ever set as text: nothing that a device sent becomes markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Puts children in the place of those before, and keeps what is as it was: with the focus that it
// may have, and with the text that somebody selects in it. Listeners of what is kept are the old ones.
export function refill(parent, children) {
  const old = [...parent.childNodes];
  children.forEach((child, place) => {
    if (place >= old.length) parent.append(child);
    else merge(old[place], child);
  });
  for (const each of old.slice(children.length)) each.remove();
}

function merge(old, made) {
  if (old.isEqualNode(made)) return;
  const isAlike = old.nodeType === Node.ELEMENT_NODE && old.cloneNode().isEqualNode(made.cloneNode());
  if (isAlike) refill(old, [...made.childNodes]);
  else old.replaceWith(made);
}

// Characters that turn the direction of text around or can't be seen, made visible.
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function plain(text) {
  return String(text).replace(STEERING, (char) =>
    `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// Text in which commands stand between backticks.
export function withCode(text) {
  return plain(text).split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));
}

export function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
