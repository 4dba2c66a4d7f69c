// Numbers on an axis: round ticks, and how they are written.

import { t } from "./i18n.js";

/** Round numbers from `low` to `high`, about `n` of them. */
export function ticks(low, high, n) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

/** A number in up to four digits, with a proper minus. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−");
}

/** Names for ticks, as many digits as their distance asks for. */
export function names(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(values[0]) || 1;
  const largest = Math.max(...values.map(Math.abs));
  if (largest >= 1e6 || (largest > 0 && largest < 1e-3)) return values.map(number);
  const digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return values.map((value) => (Math.abs(value) < step / 1e6 ? "0" : value.toFixed(digits)).replace("-", "−"));
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** The steps of a run as an axis. */
export const steps = {
  ticks: (low, high, n) => ticks(low, high, n).filter(Number.isInteger),
  names: (values) => values.map((value) => (value >= 1e4 && value % 1000 === 0 ? `${value / 1000}k` : String(value))),
  say: (x) => t("runs.chart.step", { x: String(Math.round(x)) }),
};

/** Seconds of training as an axis, in the largest unit that fits. */
export const seconds = {
  ticks(low, high, n) {
    const [, size] = unit(high - low);
    return ticks(low / size, high / size, n).map((value) => value * size);
  },
  names(values) {
    const [name, size] = unit(values.at(-1) - values[0] || values[0]);
    return names(values.map((value) => value / size)).map((text) => t(`runs.unit.${name}`, { n: text }));
  },
  say: duration,
};

function unit(span) {
  return UNITS.find(([, size]) => span >= 2 * size) ?? UNITS.at(-1);
}

/** A duration in its largest unit. */
export function duration(x) {
  const [name, size] = UNITS.find(([, each]) => x >= 2 * each) ?? UNITS.at(-1);
  return t(`runs.unit.${name}`, { n: number(Number((x / size).toPrecision(3))) });
}
