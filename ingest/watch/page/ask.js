// Ask the log in SQL: the result as a table or as curves, and queries that are kept.

import { get, post } from "./api.js";
import { Chart, key } from "./chart.js";
import { h, plain, setText } from "./dom.js";
import { count, noun } from "./format.js";

const EXAMPLES = [
  ["What columns there are", "DESCRIBE log"],
  ["The newest records", "SELECT * FROM log ORDER BY time DESC LIMIT 50"],
  ["Records of each device",
    "SELECT device, count(*) AS records, min(time) AS first, max(time) AS last\nFROM log GROUP BY device ORDER BY records DESC"],
  ["Frames a minute, as a curve",
    "SELECT time_bucket(INTERVAL 1 minute, time) AS minute, count(*) AS frames\nFROM log GROUP BY minute ORDER BY minute"],
  ["A mean by device and hour: put in your own field",
    "SELECT time_bucket(INTERVAL 1 hour, time) AS hour, device, avg(temp) AS temp\nFROM log GROUP BY hour, device ORDER BY hour"],
  ["The longest silences",
    "SELECT device, time AS back, epoch(time - lag(time) OVER (PARTITION BY device ORDER BY seq)) AS seconds\nFROM log ORDER BY seconds DESC NULLS LAST LIMIT 20"],
];
const SPANS = [["All of the log", 0], ["The last hour", 3600], ["The last 24 hours", 86400], ["The last 7 days", 604800], ["The last 30 days", 2592000]];
const SHOWN = 500; // rows of the table
const ASKED = 5000; // rows of a result, for curves
const CURVES = 12;
const IS_TIME = /^(TIMESTAMP|DATE)/;
const IS_NUMBER = /^(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DOUBLE|FLOAT|DECIMAL)/;

