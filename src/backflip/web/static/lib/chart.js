// A small chart: lines with gaps, bands and marks, drawn on a canvas; what is not a number is a red tick on the axis.
//
//     const sync = new Sync();
//     const chart = new Chart({ title: "KL", unit: "nats", sync });
//     place.append(chart.element);
//     chart.set([{ name: "run a", slot: 0, x: [1, 2, 3], y: [0.1, null, 0.3], wrong: [2] }]);
//
// A line may have `low` and `high` beside its `y` (a band), a `slot` from 0 on that gives its colour and dash, a `mark` ("circle"
// or "square") that tells metrics of one run apart, and a `kind` that names the metric. Charts of one `Sync` share a cursor.
// Nothing is drawn before a chart comes into view, and its canvas is given back when it leaves.

import { h, s } from "./dom.js";
import { t } from "./i18n.js";
import { names, number, steps, ticks } from "./scale.js";

const HEIGHT = 150;
const LEFT = 52;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;
const ROWS = 25; // of a table
const NAMED = 8; // lines whose values are written below a chart
const MEAN_PX = 4;
const COLOURS = 8;
const SIGNS = { circle: "●", square: "■" };
const DASHES = [[], [6, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 2, 1, 2, 1, 2], [1, 3], [14, 3, 4, 3]];

/** The dash of a slot: each of eight has a colour and a dash of its own, and later ones pair them anew. */
const dashOf = (slot) => DASHES[(slot + Math.floor(slot / COLOURS)) % DASHES.length];

/** A cursor that charts share. */
export class Sync extends EventTarget {
  constructor() {
    super();
    this.x = null;
  }

  /** @param {number|null} x in the unit of the axis; null: nowhere */
  set(x) {
    if (x === this.x) return;
    this.x = x;
    this.dispatchEvent(new Event("move"));
  }
}

/** A piece of a line as it is drawn, for lists and legends. */
export function swatch(slot, mark = "") {
  const dash = dashOf(slot);
  const sign = mark === "circle" ? [s("circle", { cx: 14, cy: 5, r: 3, fill: colourOf(slot) })] : mark === "square" ? [s("rect", { x: 11, y: 2, width: 6, height: 6, fill: colourOf(slot) })] : [];
  return s("svg", { viewBox: "0 0 28 10", width: 28, height: 10, class: "swatch", "aria-hidden": "true" }, s("path", { d: "M0 5h28", stroke: colourOf(slot), "stroke-width": 2.4, "stroke-dasharray": dash.join(" ") || null, fill: "none" }), ...sign);
}

const colourOf = (slot) => `var(--chart-${slot % COLOURS})`;

// A canvas knows no custom properties: an element that nobody sees is given each colour and asked what it became.
let palette = null;
function colours() {
  if (palette) return palette;
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  const ask = (value) => {
    probe.style.color = value;
    return getComputedStyle(probe).color;
  };
  palette = { lines: Array.from({ length: COLOURS }, (_, i) => ask(colourOf(i))), text: ask("var(--faint)"), grid: ask("var(--line)"), wrong: ask("var(--bad)"), mark: ask("var(--warn)"), font: getComputedStyle(document.body).fontFamily };
  probe.remove();
  return palette;
}

const all = new Set();
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) target.chart.show(isIntersecting);
}, { rootMargin: "200px" });
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) target.chart.later();
});
const repaint = () => {
  palette = null;
  for (const chart of all) chart.later();
};
new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

