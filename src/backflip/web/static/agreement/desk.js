// The desk: what people differ on most, what each of them said and why, and a decision that stands beside their answers.

import { get } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { count, moment, t } from "../lib/i18n.js";
import { newKey } from "../lib/outbox.js";
import { isCommand, permissions } from "../lib/shell.js";
import { Question } from "../label/question.js";
import { List } from "./list.js";
import { decision, opinions } from "./opinions.js";
import { Sender } from "./sender.js";

export const KEYS = [
  ["D", "agreement.keys.desk"], ["← ↓ →", "agreement.keys.choose"], ["1 … 9 =", "agreement.keys.rank"], ["Enter", "agreement.keys.enter"],
  ["S", "agreement.keys.skip"], ["Z Backspace", "agreement.keys.back"], ["R", "agreement.keys.note"], ["M", "keys.raw"],
];
const SHOWN = { answers: "compare", whole_clip: false }; // whatever people did, a decision is a choice or an order

export class Desk extends EventTarget {
  /** @param {any} project @param {boolean} may whether this person decides, or only looks */
  constructor(project, may) {
    super();
    this.project = project;
    this.may = may;
    this.items = new Map(); // what was fetched, as promises, by question
    this.taste = { raw: false };
    this.opening = Promise.resolve(); // settled once the question that was opened last is on the desk
    this.sender = new Sender(project.id);
    this.sender.addEventListener("stored", ({ detail }) => this.stored(detail.decision));
    this.sender.addEventListener("refused", ({ detail }) => {
      this.list.settle(detail.decision.query, false);
      this.tell(t("agreement.refused", { problem: detail.problem.message }), true);
    });
    this.build();
  }

