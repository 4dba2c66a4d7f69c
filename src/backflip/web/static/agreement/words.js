// Figures with their intervals, in words.

import { count, language, t } from "../lib/i18n.js";

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

/** A coefficient, such as α: two digits and a true minus. */
export const coefficient = (x) => x.toFixed(2).replace("-", "−");

/** A share in whole percent. */
export const percent = (x) => `${(100 * x).toFixed(0)} %`;

/** A share's interval. */
export const between = ({ low, high }) => `${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)} %`;

/** A time, from milliseconds. */
export const seconds = (ms) => (ms < 9_950 ? (ms / 1000).toFixed(1) : whole.format(ms / 1000));

/** How rarely chance does something, as a round number: 1 of that many. */
export function rarity(p) {
  if (p < 1e-9) return t("agreement.rarest", { n: count(1e9) });
  const times = 1 / p;
  const size = 10 ** Math.floor(Math.log10(times));
  return t("agreement.rare", { n: count(Math.round(times / size) * size) });
}

/** What gives reason to look at somebody's figures, as a sentence. */
export function notice({ rater, kind, value, low, high, n, p, others }) {
  const other = (kind === "left" || kind === "longer") && value < 0.5;
  const key = { left: other ? "right" : "left", longer: other ? "shorter" : "longer" }[kind] ?? kind;
  return t(`agreement.notice.${key}`, { rater, share: percent(other ? 1 - value : value), n: count(n), interval: between({ low, high }), rare: p === null ? "" : rarity(p), others: others === null ? "" : percent(others) });
}