export class Chart {
  /** @param {{title: string, unit?: string, note?: string, sync?: Sync, axis?: any, onshow?: () => void}} options */
  constructor({ title, unit = "", note = "", sync = new Sync(), axis = steps, onshow = () => {} }) {
    Object.assign(this, { title, unit, sync, axis, onshow });
    this.lines = [];
    this.levels = [];
    this.visible = false;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.at = h("span", { className: "at", hidden: true });
    this.dots = h("span", { className: "dots", hidden: true });
    this.plot = h("div", { className: "plot", role: "img", tabIndex: 0, "aria-label": title }, this.canvas, this.at, this.dots);
    this.plot.chart = this;
    this.kinds = h("span", { className: "kinds faint" });
    this.values = h("ul", { className: "values" });
    this.said = h("p", { className: "hidden", "aria-live": "polite" });
    this.toggle = h("button", { type: "button", className: "quiet", "aria-pressed": "false", "aria-label": t("runs.chart.tableof", { title }), onclick: () => this.showTable(this.table.hidden) }, t("runs.chart.table"));
    this.table = h("div", { className: "scroll table", hidden: true, tabIndex: 0 });
    this.element = h("figure", { className: "chart" }, h("figcaption", {}, h("span", { className: "name" }, title), unit ? h("span", { className: "faint" }, unit) : null, this.kinds, h("span", { className: "grow" }), this.toggle), this.plot, this.values, this.table, note ? h("p", { className: "faint small note" }, note) : null, this.said);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.sync.set(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => this.sync.set(null));
    this.moved = () => { if (this.visible) this.drawCursor(); };
    this.sync.addEventListener("move", this.moved);
    all.add(this);
    inView.observe(this.plot);
    resized.observe(this.plot);
  }

  /** Stop observing; the element can be thrown away. */
  remove() {
    this.sync.removeEventListener("move", this.moved);
    inView.unobserve(this.plot);
    resized.unobserve(this.plot);
    all.delete(this);
    this.element.remove();
  }

  /** @param {any[]} lines @param {{y: number, name: string}[]} [levels] horizontal lines, such as a target */
  set(lines, levels = []) {
    this.lines = lines;
    this.levels = levels;
    this.drawKinds();
    this.later();
  }

  /** Where metrics of several runs are told apart by marks: which mark is which. */
  drawKinds() {
    const marks = new Map(this.lines.filter((line) => line.kind).map((line) => [line.mark, line.kind]));
    const said = this.lines.some((line) => line.mark) ? [...marks].map(([mark, kind]) => `${mark ? SIGNS[mark] : "—"} ${kind}`).join("  ") : "";
    if (this.kinds.textContent !== said) this.kinds.textContent = said;
  }

