// What there is to say of all people: α in plain words, and beside it what a layman means by agreement.

import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { permissions } from "../lib/shell.js";
import { between, coefficient, percent } from "./words.js";

const LOW = -0.25; // where the scale begins; agreement below it is drawn there

/** @param {any} report @param {any} project @returns {HTMLElement[]} */
export function headline(report, project) {
  if (!report.overlapping) return [empty(report, project)];
  const { alpha } = report;
  const words = h("h2", { className: "words" }, t(`agreement.words.${alpha.words}`));
  const big = h("p", { className: "alpha number" }, h("span", { className: "faint" }, "α "), alpha.value === null ? "–" : coefficient(alpha.value));
  const told = alpha.value === null
    ? t(`agreement.why.${alpha.why_key}`)
    : t("agreement.alpha", { low: coefficient(alpha.low), high: coefficient(alpha.high), n: count(alpha.n) });
  const first = h("div", { className: "headline" }, big, h("div", { className: "grow" }, words, h("p", { className: "small faint" }, told), alpha.value === null ? null : scale(alpha)));
  const share = ({ value }) => percent(value);
  const number = ({ value }) => coefficient(value);
  const range = ({ low, high }) => t("agreement.range", { low: coefficient(low), high: coefficient(high) });
  return [first, h("dl", { className: "beside" },
    ...figure("raw", report.raw, share, between), ...figure("ac1", report.ac1, number, range), ...figure("ordinal", report.alpha_ordinal, number, range))];
}

function figure(name, said, value, interval) {
  const known = said.value !== null;
  return [h("div", {}, h("dt", {}, t(`agreement.${name}`)),
    h("dd", {}, h("b", { className: "number" }, known ? value(said) : "–"), " ", h("span", { className: "small faint number" }, known ? t("agreement.ofn", { interval: interval(said), n: count(said.n) }) : t(`agreement.why.${said.why_key}`)),
      h("span", { className: "small faint more" }, t(`agreement.${name}more`))))];
}

/** Where α and its interval lie between chance and full agreement; what it says stands beside it in words. */
function scale({ value, low, high }) {
  const place = (x) => `${(100 * (Math.max(LOW, Math.min(1, x)) - LOW)) / (1 - LOW)}%`;
  const part = (name, at, to) => {
    const element = h("span", { className: name });
    element.style.left = place(at);
    if (to !== undefined) element.style.width = `calc(${place(to)} - ${place(at)})`;
    return element;
  };
  const label = (key, x) => {
    const element = h("span", {}, t(key));
    element.style.left = place(x);
    return element;
  };
  return h("div", { className: "scale-alpha", "aria-hidden": "true" },
    h("div", { className: "track" }, part("tick", 0), part("tick", 0.667), part("tick", 0.8), part("band", low, high), part("point", value)),
    h("div", { className: "labels small faint" }, label("agreement.scale.chance", 0), label("agreement.scale.moderate", 0.667), label("agreement.scale.strong", 0.8), label("agreement.scale.all", 1)));
}

function empty(report, project) {
  const link = permissions.has("admin") ? h("a", { className: "button main", href: `/projects/${encodeURIComponent(project.id)}` }, t("agreement.setoverlap")) : null;
  const more = project.overlap > 1 ? t("agreement.emptywait", { n: count(project.overlap) }) : t("agreement.emptymore");
  const none = report.questions
    ? [t("agreement.empty", { n: count(report.overlapping), total: count(report.questions) }), more]
    : [t("agreement.noquestions"), t("agreement.noquestionsmore")];
  return h("div", { className: "empty short" }, h("h2", {}, none[0]), h("p", {}, none[1]), project.overlap > 1 && report.questions ? null : link);
}
