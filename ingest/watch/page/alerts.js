// What fires, since when and what was done; and what is defined.

import { get, repeat } from "./api.js";
import { h, plain, setText } from "./dom.js";
import { count } from "./format.js";

export function alertsPage(view) {
  const trouble = h("p", { class: "problem", role: "status" });
  const parts = {
    alerts: part("Firing", ["Rule", "Device", "Since", "What", "Told"], "Nothing fires."),
    events: part("Of late", ["State", "Rule", "Device", "Time", "What", "Told"], "Nothing has fired yet."),
    rules: part("Rules", ["Rule", "Devices", "Condition", "For", "Told", "Firing"], "No rule is defined: --rules FILE"),
    receivers: part("Receivers", ["Target", "Waiting", "Trouble"], "Nobody is told."),
  };
  view.append(h("h1", {}, "Alerts"), trouble, ...Object.values(parts).map((each) => each.element));
  return repeat(3, async (signal) => {
    const found = await get("alerts", {}, signal);
    setText(trouble, found.trouble ? `Nothing is decided at the moment: ${plain(found.trouble)}` : "");
    parts.alerts.fill(found.alerts.map((each) => [plain(each.rule), device(each.device), when(each.since),
      plain(each.message || each.reason), told(each.then)]));
    parts.events.fill(found.events.map((each) => [plain(each.state), plain(each.rule), device(each.device),
      when(each.time), plain(each.message || each.reason), told(each.then)]));
    parts.rules.fill(found.rules.map((each) => [plain(each.name), plain(each.devices), h("code", {}, plain(each.test)),
      plain(each.for ?? "–"), told(each.then), count(each.firing)]));
    parts.receivers.fill(found.receivers.map((each) => [plain(each.target), count(each.waiting), plain(each.failure || "–")]));
  });
}

function part(title, heads, nothing) {
  const body = h("tbody");
  return {
    element: h("section", {}, h("h2", {}, title), h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), body))),
    fill: (rows) => body.replaceChildren(...(rows.length
      ? rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))
      : [h("tr", {}, h("td", { colspan: heads.length, class: "quiet" }, nothing))])),
  };
}

function device(name) {
  return name ? h("a", { href: `#/device/${encodeURIComponent(name)}` }, plain(name)) : "–";
}

function when(time) {
  return plain(String(time ?? "–").slice(0, 19).replace("T", " "));
}

function told(targets) {
  return targets?.length ? plain(targets.join(", ")) : "–";
}
