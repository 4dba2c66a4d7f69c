// What the monitor of the run that is spoken of has found: its alarms as they begin, curves over its looks, what the proxy pays for,
// and the texts that it holds for suspicious.

import { get } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { h, s } from "../lib/dom.js";
import { known, t } from "../lib/i18n.js";
import { number, steps } from "../lib/scale.js";
import { pathOf } from "./feed.js";

const CURVES = [
  ["judged", ["guard/proxy_scaled", "guard/quality"]], ["distance", ["guard/kl_seq_nats"]], ["disagreement", ["guard/disagreement"]],
  ["evidence", ["guard/evidence"]],
];
const ROUND = 2; // digits of a score

const short = (x) => number(Number(x.toFixed(ROUND)));
const signed = (x) => (x === null ? "–" : `${x >= 0 ? "+" : ""}${short(x)}`);

export class Guard {
  constructor(feed, selection, details) {
    Object.assign(this, { feed, selection, details });
    this.charts = new Map();
    this.title = h("h2", {}, t("runs.guard"));
    this.verdict = h("p", { className: "faint", role: "status" });
    this.alarms = h("ol", { className: "findings" });
    this.curves = h("div", { className: "charts" });
    this.pays = h("details", { className: "group" });
    this.suspects = h("details", { className: "group" });
    this.element = h("section", { className: "card guard", hidden: true, "aria-label": t("runs.guard") }, h("header", {}, this.title, this.verdict), this.alarms, this.curves, this.pays, this.suspects);
    details.addEventListener("change", ({ detail }) => { if (detail === selection.focus) this.load(); });
    selection.addEventListener("focus", () => this.load());
  }

  async load() {
    const id = this.selection.focus;
    if (!this.feed.cards.has(id)) { this.element.hidden = true; return; }
    let found;
    try { found = await get(`${pathOf(id)}/guard`); } catch { return; } // the stream says when the server cannot be reached
    if (id !== this.selection.focus) return;
    const look = JSON.stringify([id, found]);
    if (look === this.look) return;
    this.look = look;
    this.element.hidden = !found.watched;
    if (found.watched) this.draw(found);
  }

  draw(found) {
    const last = Object.values(found.lines)[0]?.x.at(-1) ?? 0;
    this.verdict.textContent = [t("runs.guard.looks", { n: found.looks, step: last }), t(`runs.guard.${found.decision}`, { step: found.best_step }), found.findings.length ? "" : t("runs.guard.quiet")].filter(Boolean).join(" ");
    this.alarms.replaceChildren(...found.findings.map((one) => this.finding(one)));
    this.alarms.hidden = !found.findings.length;
    for (const [id, names] of CURVES) this.curve(id, names, found);
    this.drawPays(found.features);
    this.drawSuspects(found.suspects);
  }

  finding({ kind, step, act, sentence, evidence }) {
    const name = known(`runs.guard.kind.${kind}`) ? t(`runs.guard.kind.${kind}`) : kind;
    const numbers = Object.entries(evidence).map(([what, text]) => h("li", {}, h("span", { className: "faint" }, `${what} `), text));
    return h("li", { dataset: { act } }, h("p", { className: "top" }, h("b", {}, name), h("span", { className: "faint small" }, t("runs.chart.step", { x: step })), h("span", { className: "act" }, t(`runs.guard.act.${act}`))),
      h("p", {}, `${sentence[0].toUpperCase()}${sentence.slice(1)}.`), numbers.length ? h("ul", { className: "numbers number" }, ...numbers) : null);
  }

  curve(id, names, { lines, best_step: best }) {
    const there = names.filter((name) => lines[name]);
    let chart = this.charts.get(id);
    if (!there.length) { chart?.element.remove(); this.charts.delete(id); chart?.remove(); return; }
    if (!chart) {
      chart = new Chart({ title: t(`runs.guard.chart.${id}`), unit: t(`runs.guard.unit.${id}`), axis: steps });
      this.charts.set(id, chart);
      this.curves.append(chart.element);
    }
    const run = this.feed.cards.get(this.selection.focus)?.name ?? this.selection.focus;
    const drawn = there.map((name, slot) => ({ name: run, kind: there.length > 1 || id === "judged" ? t(`runs.guard.line.${name.split("/")[1]}`) : "", slot, ...lines[name] }));
    if (id === "judged") {
      const line = drawn.at(-1);
      const at = line.x.indexOf(best);
      if (at >= 0) drawn.push({ name: run, kind: t("runs.guard.kept"), slot: 2, mark: "circle", x: [best], y: [line.y[at]], wrong: [] });
    }
    chart.set(drawn);
  }

  drawPays(features) {
    this.pays.hidden = !features.length;
    if (!features.length) return;
    const judged = features.some((one) => one.judges !== null);
    const most = Math.max(1e-9, ...features.flatMap((one) => [Math.abs(one.proxy), Math.abs(one.judges ?? 0)]));
    const head = ["feature", "before", "now", "proxy", ...(judged ? ["judges"] : [])].map((name) => h("th", { scope: "col" }, t(`runs.guard.column.${name}`)));
    const rows = features.map((one) => h("tr", {}, h("th", { scope: "row" }, one.feature), h("td", {}, short(one.before)), h("td", {}, short(one.now)), h("td", {}, signed(one.proxy)), judged ? h("td", {}, signed(one.judges)) : null, h("td", { className: "bar" }, bars(one, most))));
    this.pays.replaceChildren(h("summary", {}, h("h3", {}, t("runs.guard.pays"))), h("p", { className: "faint small" }, t("runs.guard.paysmore")),
      h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": t("runs.guard.pays") }, h("table", { className: "number" }, h("thead", {}, h("tr", {}, ...head, h("td", {}))), h("tbody", {}, ...rows))));
  }

  drawSuspects(rows) {
    this.suspects.hidden = !rows.length;
    if (!rows.length) return;
    const side = (step, text, scores) => h("section", { className: "side" }, h("header", {}, h("span", { className: "place" }, step), h("ul", { className: "values" }, ...scores.filter(([, x]) => x !== null).map(([name, x]) => h("li", {}, h("span", { className: "faint" }, t(`runs.guard.column.${name}`)), " ", h("b", { className: "number" }, signed(x)))))),
      h("div", { className: "text raw", dir: "auto", tabIndex: 0 }, text || t("label.nothing")));
    this.suspects.replaceChildren(h("summary", {}, h("h3", {}, t("runs.guard.suspects", { n: rows.length }))), h("p", { className: "faint small" }, t("runs.guard.suspectsmore")),
      h("div", { className: "samples" }, ...rows.map((row) => h("article", { className: "sample" }, h("div", { className: "ask" }, h("div", { className: "prompt", dir: "auto" }, row.prompt)), side(t("runs.guard.before"), row.before, []), side(t("runs.chart.step", { x: row.step }), row.text, [["proxy", row.proxy], ["judges", row.judges]])))));
  }
}

/** Two bars from a middle line: what the proxy pays and, below it, what the judges do. */
function bars({ proxy, judges }, most) {
  const bar = (x, i) => s("rect", { x: 60 + Math.min(0, (x / most) * 56), y: 2 + 8 * i, width: (Math.abs(x) / most) * 56, height: 6, rx: 1, fill: `var(--chart-${i})` });
  return s("svg", { viewBox: "0 0 120 18", width: 120, height: 18, "aria-hidden": "true" }, s("path", { d: "M60 0v18", stroke: "var(--strong-line)" }), bar(proxy, 0), ...(judges === null ? [] : [bar(judges, 1)]));
}
