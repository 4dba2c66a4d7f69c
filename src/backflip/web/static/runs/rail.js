// The run that is spoken of, what can be asked of it, and what there is to look at in the runs that are drawn.

import { post } from "../lib/api.js";
import { Chart, swatch } from "../lib/chart.js";
import { dialog, h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { pathOf } from "./feed.js";
import { mayRun, projectChoice, send } from "./labelling.js";
import { age, alarmWords, figures, metric, stateOf } from "./words.js";

const SUSPICIOUS = 12;
const LEVELS = ["error", "warn", "info"];
const STANDS_ON = 8; // rows that most of an alarm's numbers are the mean of

export class Rail {
  constructor(feed, selection, details) {
    Object.assign(this, { feed, selection, details });
    this.alarms = new Map(); // what is on the page, by run and kind
    this.name = h("h2", {});
    this.state = h("span", { className: "state" });
    this.line = h("p", { className: "small figures number" });
    this.progress = h("progress", { max: 1, "aria-label": t("runs.progress") });
    this.damage = h("p", { className: "error small", hidden: true });
    this.buttons = h("div", { className: "row controls" });
    this.said = h("p", { className: "small", role: "status" });
    this.settings = h("pre", { tabIndex: 0 });
    this.more = h("details", { className: "settings", hidden: true }, h("summary", { className: "small" }, t("runs.settings")), this.settings);
    this.about = h("section", { className: "card subject", "aria-label": t("runs.run") }, this.name, h("p", { className: "small" }, this.state), this.line, this.progress, this.damage, this.buttons, this.said, this.more);
    this.heading = h("h2", {}, t("runs.alarms"));
    this.list = h("div", { className: "alarmlist" });
    this.quiet = h("p", { className: "faint small" }, t("runs.noalarms"));
    this.element = h("aside", { className: "rail", "aria-label": t("runs.rail") }, this.about, h("section", { className: "card alarms" }, this.heading, this.quiet, this.list));
    details.addEventListener("change", () => { this.draw(); this.drawAlarms(); });
    selection.addEventListener("change", () => this.drawAlarms());
    selection.addEventListener("focus", () => { this.said.textContent = ""; this.draw(); this.drawAlarms(); });
  }

  // ---- the run

  get card() {
    return this.feed.cards.get(this.selection.focus);
  }

  /** Whose wish keeps a run waiting or will end it: its own, or that of a run it is a stage of. */
  holder(card) {
    for (let each = card; each; each = this.feed.cards.get(each.parent)) if (each.wish) return each;
    return null;
  }

  draw() {
    const { card } = this;
    this.about.hidden = !card;
    if (!card) return;
    const [kind, words] = stateOf(card, this.feed.now);
    this.name.textContent = card.name;
    this.state.dataset.state = kind;
    this.state.textContent = words;
    this.line.textContent = [card.kind, ...figures(card, this.feed.now), age(card, this.feed.now)].filter(Boolean).join(" · ");
    this.progress.hidden = card.step === null || !card.steps;
    if (!this.progress.hidden) this.progress.value = Math.min(1, card.step / card.steps);
    this.damage.hidden = !card.damaged;
    this.damage.textContent = card.damaged;
    this.drawControls(card);
    const settings = this.details.of(card.id)?.settings;
    this.more.hidden = !settings || !Object.keys(settings).length;
    const text = this.more.hidden ? "" : Object.entries(flat(settings)).map(([name, value]) => `${name}: ${value}`).join("\n");
    if (this.settings.textContent !== text) this.settings.textContent = text;
  }

  drawControls(card) {
    const living = card.state === "running" || card.state === "paused";
    const holder = living ? this.holder(card) : null;
    const look = `${card.id} ${card.state} ${holder?.id} ${holder?.wish} ${mayRun}`;
    if (look === this.controls) return;
    this.controls = look;
    const focused = this.buttons.contains(document.activeElement);
    const button = (key, act, props = {}) => h("button", { type: "button", onclick: act, ...props }, t(key));
    const found = [];
    let note = card.state === "stopped" ? t("runs.goon") : "";
    if (living && mayRun) {
      if (holder?.wish === "pause") found.push(button(card.state === "paused" ? "runs.resume" : "runs.withdraw", () => this.ask(holder, "resume"), { className: "main" }));
      else if (!holder) found.push(button("runs.pause", () => this.ask(card, "pause")));
      if (holder?.wish === "stop") found.push(button("runs.withdraw", () => this.ask(holder, "resume")));
      else found.push(button("runs.stop", () => this.confirmStop(card), { className: "danger" }));
    }
    if (holder) note = t(card.state === "paused" ? "runs.pausedby" : `runs.will.${holder.wish}`, { who: holder.wished_by });
    this.buttons.replaceChildren(...found, ...(note ? [h("p", { className: "small faint" }, note)] : []));
    if (focused) (found[0] ?? this.name).focus();
  }

  /** Pause a run that runs, let one go on that waits. */
  toggle() {
    const { card } = this;
    if (!mayRun || !card || (card.state !== "running" && card.state !== "paused")) return;
    const holder = this.holder(card);
    if (holder) this.ask(holder, "resume"); else this.ask(card, "pause");
  }

  async ask(card, wish) {
    this.said.textContent = "";
    try {
      this.feed.onCards({ runs: [await post(`${pathOf(card.id)}/control`, { wish })], gone: [], now: this.feed.now });
      this.said.textContent = t(`runs.asked.${wish}`, { name: card.name });
    } catch (problem) { this.said.textContent = problem.message; }
  }

  confirmStop(card) {
    const layer = dialog(t("runs.stopsure", { name: card.name }), h("p", {}, t("runs.stopmore")), h("div", { className: "row" },
      h("button", { type: "button", className: "danger", onclick: () => { layer.close(); this.ask(card, "stop"); } }, t("runs.stop")), h("button", { type: "button", autofocus: true, onclick: () => layer.close() }, t("shell.cancel"))));
  }

  // ---- alarms

  drawAlarms() {
    const runs = [...new Set([this.selection.focus, ...this.selection.ids])];
    const found = runs.flatMap((id) => (this.details.of(id)?.alarms ?? []).map((alarm) => ({ id, alarm, key: `${id} ${alarm.kind} ${Object.keys(alarm.evidence)}` })));
    found.sort((a, b) => LEVELS.indexOf(a.alarm.level) - LEVELS.indexOf(b.alarm.level));
    const wanted = new Set(found.map(({ key }) => key));
    for (const [key, item] of this.alarms) if (!wanted.has(key)) { item.remove(); this.alarms.delete(key); }
    const elements = found.map(({ id, alarm, key }) => {
      if (!this.alarms.has(key)) this.alarms.set(key, new Item(this, id));
      const item = this.alarms.get(key);
      item.update(alarm);
      return item.element;
    });
    if (elements.some((element, i) => this.list.children[i] !== element)) this.list.replaceChildren(...elements);
    this.quiet.hidden = found.length > 0;
    this.heading.textContent = found.length ? t("runs.alarmsn", { n: found.length }) : t("runs.alarms");
  }
}

/** One alarm: its name, and behind it the sentence, the metrics it rests on, and what can be done. */
class Item {
  constructor(rail, id) {
    Object.assign(this, { rail, id, charts: [] });
    this.level = h("span", { className: "level" });
    this.title = h("b", {});
    this.whose = h("span", { className: "whose small faint" });
    this.sentence = h("p", {});
    this.figures = h("div", { className: "stack" });
    this.actions = h("div", { className: "row" });
    this.said = h("p", { className: "small", role: "status" });
    this.element = h("details", { className: "alarm" }, h("summary", {}, this.level, this.title, this.whose), this.sentence, this.figures, this.actions, this.said);
    this.element.addEventListener("toggle", () => { if (this.element.open) this.open(); });
    this.onLines = ({ detail }) => { if (detail === id && this.element.open) this.drawCharts(); };
    rail.feed.addEventListener("lines", this.onLines);
  }

  remove() {
    this.rail.feed.removeEventListener("lines", this.onLines);
    for (const chart of this.charts) chart.remove();
    this.element.remove();
  }

  update(alarm) {
    const slot = this.rail.selection.slots.get(this.id);
    const name = this.rail.feed.cards.get(this.id)?.name ?? this.id;
    const [title, sentence] = alarmWords(alarm);
    const look = JSON.stringify([alarm, slot, title]);
    if (look === this.look) return;
    this.look = look;
    this.alarm = alarm;
    this.element.dataset.level = alarm.level;
    this.level.textContent = t(`runs.level.${alarm.level}`);
    this.title.textContent = title;
    this.whose.replaceChildren(...(slot === undefined ? [] : [swatch(slot)]), ` ${t("runs.alarmat", { name, step: alarm.step })}`);
    this.sentence.textContent = sentence;
    if (this.element.open) this.open();
  }

  open() {
    const { rail, id, alarm } = this;
    const names = Object.keys(alarm.evidence).filter((name) => !["samples", "timings"].includes(name));
    rail.feed.want(names);
    if (names.join() !== this.drawn) {
      for (const chart of this.charts) chart.remove();
      this.drawn = names.join();
      this.charts = names.map((name) => new Chart({ title: metric(name) }));
      this.figures.replaceChildren(...this.charts.map((chart) => chart.element));
    }
    this.drawCharts();
    if (mayRun && !this.choice) {
      this.choice = projectChoice();
      const pause = h("button", { type: "button", onclick: () => rail.ask(rail.feed.cards.get(id), "pause") }, t("runs.pause"));
      const label = h("button", { type: "button", onclick: async () => { this.said.textContent = await send(id, this.choice, { n: SUSPICIOUS, alarm: this.alarm.kind }); } }, t("runs.suspicious", { n: SUSPICIOUS }));
      this.pause = pause;
      this.actions.replaceChildren(pause, label, this.choice.element);
    }
    const state = rail.feed.cards.get(id)?.state;
    if (this.pause) this.pause.hidden = alarm.action !== "pause" || state !== "running";
  }

  /** The metrics of the alarm: the line, and over the last rows the interval that the sentence speaks of. */
  drawCharts() {
    const { rail, id, alarm } = this;
    const lines = rail.feed.lines(id);
    this.drawn.split(",").filter(Boolean).forEach((name, i) => {
      const line = lines.get(name);
      const numbers = alarm.evidence[name] ?? {};
      const shown = line ? [{ name: rail.feed.cards.get(id)?.name ?? id, slot: 0, ...line }] : [];
      if (line?.x.length && numbers.mean !== undefined && numbers.low !== undefined) {
        const found = line.x.findIndex((x) => x >= alarm.step);
        const end = found < 0 ? line.x.length - 1 : found;
        const x = [line.x[Math.max(0, end - STANDS_ON + 1)], line.x[end]];
        shown.push({ name: t("runs.interval"), slot: 1, x, y: [numbers.mean, numbers.mean], low: [numbers.low, numbers.low], high: [numbers.high, numbers.high] });
      }
      const levels = ["target", "at first"].filter((what) => numbers[what] !== undefined).map((what) => ({ y: numbers[what], name: t(`runs.level.${what === "target" ? "target" : "first"}`) }));
      this.charts[i].set(shown, levels);
    });
  }
}

function flat(value, above = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return { [above]: typeof value === "string" ? value : JSON.stringify(value) };
  return Object.assign({}, ...Object.entries(value).map(([name, inner]) => flat(inner, above ? `${above}.${name}` : name)));
}
