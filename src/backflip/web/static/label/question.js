// One question as an element: the prompt, its completions, and what is chosen so far. Knows nothing of servers.

import { fill, h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { board } from "./boards.js";
import { Clips } from "./clips.js";

export const HIGHEST = 7;

export class Question {
  /** @param {any} item what `/claims` gives @param {any} project @param {{raw: boolean}} taste */
  constructor(item, project, taste) {
    this.item = item;
    this.project = project;
    this.raw = taste.raw;
    this.many = item.slots.length > 2 || project.answers === "rate";
    this.order = []; // groups of places, best first, while ranking
    this.scores = item.slots.map(() => 0); // while rating
    this.focus = 0;
    this.note = "";
    this.seen = { scrolled: 0, reversals: 0 };
    this.panes = item.slots.map((slot, place) => this.pane(slot, place));
    this.text = h("div", { className: "text", tabIndex: 0, dir: "auto" });
    this.prompt = h("details", { className: "prompt", open: true }, h("summary", {}, t("label.prompt")), this.text);
    this.grid = h("div", { className: "panes", dataset: { count: this.many ? "many" : "two" } }, ...this.panes.map((pane) => pane.element));
    this.element = h("div", { className: "labelling" }, item.prompt_raw ? this.prompt : null, this.grid);
    this.clips = item.form === "clip" ? new Clips(this.panes.map((pane) => pane.video)) : null;
    if (this.clips) this.element.append(this.clips.controls);
    this.strip = this.many && project.answers === "compare" ? h("div", { className: "order", "aria-live": "polite" }) : null;
    if (this.strip) { this.element.append(this.strip); this.drawOrder(); }
    this.drawText();
  }

  name(place) {
    return this.many ? String(place + 1) : t(place ? "label.right" : "label.left");
  }

  pane(slot, place) {
    const header = h("header", {}, h("span", { className: "place" }, this.name(place)));
    const element = h("section", { className: "pane", "aria-label": t("label.completion", { place: this.name(place) }), dataset: { place: String(place) } }, header);
    const pane = { element, slot, text: null, video: null };
    if (this.item.form === "clip") {
      pane.video = h("video", { muted: true, playsInline: true, preload: "auto", src: `/api/v1/media/${slot.media}`, disablePictureInPicture: true });
      element.append(pane.video);
    } else if (slot.board) {
      element.append(board(slot.board));
    } else {
      pane.text = h("div", { className: "text", tabIndex: 0, dir: "auto" });
      pane.text.addEventListener("scroll", () => this.scrolled(pane), { passive: true });
      element.append(pane.text);
    }
    if (this.project.answers === "rate") element.append(this.scale(place));
    else if (this.many) {
      element.tabIndex = 0;
      element.addEventListener("click", () => { if (!getSelection().toString()) this.rank(place); });
    }
    return pane;
  }

  scale(place) {
    const buttons = Array.from({ length: HIGHEST }, (_, i) => h("button", { type: "button", "aria-pressed": "false", onclick: () => this.rate(place, i + 1) }, String(i + 1)));
    return h("div", { className: "scale", role: "group", "aria-label": t("label.scale", { place: this.name(place) }) }, ...buttons);
  }

  drawText() {
    const { item, raw } = this;
    this.text.classList.toggle("raw", raw);
    if (raw) this.text.textContent = item.prompt_raw; else fill(this.text, item.prompt_html);
    for (const { text, slot } of this.panes) {
      if (!text) continue;
      text.classList.toggle("raw", raw);
      if (raw) text.textContent = slot.raw; else fill(text, slot.html);
      if (!slot.raw) text.textContent = t("label.nothing");
    }
  }

  toggleRaw() {
    this.raw = !this.raw;
    this.drawText();
    return this.raw;
  }

  scrolled(pane) {
    const { scrollTop, scrollHeight, clientHeight } = pane.text;
    if (scrollTop + clientHeight >= scrollHeight - 4) this.seen.scrolled |= 1 << this.panes.indexOf(pane);
  }

  /** A clip cannot be played: its pane says so, whatever the others do. */
  drawBroken() {
    const pane = this.panes[this.clips.broken];
    if (!pane.element.querySelector(".error")) pane.element.append(h("p", { className: "error" }, t("label.clipbroken", { place: this.name(this.clips.broken) })));
  }

  // ---- ranking

  rank(place, tied = false) {
    if (place >= this.panes.length || this.order.flat().includes(place)) return;
    if (tied && this.order.length) this.order.at(-1).push(place);
    else this.order.push([place]);
    this.drawOrder();
  }

  tieNext() {
    if (this.order.length) { this.tied = true; this.drawOrder(); }
  }

  press(digit) {
    this.rank(digit - 1, this.tied);
    this.tied = false;
    this.drawOrder();
  }

  unrank() {
    const last = this.order.at(-1);
    if (!last) return false;
    last.pop();
    if (!last.length) this.order.pop();
    this.tied = false;
    this.drawOrder();
    return true;
  }

  /** Move a placed completion by one group, up (−1) or down (+1). */
  shift(place, by) {
    const from = this.order.findIndex((group) => group.includes(place));
    const to = from + by;
    if (from < 0 || to < 0 || to >= this.order.length) return;
    this.seen.reversals += 1;
    this.order[from] = this.order[from].filter((other) => other !== place);
    this.order.splice(by > 0 ? to + 1 : to, 0, [place]);
    this.order = this.order.filter((group) => group.length);
    this.drawOrder();
    this.strip.querySelector(`[data-place="${place}"]`)?.focus();
  }

  drawOrder() {
    if (!this.strip) return;
    const chips = this.order.flatMap((group, g) => [g ? h("span", { className: "faint" }, ">") : null, ...group.flatMap((place, i) => [i ? h("span", { className: "faint" }, "=") : null, this.chip(place)])]);
    const all = this.order.flat().length === this.panes.length;
    this.strip.replaceChildren(...[...chips, this.tied ? h("span", { className: "faint" }, "=") : null, all ? null : h("span", { className: "faint small" }, t(chips.length ? "label.ranknext" : "label.rankfirst"))].filter(Boolean));
    for (const { element } of this.panes) element.toggleAttribute("data-chosen", this.order.flat().includes(Number(element.dataset.place)));
  }

  chip(place) {
    const chip = h("button", { type: "button", className: "chip", draggable: true, dataset: { place: String(place) }, "aria-label": t("label.placed", { place: this.name(place) }) }, this.name(place));
    chip.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); event.stopPropagation(); this.shift(place, by); }
    });
    chip.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", String(place)));
    chip.addEventListener("dragover", (event) => event.preventDefault());
    chip.addEventListener("drop", (event) => {
      event.preventDefault();
      const moved = Number(event.dataTransfer.getData("text/plain"));
      if (moved === place) return;
      this.order = this.order.map((group) => group.filter((other) => other !== moved)).filter((group) => group.length);
      this.order.splice(this.order.findIndex((group) => group.includes(place)), 0, [moved]);
      this.seen.reversals += 1;
      this.drawOrder();
    });
    return chip;
  }

  // ---- rating

  rate(place, score) {
    if (this.scores[place]) this.seen.reversals += 1;
    this.scores[place] = score;
    this.focus = Math.min(this.panes.length - 1, place + 1);
    this.panes[place].element.querySelectorAll(".scale button").forEach((button, i) => button.setAttribute("aria-pressed", String(i + 1 === score)));
    this.drawFocus();
  }

  drawFocus() {
    this.panes.forEach(({ element }, place) => element.toggleAttribute("data-chosen", this.project.answers === "rate" && place === this.focus));
  }

  // ---- on the page

  start() {
    this.began = performance.now();
    this.clips?.start();
    if (this.project.answers === "rate") this.drawFocus();
    for (const pane of this.panes) if (pane.text && pane.text.scrollHeight <= pane.text.clientHeight + 4) this.seen.scrolled |= 1 << this.panes.indexOf(pane);
  }

  stop() {
    this.clips?.stop();
  }

  /** Why it cannot be answered yet, as the key of a string; "" if it can. */
  get notYet() {
    if (!this.clips || this.clips.broken !== null) return "";
    return this.project.whole_clip && !this.clips.seen ? "label.watch" : "";
  }

  /** How the person looked, for the record. */
  look() {
    return { scrolled: this.seen.scrolled, reversals: this.seen.reversals, plays: this.clips?.plays ?? 0, raw: Number(this.raw) };
  }
}
