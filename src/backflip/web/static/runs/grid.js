// The charts of the runs that are drawn, in groups. A chart asks for its metrics when it comes into view, not before.

import { Chart, Sync } from "../lib/chart.js";
import { h } from "../lib/dom.js";
import { known, t } from "../lib/i18n.js";
import { seconds, steps } from "../lib/scale.js";
import { overSeconds } from "./feed.js";
import { GROUPS, MARKS, others } from "./groups.js";
import { metric } from "./words.js";

export class Grid {
  constructor(feed, selection, details) {
    Object.assign(this, { feed, selection, details });
    this.sync = new Sync();
    this.charts = new Map(); // id → {chart, spec}
    this.wall = localStorage.getItem("backflip x") === "wall";
    this.body = h("div", { className: "groups" });
    this.stale = h("p", { className: "notice stale", role: "status", hidden: true });
    this.note = h("p", { className: "faint small", hidden: true }, t("runs.notimes"));
    this.axes = ["step", "wall"].map((x) => h("button", { type: "button", "aria-pressed": "false", onclick: () => this.over(x) }, t(`runs.over.${x}`)));
    this.bar = h("div", { className: "row axes", role: "group", "aria-label": t("runs.over") }, h("span", { className: "faint small" }, t("runs.over")), ...this.axes);
    this.element = h("section", { className: "grid", "aria-label": t("runs.charts") }, this.bar, this.stale, this.note, this.body);
    this.over(this.wall ? "wall" : "step");
  }

  /** Draw over the steps or over the seconds of training. */
  over(x) {
    this.wall = x === "wall";
    localStorage.setItem("backflip x", x);
    this.axes.forEach((button, i) => button.setAttribute("aria-pressed", String((i === 1) === this.wall)));
    this.sync.set(null);
    if (this.wall) this.feed.want(["wall"]);
    for (const { chart } of this.charts.values()) chart.axis = this.axis;
    this.update();
  }

  get axis() {
    return this.wall ? seconds : steps;
  }

  /** Every metric that one of the drawn runs logs. */
  get names() {
    const found = new Set();
    for (const id of this.selection.ids) for (const name of [...(this.feed.cards.get(id)?.metrics ?? []), ...(this.details.of(id)?.metrics ?? [])]) found.add(name);
    return found;
  }

  /** Have the charts that the drawn runs need, those that were there already where they were. */
  rebuild() {
    const names = this.names;
    const several = this.selection.slots.size > 1;
    const groups = GROUPS.map(([id, charts]) => [id, charts.filter((spec) => spec.names.some((name) => names.has(name)) && !(several && spec.id === "parts"))]);
    groups.push(["others", others(names).map((name) => ({ id: `metric ${name}`, names: [name], unit: "" }))]);
    const plan = JSON.stringify(groups.map(([id, charts]) => [id, charts.map((spec) => spec.id)]));
    if (plan !== this.plan) {
      this.plan = plan;
      const wanted = new Set(groups.flatMap(([, charts]) => charts.map((spec) => spec.id)));
      for (const [id, { chart }] of this.charts) if (!wanted.has(id)) { chart.remove(); this.charts.delete(id); }
      this.body.replaceChildren(...groups.filter(([, charts]) => charts.length).map(([id, charts]) => this.group(id, charts)));
    }
    this.update();
  }

  group(id, charts) {
    const elements = charts.map((spec) => this.chartOf(spec).element);
    const title = t(`runs.group.${id}`);
    const inside = h("div", { className: "charts" }, ...elements);
    if (id === "others") return h("details", { className: "group" }, h("summary", {}, h("h2", {}, title)), inside);
    return h("section", { className: "group" }, h("h2", {}, title), inside);
  }

  chartOf(spec) {
    const there = this.charts.get(spec.id);
    if (there) return there.chart;
    const title = known(`runs.title.${spec.id}`) ? t(`runs.title.${spec.id}`) : spec.names[0];
    const chart = new Chart({ title, unit: spec.unit && t(`runs.of.${spec.unit}`), sync: this.sync, axis: this.axis, onshow: () => { this.feed.want(spec.names); chart.set(this.linesOf(spec)); } });
    chart.element.querySelector(".name").title = spec.names.join(", ");
    this.charts.set(spec.id, { chart, spec });
    return chart;
  }

  /** Give the charts their lines, all of them or those that a run has part in. */
  update(id = null) {
    if (id !== null && !this.selection.slots.has(id)) return;
    for (const { chart, spec } of this.charts.values()) if (chart.visible) chart.set(this.linesOf(spec));
    const without = this.wall && this.selection.ids.some((run) => this.feed.lines(run).has("wall") && !this.feed.lines(run).get("wall").x.length);
    this.note.hidden = !without;
  }

  linesOf({ names }) {
    const several = this.selection.slots.size > 1;
    const found = [];
    for (const [id, slot] of this.selection.slots) {
      const lines = this.feed.lines(id);
      names.forEach((name, k) => {
        const line = lines.get(name);
        const wall = lines.get("wall");
        if (!line || (!line.x.length && !line.wrong.length) || (this.wall && !wall)) return;
        const kind = names.length > 1 ? metric(name) : "";
        const look = several || names.length === 1 ? { slot, mark: MARKS[k % MARKS.length] } : { slot: slot + k, mark: "" };
        found.push({ name: this.feed.cards.get(id)?.name ?? id, kind, ...(this.wall ? overSeconds(line, wall) : line), ...look });
      });
    }
    return found.sort((a, b) => a.slot - b.slot);
  }

  contact(silence) {
    this.stale.hidden = !silence;
    this.body.toggleAttribute("data-stale", Boolean(silence));
    if (silence) this.stale.textContent = t("runs.stale", { n: Math.round(silence) });
  }
}