  build() {
    const button = (label, key, action, extra = {}) => h("button", { type: "button", onclick: action, ...extra }, t(label), h("kbd", {}, key));
    this.list = new List((query) => this.open(query, true), () => this.draw(null));
    this.position = h("span", { className: "number faint" });
    this.stage = h("div", { className: "stage" });
    this.choices = { left: button("label.leftbetter", "←", () => this.choose("left"), { className: "side" }), tie: button("label.equal", "↓", () => this.choose("tie")), right: button("label.rightbetter", "→", () => this.choose("right"), { className: "side" }) };
    this.pair = h("div", { className: "answers" }, this.choices.left, this.choices.tie, this.choices.right);
    this.field = h("textarea", { maxLength: 4000, rows: 2, id: "why", placeholder: t("agreement.whymore") });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.preventDefault(); this.box.focus(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) { event.preventDefault(); this.commit(); }
    });
    this.why = h("label", { className: "why" }, h("span", { className: "small faint" }, t("agreement.why"), " ", h("kbd", {}, "R")), this.field);
    this.more = h("div", { className: "answers" }, button("agreement.back", "Z", () => this.step(-1)), button("agreement.skip", "S", () => this.step(1)), button("agreement.decide", "Enter", () => this.commit(), { className: "main" }));
    this.said = h("p", { className: "said", role: "status" });
    this.tools = h("div", { className: "bottom" }, this.pair, this.why, this.more);
    this.box = h("div", { className: "box", tabIndex: 0, role: "group", "aria-label": t("agreement.desk"), onkeydown: (event) => this.onKey(event) }, h("div", { className: "row" }, this.position, this.said), this.stage, this.tools);
    this.intro = h("p", { className: "small faint" }, t(this.may ? "agreement.contestedmore" : "agreement.contestedlook"));
    this.none = h("p", { className: "faint" }, t("agreement.nocontested"));
    this.columns = h("div", { className: "desk" }, this.list.element, this.box);
    this.element = h("section", { id: "contested", className: "card", "aria-labelledby": "contested-title" }, h("h2", { id: "contested-title" }, t("agreement.contested")), this.intro, this.none, this.columns);
  }

  /** Take what a newer report says; the question on the desk stays where it is. */
  update(report) {
    this.list.update(report.contested, report.decided);
    this.items.clear(); // somebody may have said more
    this.none.hidden = !this.list.nothing;
    this.columns.hidden = this.intro.hidden = this.list.nothing;
    if (this.list.nothing) return;
    this.list.load = () => get(`/agreement/${encodeURIComponent(this.project.id)}/adjudications`);
    const begins = !this.begun;
    this.begun = true;
    if (begins && !this.list.first) this.list.show("decided");
    else if (!this.query && this.list.first) this.open(this.list.first);
    else this.drawPosition();
  }

  focus() {
    this.element.scrollIntoView({ block: "start" });
    if (!this.columns.hidden) this.box.focus({ preventScroll: true });
  }

  // ---- questions

  item(query) {
    if (!this.items.has(query)) {
      const asked = get(`/agreement/${encodeURIComponent(this.project.id)}/items/${encodeURIComponent(query)}`);
      asked.catch(() => this.items.delete(query));
      this.items.set(query, asked);
    }
    return this.items.get(query);
  }

  open(query, focus = false) {
    this.query = query;
    this.blank();
    this.list.mark(query);
    this.drawPosition();
    this.opening = this.bring(query, focus);
    return this.opening;
  }

  async bring(query, focus) {
    try {
      const item = await this.item(query);
      if (this.query === query) this.draw(item);
    } catch (problem) {
      if (this.query === query) { this.draw(null); this.tell(problem.status ? problem.message : t("agreement.away"), true); }
    }
    if (focus) this.box.focus({ preventScroll: innerWidth > 700 });
    const next = this.list.beside(query, 1);
    if (next) this.item(next).catch(() => {});
  }

  step(by) {
    if (by < 0 && this.question?.order.length && this.question.unrank()) return;
    const next = this.list.beside(this.query, by);
    if (next) { this.tell(""); this.open(next, true); }
    else this.tell(t(by > 0 ? "agreement.last" : "agreement.first"));
  }

  /** No choice and no reason yet. */
  blank() {
    this.choice = "";
    this.field.value = "";
  }

  draw(item) {
    this.question?.stop();
    this.shown = item;
    this.question = null;
    if (!item) { this.query = ""; this.blank(); this.stage.replaceChildren(h("p", { className: "faint" }, t("agreement.pick"))); this.tools.hidden = true; this.drawPosition(); return; }
    const playable = item.form !== "clip" || permissions.has("label");
    if (playable) this.question = new Question(item, SHOWN, this.taste);
    const many = item.slots.length > 2;
    this.tools.hidden = !this.may || !playable;
    this.pair.hidden = many;
    this.answers = h("div", { className: "said-of" }, ...opinions(item));
    this.decided = h("div", { className: "decided" });
    this.stage.replaceChildren(this.question?.element ?? h("p", { className: "notice" }, t("agreement.clips")), this.answers, this.decided);
    this.drawDecided();
    this.drawChoice();
    this.question?.start();
  }

  drawPosition() {
    const { at, total } = this.list.position(this.query);
    this.position.textContent = at ? t("agreement.position", { n: count(at), total: count(total) }) : "";
  }

  drawDecided() {
    const made = this.shown.adjudications;
    const lines = made.map((each) => h("div", { className: each.counts ? "verdict" : "verdict faint" },
      h("p", {}, h("b", {}, decision(each, this.shown.places)), " ", h("span", { className: "small faint" }, t(each.counts ? "agreement.by" : "agreement.byearlier", { by: each.by, time: moment(each.at) }))),
      each.note_html ? fill(h("div", { className: "text small" }), each.note_html) : null));
    this.decided.replaceChildren(...(made.length ? [h("h3", {}, t("agreement.decided")), ...lines.reverse()] : []));
  }

  drawChoice() {
    for (const [name, button] of Object.entries(this.choices)) button.setAttribute("aria-pressed", String(this.choice === name));
    const chosen = { left: [0], right: [1], tie: [0, 1] }[this.choice] ?? [];
    if (!this.question?.many) this.question?.panes.forEach(({ element }, place) => element.toggleAttribute("data-chosen", chosen.includes(place)));
  }

  // ---- decisions

  choose(choice) {
    if (!this.may || !this.question || this.question.many) return;
    this.choice = choice;
    this.drawChoice();
    this.tell(t("agreement.chosen"));
  }

  /** What was chosen, as the API takes it: completions by number, wherever they stood. */
  get chosen() {
    const { places } = this.shown;
    const given = { query: this.shown.query, shown_first: places[0], note: this.field.value.trim() };
    if (this.question.many) {
      const left = places.map((_, place) => place).filter((place) => !this.question.order.flat().includes(place));
      if (left.length > 1 || !this.question.order.length) return null;
      return { ...given, choice: "ranking", ranking: [...this.question.order, ...left.map((place) => [place])].map((group) => group.map((place) => places[place])) };
    }
    if (!this.choice) return null;
    return { ...given, choice: this.choice === "tie" ? "tie" : places[this.choice === "left" ? 0 : 1] === 0 ? "left" : "right" };
  }

  commit() {
    if (!this.may || !this.question) return;
    const chosen = this.chosen;
    if (!chosen) { this.tell(t(this.question.many ? "agreement.orderfirst" : "agreement.choosefirst")); return; }
    const made = { ...chosen, key: newKey(), t: Date.now() / 1000 };
    const words = decision(made, this.shown.places);
    this.list.settle(made.query);
    this.sender.put(made);
    const next = this.list.beside(made.query, 1);
    if (next) this.open(next, true);
    else { this.blank(); this.draw(this.shown); }
    this.tell(next ? t("agreement.kept", { decision: words }) : `${t("agreement.kept", { decision: words })} ${t("agreement.last")}`);
  }

  async stored({ query }) {
    this.items.delete(query);
    this.dispatchEvent(new CustomEvent("stored"));
    if (this.query !== query || !this.shown) return;
    const item = await this.item(query).catch(() => null);
    if (item && this.query === query && this.shown) { this.shown.adjudications = item.adjudications; this.drawDecided(); }
  }

  // ---- keys, which count while the desk has the focus: elsewhere arrows scroll

  onKey(event) {
    if (!isCommand(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = (action) => { event.preventDefault(); action(); };
    const { query } = this; // which a key means, also while it is still on its way
    const then = (action) => { event.preventDefault(); this.opening.then(() => this.query === query && action()); };
    const onButton = event.target instanceof HTMLButtonElement || event.target instanceof HTMLAnchorElement || event.target.tagName === "SUMMARY";
    if (key === "s") return act(() => this.step(1));
    if (key === "z" || key === "Backspace") return act(() => this.step(-1));
    if (key === "m" && this.question) return act(() => { this.taste.raw = this.question.toggleRaw(); });
    const { clips } = this.question ?? {};
    if (clips && " ,.[]".includes(key) && !(key === " " && onButton)) {
      return act({ " ": () => clips.toggle(), ",": () => clips.step(-1), ".": () => clips.step(1), "[": () => clips.faster(-1), "]": () => clips.faster(1) }[key]);
    }
    if (!this.may || this.tools.hidden) return undefined;
    if (key === "r") return act(() => this.field.focus());
    if (key === "Enter" && !onButton) return then(() => this.commit());
    if (this.question.many) {
      if (/^[1-9]$/.test(key)) return then(() => this.question?.press(Number(key)));
      return key === "=" ? then(() => this.question?.tieNext()) : undefined;
    }
    const choice = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" }[key];
    return choice ? then(() => this.choose(choice)) : undefined;
  }

  tell(text, bad = false) {
    this.said.textContent = text;
    this.said.classList.toggle("bad", bad);
  }
}
