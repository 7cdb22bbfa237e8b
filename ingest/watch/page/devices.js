// The table of devices. Searching, sorting and paging are the server's: there may be 100,000.

import { get, repeat } from "./api.js";
import { h, plain, refill, setText } from "./dom.js";
import { ago, clocks, count, noun, rate, state, STATES } from "./format.js";

const COLUMNS = [
  ["state", "State"], ["name", "Device"], ["last", "Last seen"], ["rate", "Frames/s", "number"],
  ["next", "Next no.", "number"], ["waiting", "Waiting", "number"], ["error", "Last error"], ["peer", "Peer"],
];
const FIRST_DOWN = new Set(["last", "rate", "next", "waiting", "error"]);

export function devicesPage(view, { query }) {
  const known = (name, values) => (values.includes(query.get(name)) ? query.get(name) : values[0]);
  const asked = { q: query.get("q") ?? "", state: known("state", ["", ...Object.keys(STATES)]),
    sort: known("sort", ["name", ...COLUMNS.flatMap(([name]) => [name, `-${name}`])]), page: Math.max(1, parseInt(query.get("page"), 10) || 1) };
  let typing = null;
  const search = h("input", { type: "search", placeholder: "Name, note or address", value: asked.q,
    "aria-label": "Search devices", autocomplete: "off", spellcheck: "false",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => go({ q: search.value, page: 1 }), 200); } });
  const states = h("select", { "aria-label": "State", onchange: () => go({ state: states.value, page: 1 }) },
    h("option", { value: "" }, "All states"),
    Object.keys(STATES).map((name) => h("option", { value: name, selected: name === asked.state }, name)));
  const heads = COLUMNS.map(([name, title, kind = ""]) => h("th", { scope: "col", class: kind },
    h("button", { type: "button", onclick: () => go({ sort: turned(name), page: 1 }) }, title)));
  const body = h("tbody", {}, only("…"));
  const summary = h("p", { class: "quiet", role: "status" });
  const back = h("button", { type: "button", onclick: () => go({ page: asked.page - 1 }) }, "‹ Previous");
  const on = h("button", { type: "button", onclick: () => go({ page: asked.page + 1 }) }, "Next ›");
  const where = h("span");
  view.append(
    h("h1", {}, "Devices"),
    h("div", { class: "filters" }, search, states, summary),
    h("div", { class: "scroll" }, h("table", { class: "devices" }, h("thead", {}, h("tr", {}, heads)), body)),
    h("div", { class: "pager" }, back, where, on));

  let stop = () => {};
  let round = 0;
  const go = (change = {}) => {
    Object.assign(asked, change);
    const kept = new URLSearchParams(Object.entries(asked).filter(([name, value]) =>
      value && !(name === "sort" && value === "name") && !(name === "page" && value === 1)));
    history.replaceState(null, "", `#/devices${kept.size ? `?${kept}` : ""}`);
    heads.forEach((head, place) => mark(head, COLUMNS[place][0]));
    stop();
    const mine = ++round;
    stop = repeat(3, async (signal) => {
      let found;
      try { found = await get("devices", asked, signal); } catch (error) {
        if (error.name !== "AbortError") setText(summary, error.message);
        return;
      }
      if (mine === round) fill(found);
    });
  };
  const turned = (name) => {
    if (asked.sort === name) return `-${name}`;
    if (asked.sort === `-${name}`) return name;
    return FIRST_DOWN.has(name) ? `-${name}` : name;
  };
  const mark = (head, name) => {
    const direction = asked.sort === name ? "ascending" : asked.sort === `-${name}` ? "descending" : "none";
    head.setAttribute("aria-sort", direction);
  };
  const fill = (found) => {
    asked.page = found.page;
    setText(summary, noun(found.total, "device"));
    setText(where, `${count(found.page)} of ${count(found.pages)}`);
    back.disabled = found.page <= 1;
    on.disabled = found.page >= found.pages;
    refill(body, found.rows.length ? found.rows.map(row)
      : [only(asked.q || asked.state ? "No device matches." : "No device is known yet: ingest device add NAME")]);
  };
  go();
  return () => { clearTimeout(typing); stop(); };
}

function only(text) {
  return h("tr", {}, h("td", { colspan: COLUMNS.length, class: "quiet" }, text));
}

function row(device) {
  const last = device.last ? h("time", { datetime: new Date(device.last * 1000).toISOString(), title: clocks(device.last) }, ago(device.last)) : "never";
  const cells = [
    state(device.state),
    [h("a", { href: `#/device/${encodeURIComponent(device.name)}` }, plain(device.name)),
      device.note ? h("span", { class: "note" }, plain(device.note)) : null,
      device.is_registered ? null : h("span", { class: "note" }, "not registered")],
    last, rate(device.rate), count(device.next), count(device.waiting),
    device.error ? [plain(device.error), h("span", { class: "note" }, ago(device.error_at))] : "",
    plain(device.peer),
  ];
  return h("tr", { "data-name": device.name }, cells.map((cell, place) =>
    h("td", { class: `${COLUMNS[place][0]} ${COLUMNS[place][2] ?? ""}`, "data-title": COLUMNS[place][1] }, cell)));
}