export function askPage(view, { query, onStatus }) {
  let running = null; // { id, controller }
  let result = null;
  let chart = null;
  let isCurve = false;
  let role = "view";

  const sql = h("textarea", { rows: 6, spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    "aria-label": "SQL", "aria-describedby": "ask-error", placeholder: "SELECT … FROM log" });
  sql.value = query.get("sql") ?? EXAMPLES[2][1];
  const run = h("button", { type: "submit", class: "main" }, "Run");
  const cancel = h("button", { type: "button", disabled: true, onclick: () => stop() }, "Cancel");
  const examples = choice("Examples", EXAMPLES.map(([name]) => name), (place) => { sql.value = EXAMPLES[place][1]; });
  const span = h("select", { "aria-label": "How much of the log" },
    SPANS.map(([name, seconds]) => h("option", { value: seconds, selected: String(seconds) === query.get("span") }, name)));
  const device = h("input", { type: "search", placeholder: "All devices, or sensor-*", "aria-label": "Device", value: query.get("device"),
    autocomplete: "off", spellcheck: "false" });
  const progress = h("progress", { hidden: true, "aria-label": "The query runs" });
  const said = h("p", { class: "quiet", role: "status" });
  const error = h("div", { id: "ask-error", role: "alert" });
  const saved = h("ul", { class: "chips", "aria-label": "Queries that are kept" });
  const name = h("input", { type: "text", placeholder: "Name", "aria-label": "Name to keep the query by", maxlength: 100,
    autocomplete: "off" });
  const keep = h("form", { class: "filters", hidden: true, onsubmit: (event) => { event.preventDefault(); store(name.value.trim(), sql.value); } },
    name, h("button", { type: "submit" }, "Keep this query"));
  const forms = ["Table", "Curve"].map((text, place) =>
    h("button", { type: "button", onclick: () => { isCurve = place === 1; show(); } }, text));
  const shown = h("div", { class: "ranges", role: "group", "aria-label": "Show as", hidden: true }, forms);
  const note = h("p", { class: "quiet" });
  const output = h("div", { class: "result" });
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); ask(); } },
    sql, h("div", { class: "filters" }, run, cancel, h("span", { class: "quiet keys" }, "Ctrl-Enter, Esc"), span, device, examples));
  view.append(h("h1", {}, "Ask"), form, saved, keep, progress, said, error, shown, note, output);

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); }
    if (event.key === "Escape" && running) stop();
    else if (event.key === "Escape") view.focus(); // from here on keys are those of the page
  });

  async function ask() {
    if (running) return;
    const mine = running = { id: crypto.getRandomValues(new Uint32Array(4)).join("-"), controller: new AbortController() };
    const text = sql.value;
    const kept = Object.entries({ sql: text, span: span.value, device: device.value.trim() });
    history.replaceState(null, "", `#/ask?${new URLSearchParams(kept.filter(([, value]) => value && value !== "0"))}`);
    clear();
    const begun = performance.now();
    const tick = setInterval(() => setText(said, `Asking for ${Math.round((performance.now() - begun) / 1000)} s`), 500);
    busy(true);
    setText(said, "Asking …");
    try {
      const seconds = Number(span.value);
      result = await post("query", { sql: text, id: mine.id, rows: ASKED, device: device.value.trim() || null,
        since: seconds ? Date.now() / 1000 - seconds : null }, mine.controller.signal);
      setText(said, `${noun(result.rows.length, "row")} in ${result.seconds} s${result.truncated ? "; there are more, which are left out" : ""}`);
      error.replaceChildren(...(result.damaged ?? []).map((each) => h("p", { class: "problem" }, plain(each))));
      show();
    } catch (problem) {
      if (problem.name === "AbortError") return; // another page is shown
      setText(said, "");
      explain(problem, text);
    } finally {
      clearInterval(tick);
      running = null;
      busy(false);
    }
  }

  async function stop() {
    if (!running) return;
    cancel.disabled = true;
    try { await post("query/cancel", { id: running.id }); } catch { /* it has just ended */ }
  }

  function busy(is) {
    run.disabled = is;
    cancel.disabled = !is;
    progress.hidden = !is;
  }

  function clear() {
    result = null;
    error.replaceChildren();
    shown.hidden = true;
    setText(note, "");
    chart?.destroy();
    chart = null;
    output.replaceChildren();
  }

  // Shows the line of the SQL with the mistake, and a mark below it; the cursor goes there too.
  function explain(problem, text) {
    const { position, line, column } = problem.details ?? {};
    error.append(h("p", { class: "problem" }, plain(problem.message)));
    if (position === undefined) return;
    const before = Array.from(text).slice(0, position).join("");
    const whole = text.split("\n")[line - 1] ?? "";
    const start = Array.from(whole).slice(0, column - 1).join("");
    const mark = Array.from(whole).slice(column - 1).join("").match(/^[\p{L}\p{N}_.]+|^./u)?.[0] ?? " ";
    error.prepend(h("pre", { class: "mistake", "aria-label": `Line ${line}, column ${column}` },
      h("span", { class: "no" }, `${line}  `), plain(start), h("mark", {}, plain(mark)), plain(whole.slice(start.length + mark.length))));
    setText(said, `Line ${line}, column ${column}`);
    sql.focus();
    sql.setSelectionRange(before.length, before.length + mark.length);
  }

  function show() {
    chart?.destroy();
    chart = null;
    output.replaceChildren();
    const x = axis(result);
    const numbers = x < 0 ? [] : numeric(result);
    isCurve &&= numbers.length > 0;
    shown.hidden = false;
    forms[1].disabled = !numbers.length;
    forms[1].title = numbers.length ? "" : "A curve needs a column of times and one of numbers";
    forms.forEach((button, place) => button.setAttribute("aria-pressed", String(isCurve === (place === 1))));
    if (isCurve) draw(x, numbers);
    else list();
  }

  function list() {
    const { columns, rows } = result;
    const kinds = columns.map((column) => (IS_NUMBER.test(column.type) ? "number" : ""));
    setText(note, rows.length > SHOWN ? `The first ${count(SHOWN)} rows` : "");
    output.append(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Result" }, h("table", {},
      h("thead", {}, h("tr", {}, columns.map((column, place) =>
        h("th", { scope: "col", class: kinds[place], title: column.type }, plain(column.name))))),
      h("tbody", {}, rows.slice(0, SHOWN).map((row) => h("tr", {}, row.map((cell, place) =>
        h("td", { class: kinds[place] || "cell" }, written(cell)))))))));
  }

  function draw(x, numbers) {
    const curves = curvesOf(result, x, numbers);
    setText(note, curves.length > CURVES ? `The first ${CURVES} of ${curves.length} curves` : "");
    chart = new Chart({ title: "Result", height: 380 });
    output.append(chart.element, h("ul", { class: "chips" }, curves.slice(0, CURVES).map((curve, place) => {
      return h("li", {}, key(place), `${plain(curve.label)} `);
    })));
    chart.setTables(curves.slice(0, CURVES));
  }

  function store(title, text) {
    change({ name: title, sql: text }, () => { name.value = ""; });
  }

  async function change(value, then = () => {}) {
    try { listKept(await post("queries", value)); then(); } catch (problem) {
      error.replaceChildren(h("p", { class: "problem" }, plain(problem.message)));
    }
  }

  function listKept({ queries }) {
    saved.replaceChildren(...queries.map((each) => h("li", {},
      h("button", { type: "button", class: "text", title: plain(each.sql), onclick: () => { sql.value = each.sql; sql.focus(); } }, plain(each.name)),
      role === "operate" ? h("button", { type: "button", "aria-label": `Forget ${plain(each.name)}`, onclick: () => change({ name: each.name, sql: "" }) }, "×") : null)));
  }

  const loaded = new AbortController();
  async function load() {
    try { listKept(await get("queries", {}, loaded.signal)); } catch (problem) {
      if (problem.name !== "AbortError") setText(note, plain(problem.message));
    }
  }
  const forget = onStatus((status) => {
    if (role === status.role) return;
    role = status.role ?? role;
    keep.hidden = role !== "operate";
    load();
  });
  load();
  if (!matchMedia("(pointer: coarse)").matches) sql.focus(); // elsewhere a keyboard would come up
  return () => { forget(); loaded.abort(); running?.controller.abort(); chart?.destroy(); };
}