  /** Draw in the next frame, however often this is called before it. */
  later() {
    if (!this.visible || this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.visible) this.draw();
    });
  }

  show(visible) {
    if (visible === this.visible) return;
    this.visible = visible;
    if (visible) { this.onshow(); this.later(); } else this.canvas.width = this.canvas.height = 0;
  }

  // ---- drawing

  draw() {
    const { width } = this.plot.getBoundingClientRect();
    if (width < LEFT + RIGHT + 20) return;
    const ratio = Math.min(3, devicePixelRatio || 1);
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(HEIGHT * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const look = colours();
    this.measure(width);
    const { left, right, top, bottom, px, py } = this.frame;
    pen.font = `11px ${look.font}`;
    this.drawAxes(pen, look);
    pen.save();
    pen.beginPath();
    pen.rect(left, top - 3, right - left + RIGHT, bottom - top + 6);
    pen.clip();
    pen.lineJoin = "bevel"; // a round one costs several times as much, and nobody sees it
    for (const line of this.lines) if (line.low) drawBand(pen, line, px, py, look.lines[line.slot % COLOURS]);
    for (const line of this.lines) drawLine(pen, line, px, py, look.lines[line.slot % COLOURS], { pixels: (right - left) * ratio, ratio, crowded: this.lines.length > 2 * NAMED });
    pen.setLineDash([4, 4]);
    pen.strokeStyle = pen.fillStyle = look.mark;
    pen.lineWidth = 1.2;
    for (const { y, name } of this.levels) {
      pen.beginPath();
      pen.moveTo(left, py(y));
      pen.lineTo(right + RIGHT, py(y));
      pen.stroke();
      pen.textAlign = "left";
      pen.textBaseline = py(y) < top + 14 ? "top" : "bottom";
      pen.fillText(name, left + 3, py(y));
    }
    pen.restore();
    pen.fillStyle = look.wrong;
    for (const line of this.lines) for (const x of line.wrong ?? []) pen.fillRect(Math.round(px(x)) - 1, bottom - 5, 2, 10);
    this.drawCursor();
    this.plot.setAttribute("aria-label", this.summary());
    if (!this.table.hidden) this.drawTable();
  }

  /** What part of the numbers is shown, and where on the canvas. */
  measure(width) {
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { x, y, low, high, wrong } of this.lines) {
      for (let i = 0; i < x.length; i += 1) {
        if (x[i] < x0) x0 = x[i];
        if (x[i] > x1 && x[i] < Infinity) x1 = x[i];
        const [bottom, top] = low ? [low[i], high[i]] : [y[i], y[i]];
        if (bottom !== null && bottom < y0) y0 = bottom;
        if (top !== null && top > y1) y1 = top;
      }
      for (const at of wrong ?? []) { x0 = Math.min(x0, at); if (at < Infinity) x1 = Math.max(x1, at); }
    }
    for (const { y } of this.levels) { y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
    this.empty = !(x1 >= x0);
    if (!(x1 >= x0)) [x0, x1] = [0, 1];
    if (!(y1 >= y0)) [y0, y1] = [0, 1];
    if (x1 === x0) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    const pad = y1 > y0 ? 0.06 * (y1 - y0) : Math.abs(y0) * 0.1 || 0.5;
    // Room that only keeps lines off the edge must not suggest that a share or a length was below zero.
    [y0, y1] = [y0 >= 0 && y0 < pad ? 0 : y0 - pad, y1 + pad];
    const [left, right, top, bottom] = [LEFT, width - RIGHT, TOP, HEIGHT - BOTTOM];
    const [sx, sy] = [(right - left) / (x1 - x0), (bottom - top) / (y1 - y0)];
    this.frame = { left, right, top, bottom, x0, x1, y0, y1, px: (x) => left + (x - x0) * sx, py: (y) => bottom - (y - y0) * sy, toX: (px) => x0 + (px - left) / sx };
  }

  drawAxes(pen, look) {
    const { left, right, top, bottom, x0, x1, y0, y1, px, py } = this.frame;
    pen.strokeStyle = look.grid;
    pen.fillStyle = look.text;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const ys = ticks(y0, y1, 5);
    names(ys).forEach((name, i) => {
      const y = Math.round(py(ys[i])) + 0.5;
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(right + RIGHT, y);
      pen.stroke();
      pen.fillText(name, left - 5, y);
    });
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const xs = this.empty ? [] : this.axis.ticks(x0, x1, Math.max(2, Math.floor((right - left) / 48)));
    (xs.length ? this.axis.names(xs) : []).forEach((name, i) => {
      const half = pen.measureText(name).width / 2;
      pen.fillText(name, Math.min(Math.max(px(xs[i]), left), right + RIGHT - half), bottom + 7);
    });
    if (this.empty) { pen.textBaseline = "middle"; pen.fillText(t("runs.chart.nothing"), (left + right) / 2, (top + bottom) / 2); }
  }

  // ---- the cursor and the values at it

  point(event) {
    if (!this.frame || this.empty) return;
    const x = this.frame.toX(event.clientX - this.plot.getBoundingClientRect().left);
    this.sync.set(this.snap(Math.min(Math.max(x, this.frame.x0), this.frame.x1)));
  }

  /** The nearest place at which some line has a point. */
  snap(x) {
    let best = x;
    let distance = Infinity;
    for (const line of this.lines) {
      const i = nearest(line.x, x);
      if (i >= 0 && Math.abs(line.x[i] - x) < distance) { best = line.x[i]; distance = Math.abs(best - x); }
    }
    return best;
  }

  drawCursor() {
    const { frame, sync } = this;
    if (!frame) return;
    const x = sync.x;
    const on = x !== null && !this.empty && x >= frame.x0 && x <= frame.x1;
    this.at.hidden = this.dots.hidden = !on;
    const shown = this.lines.map((line) => ({ line, i: on ? nearest(line.x, x) : lastOf(line) })).filter(({ line, i }) => i >= 0 && (!on || x <= line.x.at(-1) + (frame.x1 - frame.x0) / 100));
    if (on) {
      this.at.style.transform = `translateX(${frame.px(x)}px)`;
      const dots = shown.slice(0, NAMED).filter(({ line, i }) => line.y[i] !== null);
      this.dots.replaceChildren(...dots.map(({ line, i }) => {
        const dot = h("i", {});
        dot.style.transform = `translate(${frame.px(line.x[i])}px, ${frame.py(line.y[i])}px)`;
        dot.style.background = colourOf(line.slot);
        return dot;
      }));
    }
    this.drawValues(on ? this.axis.say(x) : "", shown);
  }

  drawValues(where, shown) {
    const several = new Set(this.lines.map((line) => line.name)).size > 1;
    const entries = shown.slice(0, NAMED).map(({ line, i }) => h("li", { title: nameOf(line) }, swatch(line.slot, line.mark), h("span", { className: "hidden" }, line.name, " "), h("span", { className: several ? "hidden" : "faint" }, line.kind, " "), value(line, i)));
    const more = shown.length > NAMED ? h("li", { className: "faint" }, t("runs.chart.more", { n: shown.length - NAMED })) : null;
    this.values.replaceChildren(...[where ? h("li", { className: "where" }, where) : null, ...entries, more].filter(Boolean));
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const longest = this.lines.reduce((best, line) => (line.x.length > (best?.x.length ?? 0) ? line : best), null);
    if (!longest || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = longest.x.length - 1;
    const here = this.sync.x === null ? (by > 0 ? -1 : last + 1) : nearest(longest.x, this.sync.x);
    const to = { Home: 0, End: last }[event.key] ?? (by ? here + by * (event.shiftKey ? 10 : 1) : null);
    if (event.key === "Escape") this.sync.set(null);
    if (to === null) return;
    event.preventDefault();
    this.sync.set(longest.x[Math.min(Math.max(to, 0), last)]);
    this.said.textContent = [...this.values.children].map((child) => child.textContent).join(", ");
  }

  // ---- in words and numbers

  /** What a picture says, for those who do not see it. */
  summary() {
    if (this.empty) return `${this.title}: ${t("runs.chart.nothing")}`;
    const told = this.lines.slice(0, NAMED).map((line) => {
      const i = lastOf(line);
      let [low, high] = [Infinity, -Infinity];
      for (const y of line.y) if (y !== null) { if (y < low) low = y; if (y > high) high = y; }
      const wrong = line.wrong?.length ? t("runs.chart.wrong", { n: line.wrong.length }) : "";
      return i < 0 ? `${nameOf(line)}: ${wrong}` : t("runs.chart.line", { name: nameOf(line), value: number(line.y[i]), x: this.axis.say(line.x[i]), low: number(low), high: number(high), wrong });
    });
    const rest = this.lines.length - told.length;
    return `${t("runs.chart.summary", { title: this.unit ? `${this.title} (${this.unit})` : this.title, n: this.lines.length })} ${told.join(" ")}${rest > 0 ? ` ${t("runs.chart.more", { n: rest })}` : ""}`;
  }

  showTable(show) {
    this.table.hidden = !show;
    this.toggle.setAttribute("aria-pressed", String(show));
    if (show) this.drawTable();
  }

  drawTable() {
    const longest = this.lines.reduce((best, line) => (line.x.length > (best?.x.length ?? 0) ? line : best), { x: [] }).x;
    const every = Math.max(1, Math.ceil(longest.length / ROWS));
    const places = longest.filter((_, i) => i % every === 0 || i === longest.length - 1);
    const reach = longest.length > 1 ? (longest.at(-1) - longest[0]) / longest.length : Infinity;
    const cell = (line, x) => {
      const i = nearest(line.x, x);
      return h("td", { className: "num" }, i < 0 || Math.abs(line.x[i] - x) > reach ? "" : value(line, i));
    };
    this.table.setAttribute("aria-label", t("runs.chart.tableof", { title: this.title }));
    this.table.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("runs.chart.at")), ...this.lines.map((line) => h("th", { scope: "col", className: "num" }, nameOf(line))))),
      h("tbody", {}, ...places.map((x) => h("tr", {}, h("th", { scope: "row" }, this.axis.say(x)), ...this.lines.map((line) => cell(line, x)))))));
  }
}

