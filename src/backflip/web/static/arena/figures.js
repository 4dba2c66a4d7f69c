// The arena's figures: an interval as a bar, ratings by generation, and the ground of a win rate's cell.

import { s } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

const REACH = 400; // points beyond all ratings that are always shown

/** Numbers around which a scale is drawn: the intervals and some room. One that is far wider than all ratings are apart goes
 *  beyond the scale; otherwise a policy of two votes would press all others together.
 *  @param {{rating: number, low: number, high: number}[]} rated */
export function extent(rated) {
  const ratings = rated.map((each) => each.rating);
  const reach = Math.max(REACH, 1.2 * (Math.max(...ratings) - Math.min(...ratings)));
  const low = Math.max(Math.min(...rated.map((each) => each.low)), Math.min(...ratings) - reach);
  const high = Math.min(Math.max(...rated.map((each) => each.high)), Math.max(...ratings) + reach);
  const room = Math.max(10, (high - low) * 0.06);
  return [low - room, high + room];
}

/** An interval and its middle on a scale; as wide as there is room. The numbers stand beside it. */
export function bar({ rating, low, high }, [from, to], anchor) {
  const x = (value) => (100 * (Math.min(to, Math.max(from, value)) - from)) / (to - from);
  const line = (x1, y1, x2, y2, more) => s("line", { x1, y1, x2, y2, "vector-effect": "non-scaling-stroke", "stroke-linecap": "round", ...more });
  return s("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", class: "interval", "aria-hidden": "true" },
    ...(from < anchor && anchor < to ? [line(x(anchor), 0, x(anchor), 20, { stroke: "var(--line)", "stroke-width": 1.5 })] : []),
    line(x(low), 10, x(high), 10, { stroke: "var(--accent)", "stroke-width": 4, opacity: 0.45 }),
    line(x(rating), 10, x(rating), 10.01, { stroke: "var(--accent)", "stroke-width": 11 }));
}

const LEFT = 52;
const RIGHT = 18;
const TOP = 12;
const BOTTOM = 34;
const LETTER = 7.2; // about how wide a letter of a name is drawn

/** Steps of 1, 2 or 5 times a power of ten, about `most` of them. */
function ticks(from, to, most) {
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const found = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) found.push(tick);
  return found;
}

const short = (name, most) => (name.length > most ? `${name.slice(0, Math.max(1, most - 1))}…` : name);

/** Ratings in the order of the generations, with the band of their intervals.
 *  @param {{policy: string, rating: number, low: number, high: number}[]} rated @param {number} width in pixels */
export function byGeneration(rated, width) {
  const height = 250;
  const [from, to] = extent(rated);
  const inner = width - LEFT - RIGHT;
  const x = (i) => LEFT + (rated.length > 1 ? (inner * (i + 0.5)) / rated.length : inner / 2);
  const y = (value) => TOP + ((height - TOP - BOTTOM) * (to - Math.min(to, Math.max(from, value)))) / (to - from);
  const number = (value) => value.toFixed(0);
  const said = rated.map((each) => t("arena.point", { policy: each.policy, rating: number(each.rating), low: number(each.low), high: number(each.high) })).join("; ");
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": t("arena.lineof", { list: said }), class: "bygeneration" });
  for (const tick of ticks(from, to, 5)) {
    svg.append(s("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), stroke: "var(--line)" }),
      s("text", { x: LEFT - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "central" }, number(tick)));
  }
  const edge = (key) => rated.map((each, i) => `${x(i).toFixed(1)},${y(each[key]).toFixed(1)}`);
  svg.append(s("polygon", { points: [...edge("low"), ...edge("high").reverse()].join(" "), fill: "var(--accent)", opacity: 0.16 }),
    s("polyline", { points: edge("rating").join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 2 }));
  const apart = inner / rated.length;
  const longest = Math.max(...rated.map((each) => each.policy.length)) * LETTER + 10;
  const every = Math.max(1, Math.ceil(Math.min(longest, 110) / apart));
  rated.forEach((each, i) => {
    svg.append(s("line", { x1: x(i), x2: x(i), y1: y(each.low), y2: y(each.high), stroke: "var(--accent)", "stroke-width": 1.5 }),
      s("circle", { cx: x(i), cy: y(each.rating), r: 4.5, fill: "var(--accent)" }, s("title", {}, t("arena.point", { policy: each.policy, rating: number(each.rating), low: number(each.low), high: number(each.high) }))));
    const beyond = [each.high > to ? `M${x(i)} ${TOP - 6}l5 8h-10z` : "", each.low < from ? `M${x(i)} ${height - BOTTOM + 6}l5 -8h-10z` : ""].join("");
    if (beyond) svg.append(s("path", { d: beyond, fill: "var(--accent)" }));
    if ((rated.length - 1 - i) % every === 0) svg.append(s("text", { x: x(i), y: height - 12, "text-anchor": "middle" }, short(each.policy, Math.floor((apart * every) / LETTER))));
  });
  return svg;
}

/** The colour behind a win rate: the further from even, the stronger; faint enough to read on. */
export function ground(mean) {
  const share = Math.round(Math.abs(mean - 0.5) * 2 * 34);
  return `color-mix(in srgb, var(${mean >= 0.5 ? "--accent" : "--warn"}) ${share}%, var(--card))`;
}
