// Questions one after another: the key is the submit. The next ones are in memory already, so the next paint waits for nobody.

import { ApiError, get, post } from "../lib/api.js";
import { dialog, fill, h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { newKey, Outbox } from "../lib/outbox.js";
import { connection, isCommand, person, signInAgain } from "../lib/shell.js";
import { offer } from "../lib/starter.js";
import { HIGHEST, Question } from "./question.js";

const HISTORY = 50;
const HEARTBEAT_MS = 60_000;
const SKIPS = ["language", "unsafe", "broken", "duplicate", "cannot", "other"];
export const KEYS = [
  ["← →", "keys.better"], ["Shift ←", "keys.much"], ["↓", "keys.equal"], ["G", "keys.good"], ["X", "keys.bad"], ["S 1 … 6", "keys.skip"],
  ["Z Backspace", "keys.undo"], ["Y", "keys.redo"], ["1 … 9 =", "keys.rank"], ["Enter", "keys.enter"], ["Space , .", "keys.clips"], ["[ ]", "keys.speed"],
  ["R", "keys.note"], ["E", "keys.edit"], ["M", "keys.raw"], ["F", "keys.flag"], ["I", "keys.guideline"],
];

export class Labeller {
  /** @param {HTMLElement} root @param {any} project what `/projects/ID` gives @param {Outbox} [outbox] */
  constructor(root, project, outbox = new Outbox(person)) {
    this.root = root;
    this.project = project;
    this.outbox = outbox;
    this.buffer = []; // questions ahead, the first is on the page
    this.past = []; // {question, event} that can be undone, newest last
    this.undone = []; // what redo brings back
    this.rail = [];
    this.times = [];
    this.fast = 0;
    this.counts = { total: 0, answered: 0, open: 0 };
    this.acts = 0; // answers and undone ones, which this page counts before the server does
    this.taste = { raw: localStorage.getItem("backflip raw") === "1" };
    this.chain = Promise.resolve();
    this.fetching = null;
    this.failure = null;
    this.skipping = false;
    this.build();
  }

  build() {
    const rate = this.project.answers === "rate";
    this.stage = h("div", { className: "labelling" });
    this.line = fill(h("div", { className: "question" }), this.project.question_html || "");
    if (!this.project.question) this.line.textContent = t(rate ? "label.ratequestion" : "label.question");
    const button = (label, key, action, extra = {}) => h("button", { type: "button", onclick: action, ...extra }, t(label), h("kbd", {}, key));
    this.pairButtons = h("div", { className: "answers" },
      button("label.leftbetter", "←", (event) => this.do(() => this.prefer(0, event.shiftKey ? 4 : 2)), { className: "side" }), button("label.equal", "↓", () => this.do(() => this.tie("equal"))),
      button("label.bothgood", "G", () => this.do(() => this.tie("good"))), button("label.bothbad", "X", () => this.do(() => this.tie("bad"))),
      button("label.rightbetter", "→", (event) => this.do(() => this.prefer(1, event.shiftKey ? 4 : 2)), { className: "side" }));
    this.manyButtons = h("div", { className: "answers many" }, button("label.done", "Enter", () => this.do(() => this.commit()), { className: "main" }));
    this.more = h("div", { className: "answers more small" }, button("label.skip", "S", () => this.toggleSkips()), this.project.reveal ? null : button("label.undo", "Z", () => this.do(() => this.undo())),
      button("label.note", "R", () => this.note()), button("label.edit", "E", () => this.edit()), button("label.raw", "M", () => this.toggleRaw()), button("label.flag", "F", () => this.flag()), button("label.guideline", "I", () => this.guideline()));
    this.skips = h("div", { className: "skips", hidden: true, role: "group", "aria-label": t("label.skip") }, ...SKIPS.map((code, i) => button(`skip.${code}`, String(i + 1), () => this.do(() => this.skip(i)))));
    this.tray = h("div", { className: "tray", hidden: true });
    this.said = h("p", { className: "reveal", role: "status", hidden: !this.project.reveal });
    this.railElement = h("span", { className: "rail", role: "img", "aria-label": t("label.rail") });
    this.progress = h("span", { className: "number" });
    this.hint = h("span", {});
    this.attention = h("button", { type: "button", className: "quiet warn", hidden: true, onclick: () => this.showAttention() });
    this.foot = h("div", { className: "foot" }, this.progress, this.railElement, this.hint, this.attention);
    this.bottom = h("div", { className: "bottom" }, this.said, this.line, this.pairButtons, this.manyButtons, this.skips, this.more);
    this.root.replaceChildren(this.stage, this.tray, this.bottom, this.foot);
  }

  async start() {
    showOutbox(this.outbox);
    this.outbox.addEventListener("state", (event) => this.drawTrouble(event.detail));
    this.outbox.addEventListener("refused", () => this.drawAttention());
    this.outbox.addEventListener("stored", (event) => this.stored(event.detail));
    document.addEventListener("keydown", (event) => this.onKey(event));
    document.addEventListener("mouseup", () => this.offerSpan());
    document.addEventListener("backflip:signedin", () => this.fill());
    await this.outbox.open();
    setInterval(() => this.heartbeat(), HEARTBEAT_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.heartbeat(); });
    this.drawAttention();
    await this.fill();
  }

  get current() { return this.buffer[0]; }
  /** How many questions to hold: a few ahead, more for whoever is quick. */
  get wanted() { return this.times.length > 2 && this.median < 1000 ? 24 : 6; }
  get median() { return this.times.length ? [...this.times].sort((a, b) => a - b)[this.times.length >> 1] : 0; }

  /** Do one thing after the other, so that a key always means what is on the page. */
  do(action) {
    this.chain = this.chain.then(action).catch((problem) => this.tell(problem instanceof ApiError ? problem.message : String(problem)));
    return this.chain;
  }

  // ---- questions

  fill() {
    if (this.fetching || this.buffer.length >= this.wanted) return this.fetching ?? Promise.resolve();
    this.fetching = this.fetch().finally(() => {
      this.fetching = null;
      if (this.buffer.length && this.buffer.length < this.wanted / 2 && this.counts.open > this.buffer.length && !this.failure) this.fill();
    });
    return this.fetching;
  }

  async fetch() {
    clearTimeout(this.retry);
    const known = [...new Set([...this.buffer.map((question) => question.item.view), ...(await this.outbox.views())])].slice(-64);
    const { acts } = this;
    const stored = !this.outbox.waiting;
    try {
      const said = await post(`/projects/${this.project.id}/claims`, { n: this.wanted - this.buffer.length + 1, have: known, counts: !this.counted || this.buffer.length < 2 });
      this.failure = null;
      if (said.counts) {
        const whole = stored && acts === this.acts; // what the server counted lacks nothing that was done here
        if (whole || !this.counts.total) this.counts = said.counts;
        this.counted = whole;
      }
      const waiting = new Set([...this.buffer.map((question) => question.item.view), ...(await this.outbox.views())]);
      const empty = !this.current;
      for (const item of said.items) if (!waiting.has(item.view) && !this.past.some(({ question }) => question.item.view === item.view)) this.buffer.push(this.question(item));
      if (empty) this.paint();
      if (!this.current) this.retry = setTimeout(() => this.fill(), 4000);
    } catch (problem) {
      this.failure = problem;
      if (problem.status === 401) signInAgain();
      else this.retry = setTimeout(() => this.fill(), (problem.wait || 3) * 1000);
      if (!this.current) this.paint();
    }
    this.drawFoot();
  }

  question(item) {
    const question = new Question(item, this.project, this.taste);
    question.element.addEventListener("broken", () => {
      question.drawBroken();
      if (question === this.current) this.toggleSkips(true);
    });
    return question;
  }

  paint() {
    const question = this.current;
    this.toggleSkips(false);
    this.tray.hidden = true;
    const many = question?.many ?? false;
    this.bottom.hidden = !question;
    this.pairButtons.hidden = many;
    this.manyButtons.hidden = !many;
    if (question) this.bottom.prepend(this.said);
    else this.stage.after(this.said);
    if (!question) { this.stage.removeAttribute("data-answers-g"); this.drawEmpty(); this.drawFoot(); return; }
    this.stage.replaceChildren(question.element);
    this.stage.toggleAttribute("data-answers-g", !many);
    question.start();
    if (question.clips?.broken !== undefined && question.clips?.broken !== null) this.toggleSkips(true);
    this.drawFoot();
  }

  /** What is said where there is nothing to do stays as long as it is true, so that a button in it keeps the focus. */
  drawEmpty() {
    const said = this.empty();
    if (said.textContent !== this.stage.textContent) this.stage.replaceChildren(said);
  }

  empty() {
    const said = (title, ...rest) => h("div", { className: "empty" }, h("h1", {}, t(title)), ...rest.map((text) => h("p", {}, text)));
    if (this.failure && this.failure.status !== 401) return said(this.failure.status ? "label.trouble" : "label.waiting", this.failure.status ? this.failure.message : t("label.nothinglost"));
    if (!this.counts.total) {
      const box = said("label.noquestions", t("label.noquestionsmore"));
      // The starter set does not say who wrote what, which is what a project that reveals is for.
      box.append((this.project.reveal ? null : offer(this.project.id, () => this.fill())) ?? "");
      return box;
    }
    if (this.counts.open) return said("label.others", t("label.othersmore", { n: count(this.counts.open) }));
    return said("label.alldone", t("label.alldonemore", { n: count(this.counts.answered), total: count(this.counts.total) }));
  }

  // ---- answers

  groups(order) { return order.map((group) => group.map((place) => this.current.item.slots[place].handle)); }
  prefer(place, strength) { return this.current && !this.current.many && this.answer({ choice: place ? "right" : "left", groups: this.groups([[place], [1 - place]]), strength }); }
  tie(code) { return this.current && !this.current.many && this.answer({ choice: "tie", groups: this.groups([[0, 1]]), code }); }
  skip(i) { return this.current && this.answer({ choice: "skip", groups: [], code: SKIPS[i] }); }

  commit() {
    const question = this.current;
    if (!question?.many) return undefined;
    if (this.project.answers === "rate") {
      if (question.scores.some((score) => !score)) return this.tell(t("label.ratemissing"));
      return this.answer({ choice: "rating", groups: [], scores: Object.fromEntries(question.item.slots.map((slot, i) => [slot.handle, question.scores[i]])) });
    }
    const left = question.panes.map((_, place) => place).filter((place) => !question.order.flat().includes(place));
    if (left.length > 1) return this.tell(t("label.rankmissing"));
    return this.answer({ choice: "ranking", groups: this.groups([...question.order, ...left.map((place) => [place])]) });
  }

  async answer({ choice, ...given }) {
    const question = this.current;
    if (question.notYet && choice !== "skip") { this.tell(t(question.notYet)); return; }
    const ms = Math.round(performance.now() - question.began);
    const event = { kind: "answer", key: newKey(), view: question.item.view, t: Date.now() / 1000, ms, note: question.note, seen: question.look(), ...given };
    await this.outbox.put(event);
    question.stop();
    this.buffer.shift();
    this.past.push({ question, event, choice });
    if (this.past.length > HISTORY) this.past.shift();
    this.undone = [];
    this.rail.push(choice);
    this.times.push(ms);
    if (this.times.length > 50) this.times.shift();
    this.acts += 1;
    this.counts.answered += 1;
    this.counts.open -= 1;
    this.fast = ms < this.project.floor_ms ? this.fast + 1 : 0;
    this.drawHint();
    this.tellWho("");
    this.paint();
    this.fill();
  }

  async undo() {
    if (this.current?.order.length && this.current.unrank()) return;
    if (this.project.reveal) { this.tell(t("arena.stands")); return; } // they know by now who wrote what
    const last = this.past.pop();
    if (!last) { this.tell(t("label.nothingtoundo")); return; }
    await this.outbox.put({ kind: "undo", key: newKey(), view: last.question.item.view, t: Date.now() / 1000 });
    this.current?.stop();
    this.undone.push(last);
    this.rail.pop();
    this.acts += 1;
    this.counts.answered -= 1;
    this.counts.open += 1;
    this.buffer.unshift(last.question);
    this.tellWho("");
    this.paint();
  }

  async redo() {
    const last = this.undone.pop();
    if (!last || last.question !== this.current) return;
    const rest = this.undone;
    const { kind, key, view, t: when, ms, note, seen, ...given } = last.event;
    await this.answer({ choice: last.choice, ...given });
    this.undone = rest;
  }

  // ---- keys

  onKey(event) {
    if (!isCommand(event)) return;
    const question = this.current;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = (action) => { event.preventDefault(); action(); };
    if (this.skipping && /^[1-6]$/.test(key)) return act(() => this.do(() => this.skip(Number(key) - 1)));
    if (key === "z" || key === "Backspace") return act(() => this.do(() => this.undo()));
    if (key === "y") return act(() => this.do(() => this.redo()));
    if (!question) return undefined;
    const simple = { s: () => this.toggleSkips(), r: () => this.note(), e: () => this.edit(), m: () => this.toggleRaw(), f: () => this.flag(), i: () => this.guideline() };
    if (simple[key]) return act(simple[key]);
    if (question.clips) {
      const clips = { " ": () => question.clips.toggle(), ",": () => question.clips.step(-1), ".": () => question.clips.step(1), "[": () => question.clips.faster(-1), "]": () => question.clips.faster(1) };
      if (clips[key] && !(key === " " && event.target instanceof HTMLButtonElement)) return act(clips[key]);
    }
    if (question.many) {
      if (key === "Enter" && !(event.target instanceof HTMLButtonElement)) return act(() => this.do(() => this.commit()));
      if (this.project.answers === "rate") {
        if (/^[1-9]$/.test(key) && Number(key) <= HIGHEST) return act(() => question.rate(question.focus, Number(key)));
        const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key];
        if (by) return act(() => { question.focus = Math.min(question.panes.length - 1, Math.max(0, question.focus + by)); question.drawFocus(); });
        return undefined;
      }
      if (/^[1-9]$/.test(key)) return act(() => question.press(Number(key)));
      if (key === "=") return act(() => question.tieNext());
      return undefined;
    }
    const pair = {
      ArrowLeft: () => this.prefer(0, event.shiftKey ? 4 : 2), ArrowRight: () => this.prefer(1, event.shiftKey ? 4 : 2),
      ArrowDown: () => this.tie("equal"), g: event.shiftKey ? null : () => this.tie("good"), x: () => this.tie("bad"),
    };
    return pair[key] ? act(() => this.do(pair[key])) : undefined;
  }

  // ---- what can be added to an answer

  toggleSkips(show = !this.skipping) {
    this.skipping = show;
    this.skips.hidden = !show;
  }

  toggleRaw() {
    this.taste.raw = !this.taste.raw;
    localStorage.setItem("backflip raw", this.taste.raw ? "1" : "0");
    for (const question of this.buffer) if (question.raw !== this.taste.raw) question.toggleRaw();
  }

  /** A field under the panes; Ctrl+Enter keeps it and Escape leaves. */
  ask(label, value, keep, ...before) {
    const field = h("textarea", { value, maxLength: 4000, "aria-label": label, placeholder: label });
    const close = () => { this.tray.hidden = true; this.root.closest("main")?.focus(); };
    const done = () => { keep(field.value); close(); };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") { event.preventDefault(); close(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); done(); }
    });
    this.tray.replaceChildren(...before, field, h("div", { className: "row" }, h("button", { type: "button", className: "main", onclick: done }, t("shell.keep"), h("kbd", {}, "Ctrl Enter")), h("button", { type: "button", onclick: close }, t("shell.cancel"), h("kbd", {}, "Esc"))));
    this.tray.hidden = false;
    field.focus();
    return field;
  }

  note() {
    const question = this.current;
    if (question) this.ask(t("label.noteprompt"), question.note, (text) => { question.note = text.trim(); });
  }

  edit() {
    const question = this.current;
    if (!question || question.item.form !== "text") return;
    let place = 0;
    const field = this.ask(t("label.editprompt"), question.item.slots[0].raw, (text) => {
      if (text !== question.item.slots[place].raw) this.send({ kind: "edit", view: question.item.view, handle: question.item.slots[place].handle, text });
    }, h("label", {}, t("label.editwhich"), h("select", { onchange: (event) => { place = Number(event.target.value); field.value = question.item.slots[place].raw; } }, ...question.item.slots.map((_, i) => h("option", { value: String(i) }, question.name(i))))));
    field.maxLength = 60000;
  }

  flag() {
    const question = this.current;
    if (question) this.ask(t("label.flagprompt"), "", (note) => this.send({ kind: "flag", view: question.item.view, note }));
  }

  guideline() {
    const layer = dialog(t("label.guideline"), fill(h("div", { className: "text" }), this.project.guideline_html || ""), this.project.guideline_html ? null : h("p", {}, t("label.noguideline")), h("button", { type: "button", onclick: () => layer.close() }, t("shell.close")));
  }

  send(event) {
    return this.do(async () => { await this.outbox.put({ key: newKey(), t: Date.now() / 1000, ...event }); this.tell(t("label.kept")); });
  }

  /** A stretch of text was selected: offer to tag it. */
  offerSpan() {
    const selection = getSelection();
    const question = this.current;
    if (!question || !selection.rangeCount || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    const pane = question.panes.find(({ text }) => text?.contains(range.commonAncestorContainer));
    if (!pane) return;
    const before = range.cloneRange();
    before.selectNodeContents(pane.text);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    const end = start + range.toString().length;
    const quote = range.toString().slice(0, 80);
    this.ask(t("label.spanprompt"), "", (tag) => {
      if (tag.trim()) this.send({ kind: "span", view: question.item.view, handle: pane.slot.handle, start, end, of: question.raw ? "raw" : "rendered", tag: tag.trim().slice(0, 200) });
    }, h("p", { className: "small" }, "“", h("span", { className: "mark" }, quote), "”"));
  }

  // ---- what is said

  stored({ outcome }) {
    if (outcome.status === "late") this.tell(t("label.late"));
    const names = Object.entries(outcome.reveal);
    if (!names.length) return;
    const entry = this.past.find(({ question }) => question.item.slots.some((slot) => slot.handle in outcome.reveal));
    if (!entry) return;
    this.tellWho(`${t("arena.lastbattle")}: ` + entry.question.item.slots.map((slot, place) => t("label.revealed", { place: entry.question.name(place), policy: outcome.reveal[slot.handle] ?? "?" })).join(" · "));
  }

  /** Who wrote what; its line is always there where that is ever told, so that nothing moves under a finger. */
  tellWho(text) {
    this.said.textContent = text;
  }

  tell(text) {
    this.hint.textContent = text;
  }

  /** A full disk is said for as long as it lasts. */
  drawTrouble({ state, problem }) {
    const before = this.full ?? false;
    if (problem) this.full = problem.status === 507;
    if (state === "saved") this.full = false;
    if ((this.full ?? false) !== before) this.drawHint(); // otherwise what was said last stays
  }

  drawHint() {
    this.hint.textContent = this.full ? t("label.fulldisk") : this.fast >= 3 ? t("label.fast") : "";
  }

  drawFoot() {
    const { total, answered } = this.counts;
    const pace = this.times.length ? t("label.pace", { s: (this.median / 1000).toFixed(1) }) : "";
    this.progress.textContent = total ? `${t("label.progress", { n: count(answered), total: count(total) })}${pace ? ` · ${pace}` : ""}` : "";
    this.railElement.replaceChildren(...this.rail.slice(-HISTORY).map((choice) => h("i", { dataset: { choice } })));
  }

  async drawAttention() {
    const n = (await this.outbox.attention()).length;
    this.attention.hidden = !n;
    this.attention.textContent = t("label.attention", { n: count(n) });
  }

  async showAttention() {
    const entries = await this.outbox.attention();
    const list = h("ul", {}, ...entries.map(({ event, error }) => h("li", {}, h("code", {}, event.kind), " ", error)));
    const copy = () => navigator.clipboard?.writeText(JSON.stringify(entries, null, 1));
    const layer = dialog(t("label.attention", { n: count(entries.length) }), h("p", {}, t("label.attentionmore")), list,
      h("div", { className: "row" }, h("button", { type: "button", onclick: copy }, t("shell.copy")), h("button", { type: "button", className: "danger", onclick: async () => { await this.outbox.clearAttention(); layer.close(); this.drawAttention(); } }, t("shell.dismiss")), h("button", { type: "button", onclick: () => layer.close() }, t("shell.close"))));
  }

  async heartbeat() {
    if (document.hidden || !this.buffer.length) return;
    const views = this.buffer.map((question) => question.item.view);
    await post("/heartbeat", { views }).catch(() => {});
  }
}

/** Show on the connection dot how an outbox is doing, and ask whoever was signed out to sign in. */
function showOutbox(outbox) {
  if (outbox.shown) return;
  outbox.shown = true;
  outbox.addEventListener("signedout", () => signInAgain());
  outbox.addEventListener("state", ({ detail: { state, waiting } }) => {
    const text = state === "saved" && !waiting ? t("shell.saved") : t(state === "offline" ? "shell.offline" : "shell.sending", { n: count(waiting) });
    connection(state === "saved" && waiting ? "waiting" : state, text);
  });
}

/** This person's outbox, opened: whatever an earlier page left in it is on its way. */
export async function openOutbox() {
  const outbox = new Outbox(person);
  showOutbox(outbox);
  await outbox.open();
  return outbox;
}

/** What a project is, for whoever labels. */
export const projectOf = (id) => get(`/projects/${encodeURIComponent(id)}`);
