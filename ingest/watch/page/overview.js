// Is the fleet delivering? In five seconds.

import { alertsCard } from "./alerts.js";
import { get, post, repeat } from "./api.js";
import { Chart, SIZES } from "./chart.js";
import { h, plain, refill, setText } from "./dom.js";
import { ago, bytes, clock, count, duration, noun, rate, state, STATES } from "./format.js";

export function overviewPage(view, { onStatus }) {
  const word = h("p", { class: "word" }, "…");
  const reason = h("p", { class: "reason" }, "…");
  const tiles = Object.keys(STATES).map((name) => {
    const number = h("b", {}, "–");
    return [name, number, h("a", { class: "tile", href: `#/devices?state=${name}` }, number, state(name))];
  });
  const figures = h("dl", { class: "figures" });
  const errors = h("div", { class: "errors" });
  const frames = new Chart({ title: "Frames a second", height: 180, unit: rate, fromZero: true });
  const sizes = new Chart({ title: "Bytes a second", height: 180, unit: bytes, steps: SIZES, fromZero: true });
  const rotated = h("span", { role: "status" });
  const rotate = h("button", { type: "button", hidden: true, onclick: async () => {
    rotated.textContent = "…";
    try {
      const { closed } = await post("rotate");
      rotated.textContent = closed ? `Closed ${plain(closed)}` : "There was nothing to close";
    } catch (error) { rotated.textContent = plain(error.message); }
  } }, "Rotate the log now");
  const alerts = alertsCard();
  view.append(
    h("h1", { class: "hidden" }, "Overview"),
    h("section", { class: "verdict", "aria-label": "Health" }, word, reason),
    h("section", { class: "tiles", "aria-label": "Devices by state" }, tiles.map(([, , tile]) => tile)),
    alerts.element,
    h("section", { class: "pair" }, frames.element, sizes.element),
    h("section", { class: "pair" },
      h("div", { class: "card" }, h("h2", {}, "The listener"), figures, h("p", {}, rotate, " ", rotated)),
      h("div", { class: "card" }, h("h2", {}, "What went wrong"), errors)));
  const forget = onStatus((status) => {
    setText(word, status.health === "ok" ? "● ok" : `✕ ${plain(status.health)}`);
    word.className = `word ${status.health === "ok" ? "good" : "bad"}`;
    setText(reason, verdict(status));
    for (const [name, number] of tiles) setText(number, count(status.states[name]));
    showFigures(figures, status);
    showErrors(errors, status);
    rotate.hidden = status.role !== "operate" || !status.listener;
  });
  const stop = repeat(5, async (signal) => {
    const traffic = await get("traffic", {}, signal);
    frames.set(traffic.start, [{ label: "frames/s", mean: traffic.frames }]);
    sizes.set(traffic.start, [{ label: "bytes/s", mean: traffic.bytes }]);
  });
  return () => { forget(); stop(); alerts.stop(); frames.destroy(); sizes.destroy(); };
}

function verdict(status) {
  if (status.health !== "ok") {
    const since = status.since && status.health !== "log-unreadable" && !status.unreachable ? ` Since ${clock(status.since)}.` : "";
    const words = plain(status.reason);
    return `${words.charAt(0).toUpperCase()}${words.slice(1)}.${since}`;
  }
  const { frames_per_s: frames, devices_connected: connected } = status.listener;
  const bad = (status.states.failing ?? 0) + (status.states.refused ?? 0);
  const start = `${noun(connected, "device")} connected, ${rate(frames)} frames a second.`;
  const words = bad ? [start, `${noun(bad, "device")} can't deliver.`] : [start];
  if (status.alerts) words.push(`${noun(status.alerts, "alert")} ${status.alerts === 1 ? "fires" : "fire"}.`);
  return words.join(" ");
}

function showFigures(list, status) {
  const listener = status.listener;
  if (!listener) {
    refill(list, [...pair("State", status.unreachable ? "not known" : "it does not answer"),
      ...pair("Last asked", status.asked ? clock(status.asked) : "–")]);
    return;
  }
  const settings = Object.entries(listener.settings ?? {})
    .filter(([name]) => /^rotate/.test(name)).map(([name, value]) => `${name.replace(/^rotate[-_]/, "")} ${value}`);
  const rows = [
    ["ACK latency", latency(listener)],
    ["Waiting for the disk", listener.waiting_bytes ? bytes(listener.waiting_bytes) : "nothing"],
    ["Disk", `${bytes(listener.disk_free_bytes)} free, ${full(listener.disk_full_in_s)}`],
    ["Rotation", [settings.join(", "), listener.rotations === undefined ? "" :
      noun(listener.rotations, "file") + " closed"].filter(Boolean).join("; ") || "–"],
    ["Connections", listener.max_connections ? `${count(listener.connections)} of ${count(listener.max_connections)}` : count(listener.connections)],
    ["Quietest device", listener.oldest_silence_device
      ? `${plain(listener.oldest_silence_device)}, ${duration(listener.oldest_silence_s)}` : "–"],
    ["Received", noun(listener.total.received_frames, "frame")],
    ["Written", noun(listener.total.written_frames, "frame")],
    ["Running for", duration(listener.uptime_s)],
    ["Version", plain(listener.version)],
  ];
  refill(list, rows.filter(([, value]) => value !== null).flatMap((row) => pair(...row)));
}

function latency(listener) {
  const found = listener.ack_latency_s;
  if (found === undefined) return null; // of a listener from before an update
  if (found === null) return "nothing was acknowledged of late";
  return Object.entries(found).map(([name, value]) => `${plain(name)} ${duration(value)}`).join(", ");
}

function full(seconds) {
  if (seconds === 0) return "full";
  return seconds === null || seconds > 10 * 365 * 86400 ? "not filling" : `full in ${duration(seconds)}`;
}

function pair(name, value) {
  return [h("dt", {}, name), h("dd", {}, value)];
}

function showErrors(box, status) {
  const problems = status.watcher?.problems ?? [];
  const errors = status.errors ?? [];
  const rows = errors.map(({ code, count: number, meaning }) => h("tr", {},
    h("th", { scope: "row" }, plain(code), h("span", { class: "note" }, meaning)),
    h("td", { class: "number" }, count(number))));
  const strangers = (status.strangers ?? []).map(({ name, error, at, host }) => h("li", {},
    h("a", { href: `#/device/${encodeURIComponent(name)}` }, plain(name)), `, ${plain(error)}, ${ago(at)} from ${plain(host)}`));
  refill(box, [
    rows.length ? h("table", {}, h("tbody", {}, rows))
      : h("p", { class: "quiet" }, status.listener ? "Nothing, since it started." : "Not known: the listener does not answer."),
    ...(strangers.length ? [h("h3", {}, "Names that no device has"), h("ul", { class: "plain" }, strangers)] : []),
    ...problems.slice(-5).map((problem) => h("p", { class: "problem" }, `${clock(problem.time)}: ${plain(problem.text)}`)),
  ]);
}