const nameOf = (line) => [line.name, line.kind].filter(Boolean).join(" · ");
const value = (line, i) => number(line.y[i]) + (line.low ? ` (${number(line.low[i])} … ${number(line.high[i])})` : "");

function lastOf(line) {
  let i = line.y.length - 1;
  while (i >= 0 && line.y[i] === null) i -= 1;
  return i;
}

/** The place of the number nearest to `x` in numbers that go up; −1 where there are none. */
function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function drawBand(pen, { x, low, high }, px, py, colour) {
  pen.fillStyle = colour;
  pen.globalAlpha = 0.18;
  for (let start = 0; start < x.length; start += 1) {
    if (low[start] === null) continue;
    let end = start;
    while (end + 1 < x.length && low[end + 1] !== null) end += 1;
    pen.beginPath();
    for (let i = start; i <= end; i += 1) pen.lineTo(px(x[i]), py(high[i]));
    for (let i = end; i >= start; i -= 1) pen.lineTo(px(x[i]), py(low[i]));
    pen.fill();
    start = end;
  }
  pen.globalAlpha = 1;
}

/** A line; where there are more points than pixels, a thin one between the lowest and the highest of each pixel and over it the
 * mean of a few. Only that one has a dash: of a line that goes up and down in every pixel it would cost most and show nothing. */
