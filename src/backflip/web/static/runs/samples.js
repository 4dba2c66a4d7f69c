// What the run that is spoken of writes, beside what it wrote first for the same prompt, and sending such pairs to people.

import { get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { number } from "../lib/scale.js";
import { pathOf } from "./feed.js";
import { mayRun, projectChoice, send } from "./labelling.js";
import { metric } from "./words.js";

export class Samples {
  constructor(feed, selection) {
    Object.assign(this, { feed, selection });
    this.step = null; // null: the newest, and the next when it comes
    this.left = new Set(); // rows that are not to be sent
    this.title = h("h2", {}, t("runs.samples"));
    this.range = h("input", { type: "range", min: "0", step: "1", "aria-label": t("runs.samplestep"), oninput: () => this.to(Number(this.range.value)) });
    this.back = h("button", { type: "button", onclick: () => this.move(-1), "aria-label": t("runs.earlier") }, "‹");
    this.forth = h("button", { type: "button", onclick: () => this.move(1), "aria-label": t("runs.later") }, "›");
    this.where = h("output", { className: "number" });
    this.rows = h("div", { className: "samples" });
    this.none = h("p", { className: "faint" });
    this.choice = mayRun ? projectChoice() : null;
    this.button = h("button", { type: "button", className: "main", onclick: () => this.send() });
    this.said = h("p", { className: "small", role: "status" });
    this.foot = h("div", { className: "row foot" }, this.button, this.choice?.element);
    this.walk = h("div", { className: "row walk" }, this.back, this.range, this.forth, this.where);
    this.element = h("section", { className: "card stack" , "aria-label": t("runs.samples") }, h("div", { className: "row" }, this.title, this.walk), this.none, this.rows, this.foot, this.said);
    selection.addEventListener("focus", () => { this.step = null; this.steps = []; this.said.textContent = ""; this.load(); });
    feed.addEventListener("samples", ({ detail }) => { if (detail === selection.focus) this.load(); });
  }

  get id() {
    return this.selection.focus;
  }

  async load() {
    const { id, step } = this;
    if (!id) { this.element.hidden = true; return; }
    try {
      const said = await get(`${pathOf(id)}/samples${step === null ? "" : `?step=${step}`}`);
      if (id === this.id && step === this.step) this.draw(said);
    } catch (problem) { if (problem.status !== 404 && problem.status !== 0) this.said.textContent = problem.message; }
  }

  move(by) {
    if (!this.steps?.length) return;
    this.to(Math.min(this.steps.length - 1, Math.max(0, this.steps.indexOf(this.at) + by)));
  }

  to(place) {
    this.step = place === this.steps.length - 1 ? null : this.steps[place];
    this.left.clear();
    this.said.textContent = "";
    this.range.value = String(place);
    this.where.textContent = t("runs.chart.step", { x: this.steps[place] });
    this.load();
  }

  draw({ step, steps, rows, total }) {
    const card = this.feed.cards.get(this.id);
    this.element.hidden = false;
    if (step !== this.at) this.left.clear();
    this.steps = steps;
    this.at = step;
    this.data = rows;
    this.none.hidden = rows.length > 0;
    this.none.textContent = t("runs.nosamples", { name: card?.name ?? this.id });
    this.title.textContent = rows.length ? t("runs.samplesof", { name: card?.name ?? this.id }) : t("runs.samples");
    this.walk.hidden = steps.length < 2;
    this.range.max = String(Math.max(0, steps.length - 1));
    this.range.value = String(steps.indexOf(step));
    this.range.setAttribute("aria-valuetext", t("runs.chart.step", { x: step }));
    this.back.disabled = step === steps[0];
    this.forth.disabled = step === steps.at(-1);
    this.where.textContent = step === null ? "" : t("runs.chart.step", { x: step }) + (total > rows.length ? ` · ${t("runs.firstof", { n: count(rows.length), total: count(total) })}` : "");
    this.rows.replaceChildren(...rows.map((row) => this.row(row)));
    this.drawButton();
  }

  row(row) {
    const { now, before } = row;
    const id = `sample-${row.row}`;
    const box = mayRun && row.askable ? h("input", { type: "checkbox", id, checked: !this.left.has(row.row), onchange: (event) => { if (event.target.checked) this.left.delete(row.row); else this.left.add(row.row); this.drawButton(); } }) : null;
    const prompt = h("div", { className: "prompt text raw", dir: "auto" }, row.prompt);
    const why = row.askable ? null : h("p", { className: "faint small" }, t(before ? "runs.samesaid" : "runs.noearlier"));
    return h("article", { className: "sample" }, h("div", { className: "ask" }, box ? h("label", { htmlFor: id, className: "small" }, box, " ", t("runs.include")) : null, prompt), before ? this.side(before, null) : null, this.side(now, before), why);
  }

  side(text, before) {
    const scores = Object.entries(text.scores).map(([name, value]) => {
      const change = before?.scores[name] === undefined ? null : value - before.scores[name];
      return h("li", {}, h("span", { className: "faint" }, metric(name)), " ", h("b", { className: "number" }, number(value)), change === null ? null : h("span", { className: "number" }, ` (${change >= 0 ? "+" : ""}${number(change)})`));
    });
    const open = text.finished === false ? h("li", { className: "warn" }, t("runs.unfinished")) : null;
    return h("section", { className: "side", "aria-label": t("runs.chart.step", { x: text.step }) }, h("header", {}, h("span", { className: "place" }, t("runs.chart.step", { x: text.step })), h("ul", { className: "values" }, ...scores, open)),
      h("div", { className: "text raw", dir: "auto", tabIndex: 0 }, text.text || t("label.nothing")));
  }

  get chosen() {
    return (this.data ?? []).filter((row) => row.askable && !this.left.has(row.row)).map((row) => row.row);
  }

  drawButton() {
    const n = this.chosen.length;
    this.foot.hidden = !mayRun || !this.data?.some((row) => row.askable);
    this.button.disabled = n === 0;
    this.button.textContent = t("runs.send", { n: count(n) });
  }

  async send() {
    this.button.disabled = true;
    this.said.textContent = await send(this.id, this.choice, { rows: this.chosen, step: this.at });
    this.drawButton();
  }
}
