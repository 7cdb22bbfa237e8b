// One device: why it is not delivering, its connection, its curves and its last lines.

import { get, repeat } from "./api.js";
import { Chart } from "./chart.js";
import { h, plain, refill, setText, withCode } from "./dom.js";
import { ago, bytes, clock, clocks, count, duration, rate, state } from "./format.js";
import { Lines } from "./lines.js";

const MANY = 24; // charts that are drawn without being asked for
const SPAN = 3600; // seconds
const TOGETHER = 8; // curves of one request

export function devicePage(view, { name }) {
  const heading = h("h1", {}, plain(name));
  const mark = h("span");
  const why = h("p", { class: "why", role: "status" }, "…");
  const facts = h("dl", { class: "facts" });
  const connection = h("section", { class: "card", hidden: true }, h("h2", {}, "Connection"), facts);
  const charts = h("div", { class: "charts" });
  const quiet = h("p", { class: "quiet" });
  const lines = new Lines({ device: name, short: true });
  const more = h("button", { type: "button", hidden: true, onclick: () => { limit = Infinity; } }, "Draw all");
  let limit = MANY;
  view.append(
    h("p", {}, h("a", { href: "#/devices" }, "‹ Devices")),
    h("div", { class: "title" }, heading, mark), why,
    connection,
    h("section", {}, h("h2", {}, "Curves"), quiet, charts, more),
    h("section", {}, h("h2", {}, "Last lines"), lines.element));
  const drawn = new Map();
  let first = -Infinity;
  let said = "";

  function say(words, isBad) {
    if (words !== said) why.replaceChildren(...withCode(words));
    said = words;
    why.classList.toggle("bad", isBad);
  }

  const stopFacts = repeat(2, async (signal) => {
    let device;
    try { device = await get(`devices/${encodeURIComponent(name)}`, {}, signal); } catch (error) {
      if (error.name !== "AbortError") say(error.message, true);
      return;
    }
    connection.hidden = false;
    mark.replaceChildren(state(device.state));
    say(device.why || "It is delivering.", Boolean(device.why));
    showFacts(facts, device);
  });

  const stopCurves = repeat(2, async (signal) => {
    const { fields } = await get(`devices/${encodeURIComponent(name)}/fields`, {}, signal);
    const wanted = fields.slice(0, limit);
    more.hidden = fields.length <= limit;
    setText(quiet, fields.length ? "" : "No number is known of it: none of its last frames has one.");
    for (const { name: field } of wanted) {
      if (drawn.has(field)) continue;
      const chart = new Chart({ title: field, height: 150 });
      const open = new URLSearchParams({ c: `${name} ${field}` });
      chart.caption.append(" ", h("a", { href: `#/plot?${open}`, "aria-label": `Open ${plain(field)}` }, "open"));
      drawn.set(field, chart);
      charts.append(chart.element);
    }
    const to = Date.now() / 1000;
    // A device that came lately is seen from its first value on.
    const range = [Math.max(to - SPAN, Math.min(first, to - 120)), to];
    first = Infinity;
    for (let place = 0; place < wanted.length; place += TOGETHER) {
      const some = wanted.slice(place, place + TOGETHER);
      const asked = new URLSearchParams({ from: range[0], to, points: 240 });
      for (const { name: field } of some) { asked.append("device", name); asked.append("field", field); }
      const { curves } = await get("series", asked, signal);
      for (const curve of curves) {
        first = Math.min(first, curve.start[0] ?? Infinity);
        drawn.get(curve.field)?.setTables([{ ...curve, label: curve.field }], range);
      }
    }
  });
  return () => {
    stopFacts();
    stopCurves();
    lines.destroy();
    for (const chart of drawn.values()) chart.destroy();
  };
}

function showFacts(list, device) {
  const { connection } = device;
  const rows = [
    ["Last seen", device.last ? `${ago(device.last)} (${clock(device.last)})` : "never", device.last && clocks(device.last)],
    ["Frames a second", rate(device.rate)],
    ["Next number", count(device.next)],
    ["Peer", device.peer || "–"],
    ["Connected", connection ? `for ${duration(connection.connected_s)}, phase ${connection.phase}` : "no"],
    ["Acknowledged", connection ? `up to ${count(connection.acknowledged)}` : "–"],
    ["Waiting", connection ? `${count(connection.waiting_frames)} frames, ${bytes(connection.waiting_bytes)}` : "–"],
    ["Paused", connection ? (connection.is_reading ? "no" : "yes: the listener does not read from it now") : "–"],
    ["Last error", device.error ? `${device.error}, ${ago(device.error_at)}` : "none known"],
    ["Registered", device.created ? clock(Date.parse(device.created) / 1000) : "no"],
    ...(device.note ? [["Note", device.note]] : []),
  ];
  refill(list, rows.map(([name, value, title]) =>
    h("div", { class: name === "Note" ? "wide" : "" }, h("dt", {}, name), h("dd", { title }, plain(value)))));
}
