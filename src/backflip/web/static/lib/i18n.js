// What the pages say, in the reader's language; `t("label.kept", {n: 7})` fills {n}.

const strings = JSON.parse(document.getElementById("strings").textContent);
export const language = document.documentElement.lang;

/** @param {string} key @param {Record<string, string|number>} [values] */
export function t(key, values = {}) {
  const text = strings[key];
  if (text === undefined) throw new Error(`no string ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Whether there is such a string. */
export const known = (key) => key in strings;

const whole = new Intl.NumberFormat(language);
const time = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });

/** A count. */
export const count = (n) => whole.format(n);
/** A moment, from seconds since 1970. */
export const moment = (seconds) => time.format(new Date(seconds * 1000));
/** A share as a percentage. */
export const percent = (x, digits = 0) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(digits)} %`);
/** How long ago, in a word or two. */
export function ago(seconds) {
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "narrow" });
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) if (seconds >= size) return relative.format(-Math.floor(seconds / size), unit);
  return relative.format(-Math.max(0, Math.floor(seconds)), "second");
}
