// What rules are defined, what fires, since when, and what was done about it.

import { get, repeat } from "./api.js";
import { h, plain, setText } from "./dom.js";
import { clock, count, duration, noun } from "./format.js";

export function alertsPage(view) {
  const summary = h("p", { class: "reason", role: "status" }, "…");
  const trouble = h("p", { class: "problem" });
  const firing = h("ul", { class: "alerts", "aria-label": "What fires" });
  const rules = h("tbody");
  const receivers = h("tbody");
  const events = h("tbody");
  const parts = h("div", { hidden: true },
    h("h2", {}, "Rules"), table(["Rule", "Devices", "Fires if", "For", "Tells", "Fires on"], rules),
    h("h2", {}, "Who is told"), table(["Receiver", "Waiting", "Why it is not told"], receivers),
    h("h2", {}, "What happened"), table(["When", "Rule", "Device", "", "Message", "What was done"], events));
  const turn = (step) => h("button", { type: "button", onclick: () => { page += step; again(); } }, step < 0 ? "‹ Previous" : "Next ›");
  const back = turn(-1);
  const on = turn(1);
  const where = h("span");
  const pager = h("div", { class: "pager", hidden: true }, back, where, on);
  view.append(h("h1", {}, "Alerts"), summary, trouble, firing, pager, parts);
  const isNew = changes();
  let page = 1;
  let stop = () => {};
  const again = () => {
    stop();
    stop = repeat(3, async (signal) => show(await get("alerts", { page }, signal)));
  };
  const show = (found) => {
    if (!isNew(found)) return;
    page = found.page;
    pager.hidden = found.pages < 2;
    setText(where, `${count(found.page)} of ${count(found.pages)}`);
    back.disabled = found.page <= 1;
    on.disabled = found.page >= found.pages;
    setText(summary, sentence(found));
    setText(trouble, problem(found));
    parts.hidden = !found.enabled;
    firing.replaceChildren(...found.alerts.map((alert) => item(alert)));
    rules.replaceChildren(...found.rules.map((rule) => row([
      plain(rule.name), h("code", {}, plain(rule.devices)), h("code", {}, plain(rule.test)),
      [rule.for, rule.keep_firing_for && `kept for ${rule.keep_firing_for}`].filter(Boolean).join(", ") || "–",
      rule.then.length ? rule.then.map((target) => h("div", {}, plain(target))) : "–",
      rule.firing ? noun(rule.firing, "device") : "–"])));
    receivers.replaceChildren(...found.receivers.map((each) =>
      row([plain(each.target), count(each.waiting), plain(each.failure) || "–"])));
    if (!found.receivers.length) receivers.append(nothing(3, "The rules tell nobody: their alerts are only kept."));
    events.replaceChildren(...found.events.map((each) => row([
      time(each.time), plain(each.rule), device(each), state(each), plain(each.message), deeds(each)])));
    if (!found.events.length) events.append(nothing(6, "Nothing yet."));
  };
  again();
  return () => stop();
}

// What fires, for the overview; empty if there are no rules.
export function alertsCard() {
  const list = h("ul", { class: "alerts short" });
  const text = h("p", { class: "quiet" });
  const element = h("section", { class: "card", hidden: true, "aria-label": "Alerts" },
    h("h2", {}, h("a", { href: "#/alerts" }, "Alerts")), text, list);
  const isNew = changes();
  const stop = repeat(5, async (signal) => {
    const found = await get("alerts", { size: 5 }, signal);
    if (!isNew(found)) return;
    element.hidden = !found.enabled;
    if (!found.enabled) return;
    setText(text, [sentence(found), problem(found)].filter(Boolean).join(" "));
    list.replaceChildren(...found.alerts.map((alert) => item(alert)));
  });
  return { element, stop };
}

// Tells whether an answer is another than before: what is shown anew loses the keyboard's focus.
function changes() {
  let before = "";
  return (value) => {
    const now = JSON.stringify({ ...value, behind: value.behind > 5 ? Math.round(value.behind) : 0 });
    const is = now !== before;
    before = now;
    return is;
  };
}

function sentence({ enabled, firing, rules }) {
  if (!enabled) return "No rules are followed: start with twistd ingest-watch --rules FILE.";
  const defined = `${noun(rules.length, "rule")} ${rules.length === 1 ? "is" : "are"} defined`;
  return firing ? `${noun(firing, "alert")} now; ${defined}.` : `Nothing fires; ${defined}.`;
}

function problem({ trouble, behind }) {
  if (trouble) return `Something is wrong: ${plain(trouble)}.`;
  return behind > 5 ? `The rules are ${duration(behind)} behind the log.` : "";
}

function item(alert) {
  return h("li", {},
    h("p", { class: "alert" }, h("span", { class: "glyph", "aria-hidden": "true" }, "▲"), h("b", {}, plain(alert.rule)), " ",
      device(alert), h("span", { class: "quiet" }, ` since ${clock(seconds(alert.since))}`)),
    h("p", {}, plain(alert.message)), deeds(alert));
}

function device({ device: name }) {
  return name ? h("a", { href: `#/device/${encodeURIComponent(name)}` }, plain(name)) : "";
}

function state({ state: name }) {
  return h("span", { class: `state ${name}` }, name === "firing" ? "▲ fired" : "○ cleared");
}

function deeds({ did }) {
  if (!did.length) return "";
  return h("div", { class: "note" }, did.map((each) => h("div", { class: each.state === "given up" ? "problem" : "" },
    `${plain(each.target)}: ${plain(each.state)}`,
    each.time ? ` at ${clock(seconds(each.time))}` : "", each.failure ? `, ${plain(each.failure)}` : "")));
}

const seconds = (text) => Date.parse(text) / 1000;

function time(text) {
  return h("time", { datetime: text }, clock(seconds(text)));
}

function table(names, body) {
  return h("div", { class: "scroll apart", tabindex: 0, role: "region", "aria-label": names[0] }, h("table", { class: "events" },
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), body));
}

function row(cells) {
  return h("tr", {}, cells.map((cell) => h("td", { class: "cell" }, cell)));
}

function nothing(width, text) {
  return h("tr", {}, h("td", { colspan: width, class: "quiet" }, text));
}