// A list that does something with what is chosen, and then stands at its title again.
function choice(title, names, chosen) {
  const list = h("select", { "aria-label": title, onchange: () => { chosen(list.selectedIndex - 1); list.selectedIndex = 0; } },
    h("option", {}, `${title} …`), names.map((name) => h("option", {}, name)));
  return list;
}

function written(cell) {
  if (cell === null) return h("span", { class: "quiet" }, "–");
  return plain(typeof cell === "object" ? JSON.stringify(cell) : cell);
}

const axis = ({ columns }) => columns.findIndex((column) => IS_TIME.test(column.type));

function numeric({ columns }) {
  return columns.map((column, place) => (IS_NUMBER.test(column.type) ? place : -1)).filter((place) => place >= 0);
}

// One curve for each column of numbers, and of those one for each text that stands beside it.
function curvesOf({ columns, rows }, x, numbers) {
  const names = columns.map((column, place) => (column.type === "VARCHAR" ? place : -1)).filter((place) => place >= 0);
  const curves = new Map();
  for (const row of rows) {
    const time = Date.parse(row[x]) / 1000;
    if (!Number.isFinite(time)) continue;
    const name = names.map((place) => row[place] ?? "–").join(" ");
    for (const place of numbers) {
      const label = [name, name && numbers.length === 1 ? "" : columns[place].name].filter(Boolean).join(" ");
      const key = `${place} ${name}`;
      if (!curves.has(key)) curves.set(key, { label, points: new Map() });
      if (typeof row[place] === "number") curves.get(key).points.set(time, row[place]);
    }
  }
  return [...curves.values()].filter((curve) => curve.points.size).map(({ label, points }) => {
    const start = [...points.keys()].sort((a, b) => a - b);
    return { label, start, mean: start.map((time) => points.get(time)) };
  });
}
