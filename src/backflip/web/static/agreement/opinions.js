// What everybody said of one question, and why; and decisions in words.

import { fill, h } from "../lib/dom.js";
import { count, known, t } from "../lib/i18n.js";
import { named } from "./raters.js";
import { seconds } from "./words.js";

/** What a decision says. `places` holds the number of the completion in each place. */
export function decision({ choice, ranking }, places) {
  if (choice === "ranking") return order(ranking, places);
  if (choice === "tie") return t("label.equal");
  return t(places[0] === (choice === "left" ? 0 : 1) ? "agreement.leftis" : "agreement.rightis");
}

/** Completions by their places, best first: "2 > 1 = 3". */
const order = (groups, places) => groups.map((group) => group.map((i) => places.indexOf(i) + 1).sort((a, b) => a - b).join(" = ")).join(" > ");

/** @param {any} item @returns {HTMLElement[]} */
export function opinions(item) {
  const groups = new Map();
  for (const each of item.opinions) {
    const what = answer(each, item.places);
    if (!groups.has(what)) groups.set(what, []);
    groups.get(what).push(each);
  }
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length);
  return [h("h3", {}, t("agreement.said")), h("div", { className: "opinions" }, ...sorted.map(([what, those]) => h("div", { className: "opinion" }, h("p", {}, h("b", {}, what), " ", h("span", { className: "faint number" }, count(those.length))), h("ul", {}, ...those.map((each) => one(each, item.places))))))];
}

function answer({ groups, scores, code }, places) {
  if (!groups.length) return known(`skip.${code}`) ? t("agreement.passed", { why: t(`skip.${code}`) }) : t("agreement.passedover");
  if (places.length > 2 || scores.length) return order(groups, places);
  if (groups.length === 1) return t({ good: "label.bothgood", bad: "label.bothbad" }[code] ?? "label.equal");
  return t(places[0] === groups[0][0] ? "agreement.leftis" : "agreement.rightis");
}

function one(each, places) {
  const more = [each.strength ? t(`agreement.strength.${each.strength}`) : "", each.scores.length ? places.map((i) => String(each.scores[i])).join(" · ") : "", each.ms ? t("agreement.seconds", { s: seconds(each.ms) }) : ""].filter(Boolean);
  return h("li", {}, named(each.annotator, each.person), more.length ? h("span", { className: "small faint number" }, ` ${more.join(" · ")}`) : null, each.note_html ? fill(h("blockquote", { className: "text small", dir: "auto" }), each.note_html) : null);
}
