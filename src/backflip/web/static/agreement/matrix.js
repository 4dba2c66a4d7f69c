// Every two labelers, people and machines in one table: how often they said the same.

import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { named } from "./raters.js";
import { between, percent } from "./words.js";

/** @param {any} report @returns {HTMLElement[]} */
export function matrix(report) {
  const people = new Map(report.raters.map((rater) => [rater.name, rater.person]));
  const met = new Map(report.pairs.flatMap((pair) => [[`${pair.a}\n${pair.b}`, pair], [`${pair.b}\n${pair.a}`, pair]]));
  const names = report.matrix;
  const head = h("tr", {}, h("td", {}), ...names.map((name) => h("th", { scope: "col" }, named(name, people.get(name)))));
  const rows = names.map((a) => h("tr", {}, h("th", { scope: "row" }, named(a, people.get(a))), ...names.map((b) => cell(a === b ? null : met.get(`${a}\n${b}`), a === b))));
  const table = h("table", { className: "matrix" }, h("thead", {}, head), h("tbody", {}, ...rows));
  const left = report.n_raters - names.length;
  return [h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-labelledby": "matrix-title" }, table), left > 0 ? h("p", { className: "small faint" }, t("agreement.matrixleft", { n: count(names.length), left: count(left) })) : null].filter(Boolean);
}

function cell(pair, self) {
  if (self) return h("td", { className: "self" });
  if (!pair) return h("td", { className: "none" }, h("span", { "aria-hidden": "true" }, "·"), h("span", { className: "hidden" }, t("agreement.nevermet")));
  const td = h("td", {}, h("span", { className: "value" }, percent(pair.value)), h("span", { className: "n" }, `${between(pair)} · ${count(pair.n)}`));
  td.style.setProperty("--shade", `${Math.round(45 * Math.max(0, (pair.value - 0.3) / 0.7))}%`);
  return td;
}