function drawLine(pen, line, px, py, colour, { pixels, ratio, crowded }) {
  const width = crowded ? 1 / ratio : line.mark ? 1.1 : 1.7;
  pen.strokeStyle = pen.fillStyle = colour;
  if (line.x.length <= 2 * pixels) {
    stroke(pen, line, px, py, width, dashOf(line.slot));
  } else {
    pen.globalAlpha = crowded ? 0.25 : 0.4;
    stroke(pen, columns(line, (x) => Math.floor(px(x) * ratio), extremes), px, py, 1 / ratio, []);
    pen.globalAlpha = 1;
    stroke(pen, columns(line, (x) => Math.floor(px(x) / MEAN_PX), mean), px, py, width, dashOf(line.slot));
  }
  if (line.mark) drawMarks(pen, line, px, py);
}

function stroke(pen, { x, y }, px, py, width, dash) {
  const lone = [];
  pen.lineWidth = width;
  pen.setLineDash(dash);
  pen.beginPath();
  for (let i = 0; i < x.length; i += 1) {
    if (y[i] === null) continue;
    const begins = i === 0 || y[i - 1] === null;
    if (begins) pen.moveTo(px(x[i]), py(y[i])); else pen.lineTo(px(x[i]), py(y[i]));
    if (begins && (i + 1 === x.length || y[i + 1] === null)) lone.push(i);
  }
  pen.stroke();
  pen.setLineDash([]);
  for (const i of lone) { pen.beginPath(); pen.arc(px(x[i]), py(y[i]), 2, 0, 7); pen.fill(); }
}

/** A line with the points of each column brought together; gaps stay. */
function columns({ x, y }, columnOf, together) {
  const found = { x: [], y: [] };
  for (let i = 0; i < x.length;) {
    if (y[i] === null) { found.x.push(x[i]); found.y.push(null); i += 1; continue; }
    const column = columnOf(x[i]);
    let end = i + 1;
    while (end < x.length && y[end] !== null && columnOf(x[end]) === column) end += 1;
    together(x, y, i, end, found);
    i = end;
  }
  return found;
}

function extremes(x, y, start, end, found) {
  let [low, high] = [start, start];
  for (let i = start + 1; i < end; i += 1) { if (y[i] < y[low]) low = i; if (y[i] > y[high]) high = i; }
  for (const i of low < high ? [low, high] : high < low ? [high, low] : [low]) { found.x.push(x[i]); found.y.push(y[i]); }
}

function mean(x, y, start, end, found) {
  let [sx, sy] = [0, 0];
  for (let i = start; i < end; i += 1) { sx += x[i]; sy += y[i]; }
  found.x.push(sx / (end - start));
  found.y.push(sy / (end - start));
}

/** Signs on a line, far enough apart to be told from one another. */
function drawMarks(pen, { x, y, mark }, px, py) {
  let from = -Infinity;
  for (let i = 0; i < x.length; i += 1) {
    if (y[i] === null || (px(x[i]) - from < 36 && i < x.length - 1)) continue;
    from = px(x[i]);
    pen.beginPath();
    if (mark === "circle") pen.arc(from, py(y[i]), 2.6, 0, 7); else pen.rect(from - 2.3, py(y[i]) - 2.3, 4.6, 4.6);
    pen.fill();
  }
}
