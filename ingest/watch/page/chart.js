// A chart of curves with uPlot: the mean as a line, from least to greatest as a band behind it.

import { h, plain, style } from "./dom.js";
import { clock, ticks, value as shown } from "./format.js";

// Steps of an axis of sizes: 512 B and 2 KiB, and not 500 and 2,000 bytes.
export const SIZES = [1, 2, 5, 10, 20, 50, 100, 256, 512, ...Array.from({ length: 40 }, (_, place) => 1024 * 2 ** place)];

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 2], [1, 2]];

function colour(place) {
  return style(`--curve-${(place % 6) + 1}`);
}

// With the seventh curve the colours begin again, with other dashes.
function dash(place) {
  return DASHES[(place + Math.floor(place / 6)) % DASHES.length];
}

// A piece of a curve's line, for a list of what is drawn: with its dashes, as a colour alone says nothing.
export function key(place) {
  const made = document.getElementById("key").content.firstElementChild.cloneNode(true);
  const line = made.firstElementChild;
  line.setAttribute("class", `curve-${(place % 6) + 1}`);
  line.setAttribute("stroke-dasharray", dash(place).join(" "));
  return made;
}

export class Chart {
  // `onzoom(from, to)` is called when a part is selected; `fromZero`: the axis begins at 0, as for
  // rates; `steps`: those that its axis may have.
  constructor({ title = "", height = 200, unit = shown, steps = undefined, onzoom = null, fromZero = false }) {
    this.height = height;
    this.unit = (drawn) => unit(drawn * this.power);
    this.steps = steps;
    this.power = 1;
    this.onzoom = onzoom;
    this.fromZero = fromZero;
    this.plot = null;
    this.shape = "";
    this.title = title;
    this.figure = h("div", { class: "plot", role: "img", "aria-label": title });
    this.figure.style.minHeight = `${height}px`; // nothing moves when it is drawn
    this.latest = h("span", { class: "latest" });
    this.caption = h("figcaption", {}, h("span", {}, plain(title)), " ", this.latest);
    this.element = h("figure", { class: "card chart" }, this.caption, this.figure);
    this.sizer = new ResizeObserver(() => this.resize());
    this.sizer.observe(this.figure);
    this.redraw = () => { this.shape = ""; this.draw(); };
    document.addEventListener("theme", this.redraw);
  }

  // One time axis for all curves, each with mean and perhaps low and high.
  set(start, curves, range = null) {
    this.setTables(curves.map((curve) => ({ ...curve, start })), range);
  }

  // Each curve has its own times.
  setTables(curves, range = null) {
    this.power = powerOf(curves);
    this.curves = curves.map((curve) => withGaps(divided(curve, this.power)));
    this.range = range;
    this.draw();
    this.label();
    if (this.plot?.cursor.idx === null || this.plot?.cursor.idx === undefined) this.describe();
  }

  // Says the values under the cursor, or the newest ones.
  describe(at = null) {
    const place = at ?? this.data[0].length - 1;
    const words = this.curves.map((curve, number) => {
      const first = 1 + this.curves.slice(0, number).reduce((sum, each) => sum + (each.low ? 3 : 1), 0);
      const [mean, low, high] = [0, 1, 2].map((each) => this.data[first + each]?.[place]);
      if (mean === null || mean === undefined) return null;
      const ends = curve.low && high > low ? ` (${this.unit(low)} – ${this.unit(high)})` : "";
      return `${this.curves.length > 1 ? `${plain(curve.label)} ` : ""}${this.unit(mean)}${ends}`;
    }).filter(Boolean);
    const times = this.data[0];
    const isLong = times[times.length - 1] - times[0] > 86400;
    const time = at === null || !words.length ? "" : `${clock(times[place]).slice(isLong ? 0 : 11, 19)}  `;
    if (at !== null || this.curves.length === 1) this.latest.textContent = time + words.join(" · ");
    else this.latest.textContent = "";
  }

  label() {
    const words = this.curves.map((curve) => {
      const last = curve.mean.findLastIndex((each) => each !== null);
      return last < 0 ? null : [curve, curve.mean[last], curve.start[last]];
    }).filter(Boolean);
    this.figure.setAttribute("aria-label", `${this.title}: ${words.map(([curve, last, at]) =>
      `${plain(curve.label)} ${this.unit(last)} at ${clock(at)}`).join("; ") || "no values"}`);
  }

  draw() {
    if (!this.curves) return;
    const tables = this.curves.map((curve) => [curve.start, curve.mean,
      ...(curve.low ? [curve.low, curve.high] : [])]);
    const data = tables.length === 0 ? [[]] : tables.length === 1 ? tables[0] : uPlot.join(tables);
    this.data = data;
    const shape = JSON.stringify(this.curves.map((curve) => [curve.label, Boolean(curve.low)]));
    if (this.plot === null || shape !== this.shape) {
      this.plot?.destroy();
      this.figure.replaceChildren();
      this.plot = new uPlot(this.options(), data, this.figure);
      this.shape = shape;
      return;
    }
    this.plot.setData(data, false);
    this.plot.setScale("x", this.bounds(data[0]));
  }

