// Each labeler: a row of figures, and in words whatever cannot well be chance.

import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { between, notice, percent, seconds } from "./words.js";

const SHARES = ["consensus", "gold", "left", "longer", "consistency", "reliability"];

/** The sentences about whoever stands out. @param {any} report */
export function notices(report) {
  if (!report.notices.length) return h("p", { className: "faint" }, t("agreement.nonotices"));
  return h("ul", { className: "notices" }, ...report.notices.map((each) => h("li", { dataset: { kind: each.kind } }, notice(each))));
}

/** A name, marked if it is a machine's. */
export const named = (name, person) => h("span", { className: "who" }, name, person ? null : h("span", { className: "tag" }, t("agreement.machine")));

/** The table. @param {any} report @returns {HTMLElement[]} */
export function raters(report) {
  const flagged = new Set(report.notices.map(({ rater, kind }) => `${kind} ${rater}`));
  const head = h("tr", {}, h("th", { scope: "col" }, t("agreement.rater")), h("th", { scope: "col", className: "num" }, t("agreement.answers")),
    ...SHARES.map((name) => h("th", { scope: "col" }, t(`agreement.share.${name}`))), h("th", { scope: "col" }, t("agreement.median")));
  const rows = report.raters.map((rater) => h("tr", {}, h("th", { scope: "row" }, named(rater.name, rater.person)),
    h("td", { className: "num" }, count(rater.n_answers), rater.n_skips ? h("span", { className: "n" }, t("agreement.skips", { n: count(rater.n_skips) })) : null),
    ...SHARES.map((name) => share(rater[name], name, flagged.has(`${name} ${rater.name}`))), time(rater.median_ms)));
  const table = h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-labelledby": "raters-title" }, h("table", { className: "raters" }, h("thead", {}, head), h("tbody", {}, ...rows)));
  const left = report.n_raters - report.raters.length;
  const explained = h("details", { className: "small" }, h("summary", {}, t("agreement.explained")), h("dl", { className: "explained" },
    ...[...SHARES, "median"].flatMap((name) => [h("dt", {}, t(name === "median" ? "agreement.median" : `agreement.share.${name}`)), h("dd", { className: "faint" }, t(`agreement.explain.${name}`))])));
  return [table, left > 0 ? h("p", { className: "small faint" }, t("agreement.morerates", { n: count(left) })) : null, explained].filter(Boolean);
}

function share(said, name, flagged) {
  if (!said.n) return h("td", { className: "none" }, "–");
  const cell = h("td", { className: flagged ? "flagged" : "" }, h("span", { className: "value" }, percent(said.value), flagged ? h("span", { className: "flag", role: "img", "aria-label": t("agreement.flagged") }, "▲") : null), bar(said, name));
  cell.append(h("span", { className: "n" }, t("agreement.ofn", { interval: between(said), n: count(said.n) })));
  return cell;
}

/** The interval as a line between nothing and all, with a mark at one half where that means no bias. */
function bar({ value, low, high }, name) {
  const line = h("span", { className: "line" });
  line.style.left = `${100 * low}%`;
  line.style.width = `${100 * (high - low)}%`;
  const point = h("span", { className: "dotmark" });
  point.style.left = `${100 * value}%`;
  return h("span", { className: "minibar", "aria-hidden": "true", dataset: { half: name === "left" || name === "longer" ? "1" : "" } }, line, point);
}

function time(said) {
  if (!said.n) return h("td", { className: "none" }, "–");
  const range = t("agreement.seconds", { s: `${seconds(said.low)}–${seconds(said.high)}` });
  return h("td", {}, h("span", { className: "value" }, t("agreement.seconds", { s: seconds(said.value) })), h("span", { className: "n" }, t("agreement.ofn", { interval: range, n: count(said.n) })));
}
