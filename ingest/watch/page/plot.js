// Any readings of any devices on one plot, live or back through the log.

import { address, get, repeat } from "./api.js";
import { Chart, key } from "./chart.js";
import { h, plain, setText } from "./dom.js";
import { clock, duration, noun, value } from "./format.js";

const RANGES = [["5 min", 300], ["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400], ["7 d", 604800]];
const MOST = 8;
const FEW = 60; // points of a whole curve: fewer than these are worth a look into the log's files

export function plotPage(view, { query }) {
  const wanted = query.getAll("c").map((each) => each.split(/ (.*)/s).slice(0, 2)).filter(([, field]) => field);
  let span = Math.max(2, Number(query.get("span")) || 3600);
  let fixed = query.get("from") && query.get("to") ? [Number(query.get("from")), Number(query.get("to"))] : null;
  const before = []; // ranges to go back to

  const device = h("input", { type: "search", list: "names", placeholder: "Device", "aria-label": "Device",
    autocomplete: "off", spellcheck: "false", oninput: () => suggest(), onchange: () => listFields() });
  const names = h("datalist", { id: "names" });
  const field = h("select", { "aria-label": "Field", disabled: true }, h("option", { value: "" }, "Field"));
  const add = h("button", { type: "submit" }, "Add");
  const form = h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); added(); } },
    device, names, field, add);
  const chips = h("ul", { class: "chips" });
  const ranges = RANGES.map(([text, seconds]) => h("button", { type: "button", onclick: () => { fixed = null; span = seconds; before.length = 0; draw(); } }, text));
  const zoomOut = h("button", { type: "button", title: "Twice as much", onclick: () => scale(2) }, "−");
  const zoomIn = h("button", { type: "button", title: "Half as much", onclick: () => scale(0.5) }, "+");
  const earlier = h("button", { type: "button", title: "Earlier", onclick: () => move(-0.5) }, "‹");
  const later = h("button", { type: "button", title: "Later", onclick: () => move(0.5) }, "›");
  const undo = h("button", { type: "button", onclick: () => { [fixed, span] = before.pop() ?? [null, span]; draw(); } }, "Back");
  const note = h("p", { class: "quiet", role: "status" });
  const chart = new Chart({ title: "Curves", height: 380, onzoom: (from, to) => zoom(from, to) });
  const downloads = ["csv", "parquet", "png"].map((form) => h("a", { class: "button", download: `curves.${form}` }, form.toUpperCase()));
  const summary = h("tbody");
  view.append(
    h("h1", {}, "Curves"), form, chips,
    h("div", { class: "ranges", role: "group", "aria-label": "Range" }, ranges, earlier, zoomOut, zoomIn, later, undo),
    chart.element, note,
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Curve", "Least", "Mean", "Greatest", "Values", "From"].map((text, place) => h("th", { scope: "col", class: place ? "number" : "" }, text)))), summary)),
    h("p", {}, "Download: ", downloads.flatMap((link) => [link, " "])));

  let stop = () => {};
  let round = 0;

  function range() {
    if (fixed) return fixed;
    const now = Date.now() / 1000;
    return [now - span, now];
  }

  function remember() { before.push([fixed, span]); }

  function zoom(from, to) {
    if (to - from < 1) return;
    remember();
    fixed = [from, to];
    draw();
  }

  function scale(factor) {
    const [from, to] = range();
    const [middle, half] = [(from + to) / 2, Math.max(((to - from) * factor) / 2, 1)];
    if (fixed) zoom(middle - half, Math.min(middle + half, Date.now() / 1000));
    else { remember(); span = Math.round(2 * half); draw(); }
  }

  function move(share) {
    const [from, to] = range();
    const step = (to - from) * share;
    remember();
    fixed = to + step > Date.now() / 1000 ? null : [from + step, to + step];
    span = to - from;
    draw();
  }

  function parameters(isFine) {
    const [from, to] = range();
    const asked = new URLSearchParams({ from: from.toFixed(3), to: to.toFixed(3), points: 800 });
    if (isFine) asked.set("fine", "1");
    for (const [name, each] of wanted) { asked.append("device", name); asked.append("field", each); }
    return asked;
  }

  function draw() {
    const kept = new URLSearchParams();
    for (const each of wanted) kept.append("c", each.join(" "));
    if (fixed) { kept.set("from", fixed[0].toFixed(3)); kept.set("to", fixed[1].toFixed(3)); } else if (span !== 3600) kept.set("span", span);
    history.replaceState(null, "", `#/plot${kept.size ? `?${kept}` : ""}`);
    ranges.forEach((button, place) => button.setAttribute("aria-pressed", String(!fixed && RANGES[place][1] === span)));
    undo.disabled = before.length === 0;
    showChips();
    for (const link of downloads) link.classList.toggle("off", !wanted.length);
    linkDownloads();
    stop();
    const mine = ++round;
    if (!wanted.length) {
      chart.element.removeAttribute("aria-busy");
      chart.setTables([], range());
      summary.replaceChildren();
      setText(note, "Choose a device and a field. A device's own page has all its curves.");
      stop = () => {};
      return;
    }
    // What is older than the last hour is read from the log's files: once, or seldom.
    setText(note, "Reading …");
    chart.element.setAttribute("aria-busy", "true"); // what it shows is of before
    let isFine = Boolean(fixed);
    let isDone = false; // what is of the past is read once, or again if that failed
    const look = async (signal) => {
      if (isDone) return;
      const ends = range();
      let answer;
      try { answer = await get("series", parameters(isFine), signal); } catch (error) {
        if (error.name !== "AbortError") setText(note, plain(error.message));
        return;
      }
      if (mine !== round) return;
      if (!isFine && answer.curves.some(({ width }) => width > 1 && width * FEW > span)) {
        isFine = true;
        stop();
        stop = repeat(10, look);
        return;
      }
      isDone = Boolean(fixed);
      chart.element.removeAttribute("aria-busy");
      chart.setTables(answer.curves.map((curve) => ({ ...curve, label: label(curve) })), ends);
      linkDownloads();
      show(answer.curves, ends);
    };
    stop = repeat(fixed ? 10 : span <= 3600 ? 2 : 60, look);
  }

  function linkDownloads() {
    for (const link of downloads) {
      const asked = parameters(true);
      asked.set("format", link.download.split(".")[1]);
      link.href = address("series", asked);
    }
  }

  function label(curve) { return `${curve.device} ${curve.field}`; }

  function show(curves, [from, to]) {
    const partial = curves.some((curve) => curve.partial) ? " Some values are left out: there are too many." : "";
    const width = curves[0] ? ` Each point is ${duration(curves[0].width)}.` : "";
    setText(note, `${fixed ? `${clock(from)} to ${clock(to)}.` : `The last ${duration(to - from)}, live.`}${width}${partial} Drag to zoom in.`);
    summary.replaceChildren(...curves.map((curve) => {
      const total = curve.count.reduce((sum, each) => sum + each, 0);
      const mean = total ? curve.mean.reduce((sum, each, place) => sum + each * (curve.count[place] / total), 0) : null;
      return h("tr", {}, h("th", { scope: "row" }, plain(label(curve))),
        [least(curve.low), mean, greatest(curve.high)].map((each) => h("td", { class: "number" }, value(each))),
        h("td", { class: "number" }, noun(total, "value")),
        h("td", { class: "number" }, curve.source === "log" ? "the log's files" : "memory"));
    }));
  }

  function showChips() {
    chips.replaceChildren(...wanted.map(([name, each], place) => {
      return h("li", {}, key(place), h("a", { href: `#/device/${encodeURIComponent(name)}` }, plain(name)), ` ${plain(each)} `,
        h("button", { type: "button", "aria-label": `Remove ${plain(name)} ${plain(each)}`, onclick: () => { wanted.splice(place, 1); draw(); } }, "×"));
    }));
  }

  let typing = null;
  function suggest() {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const { rows } = await get("devices", { q: device.value, size: 20 }).catch(() => ({ rows: [] }));
      names.replaceChildren(...rows.map((row) => h("option", { value: row.name })));
      if (rows.some((row) => row.name === device.value)) listFields();
    }, 200);
  }

  let listed = "";
  async function listFields() {
    const name = device.value.trim();
    if (!name || name === listed) return;
    listed = name;
    const { fields } = await get(`devices/${encodeURIComponent(name)}/fields`).catch(() => ({ fields: [] }));
    field.disabled = !fields.length;
    field.replaceChildren(...(fields.length ? fields.map((each) => h("option", { value: each.name }, plain(each.name)))
      : [h("option", { value: "" }, "no numeric field")]));
  }

  async function added() {
    await listFields();
    const name = device.value.trim();
    if (wanted.length >= MOST) setText(note, `There is room for ${MOST} curves: remove one first.`);
    if (!name || !field.value || wanted.length >= MOST) return;
    if (!wanted.some((each) => each[0] === name && each[1] === field.value)) wanted.push([name, field.value]);
    draw();
  }

  suggest();
  draw();
  return () => { clearTimeout(typing); stop(); chart.destroy(); };
}

const least = (list) => list.reduce((a, b) => (a === null || b < a ? b : a), null);
const greatest = (list) => list.reduce((a, b) => (a === null || b > a ? b : a), null);