  bounds(times) {
    if (this.range) return { min: this.range[0], max: this.range[1] };
    const now = Date.now() / 1000;
    return times.length ? { min: times[0], max: times[times.length - 1] } : { min: now - 3600, max: now };
  }

  options() {
    const ink = style("--quiet");
    const grid = { stroke: style("--line"), width: 1 };
    const series = [{}];
    const bands = [];
    this.curves.forEach((curve, place) => {
      const stroke = colour(place);
      const at = series.length;
      series.push({ label: plain(curve.label), stroke, width: 1.75, dash: dash(place),
        points: { show: (plot) => plot.data[0].length < 60, filter: (plot, number, all) => (all ? null : lonely(plot.data[number])), size: 5, fill: stroke } });
      if (!curve.low) return;
      for (const end of ["least", "greatest"]) series.push({ label: end, stroke, width: 0, points: { show: false } });
      bands.push({ series: [at + 2, at + 1], fill: `${stroke}33` });
    });
    const axis = { stroke: ink, grid, ticks: grid, font: "11px system-ui, sans-serif" };
    return {
      width: Math.max(this.figure.clientWidth, 100), height: this.height, series, bands,
      tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { drag: { x: Boolean(this.onzoom), y: false, setScale: false }, points: { size: 6 } },
      scales: { x: { range: () => { const { min, max } = this.bounds(this.plot?.data?.[0] ?? this.curves[0]?.start ?? []); return [min, max]; } },
        y: { range: (_, low, high) => padded(this.fromZero && low > 0 ? 0 : low, high) } },
      axes: [{ ...axis, space: 70, values: (_, splits, __, ___, step) => ticks(splits, step) }, { ...axis, size: widthOf, incrs: this.steps, values: (_, splits) => splits.map((each) => this.unit(each)) }],
      hooks: { setSelect: [(plot) => this.selected(plot)], setCursor: [(plot) => this.describe(plot.cursor.idx ?? null)] },
    };
  }

  selected(plot) {
    const { left, width } = plot.select;
    if (width < 4 || !this.onzoom) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onzoom(from, to);
  }

  resize() {
    if (this.plot && this.figure.clientWidth > 0 && this.plot.width !== this.figure.clientWidth) {
      this.plot.setSize({ width: this.figure.clientWidth, height: this.height });
    }
  }

  destroy() {
    this.sizer.disconnect();
    document.removeEventListener("theme", this.redraw);
    this.plot?.destroy();
  }
}

// Room for the longest label of the vertical axis.
function widthOf(_, labels) {
  return Math.max(56, ...(labels ?? []).map((each) => 16 + Math.ceil(6.7 * each.length)));
}

// uPlot has no axis for numbers beyond 1e16, and the span from -1e308 to 1e308 is no number at all.
// So what is drawn there, and below a millionth, is divided by a power of ten.
function powerOf(curves) {
  let most = 0;
  for (const curve of curves) {
    for (const list of curve.low ? [curve.low, curve.high] : [curve.mean]) {
      for (const each of list) most = Math.max(most, Math.abs(each ?? 0));
    }
  }
  if (most === 0 || (most >= 1e-6 && most < 1e12)) return 1;
  return 10 ** Math.max(Math.floor(Math.log10(most)), -300);
}

function divided(curve, power) {
  if (power === 1) return curve;
  const found = { ...curve };
  for (const name of ["mean", "low", "high"]) found[name] &&= found[name].map((each) => (each === null ? null : each / power));
  return found;
}

function padded(low, high) {
  if (low === null || high === null || low === undefined) return [0, 1];
  const spread = high - low > Math.abs(high) * 1e-9 ? high - low : 0;
  const room = (spread || Math.abs(high) || 1) * 0.08;
  const bottom = low >= 0 && low - room < 0 ? 0 : low - room;
  return [bottom, high + room];
}

// Values with a gap on both sides: no line goes to them. Other curves' times are undefined here.
function lonely(values) {
  const own = [...values.keys()].filter((place) => values[place] !== undefined);
  const isGap = (place) => (values[own[place]] ?? null) === null;
  return own.filter((at, place) => values[at] !== null && isGap(place - 1) && isGap(place + 1));
}

// A device that was silent has a gap, not a straight line.
function withGaps(curve) {
  const { start } = curve;
  if (start.length < 3) return curve;
  const steps = start.slice(1).map((time, place) => time - start[place]).sort((a, b) => a - b);
  const usual = Math.max(steps[Math.floor(steps.length / 2)], curve.width ?? 0);
  const found = { ...curve, start: [], mean: [] };
  if (curve.low) { found.low = []; found.high = []; }
  const names = curve.low ? ["mean", "low", "high"] : ["mean"];
  start.forEach((time, place) => {
    if (place && time - start[place - 1] > 4 * usual) {
      found.start.push(start[place - 1] + usual);
      for (const name of names) found[name].push(null);
    }
    found.start.push(time);
    for (const name of names) found[name].push(curve[name][place]);
  });
  return found;
}
