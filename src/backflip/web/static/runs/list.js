// The runs there are, the newest first. The line before a name draws the run or takes it away; the name makes it the one spoken of.

import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { swatch } from "../lib/chart.js";
import { MOST, ordered } from "./selection.js";
import { age, figures, stateOf } from "./words.js";

const MANY = 10; // runs from which on a field to look for one is worth its room

export class List {
  constructor(feed, selection) {
    this.feed = feed;
    this.selection = selection;
    this.items = new Map();
    this.count = h("span", { className: "faint number" });
    this.search = h("input", { type: "search", placeholder: t("runs.find"), "aria-label": t("runs.find"), oninput: () => this.filter() });
    this.rows = h("ul", { className: "runlist" });
    this.bulk = h("div", { className: "row small" },
      h("button", { type: "button", className: "quiet", onclick: () => selection.newest() }, t("runs.newest")),
      h("button", { type: "button", className: "quiet", onclick: () => selection.choose(this.found.filter((card) => card.step !== null).map((card) => card.id)) }, t("runs.all")),
      h("button", { type: "button", className: "quiet", onclick: () => selection.choose([]) }, t("runs.none")));
    this.element = h("details", { className: "card list", open: !matchMedia("(max-width: 700px)").matches }, h("summary", {}, h("h2", {}, t("title.runs")), this.count), this.search, this.bulk, this.rows);
  }

  /** The runs that the search field lets through. */
  get found() {
    const wanted = this.search.value.trim().toLowerCase();
    return ordered(this.feed.cards).filter((card) => `${card.name} ${card.kind}`.toLowerCase().includes(wanted));
  }

  draw() {
    const cards = ordered(this.feed.cards);
    for (const [id, item] of this.items) if (!this.feed.cards.has(id)) { item.element.remove(); this.items.delete(id); }
    for (const card of cards) {
      if (!this.items.has(card.id)) this.items.set(card.id, this.item(card));
      this.update(this.items.get(card.id), card);
    }
    const order = cards.map((card) => this.items.get(card.id).element);
    // Moving an element takes the focus from what is in it, so nothing is moved while the order is right.
    if (order.some((element, i) => this.rows.children[i] !== element)) {
      const focused = document.activeElement;
      this.rows.replaceChildren(...order);
      if (this.rows.contains(focused)) focused.focus();
    }
    this.search.hidden = cards.length <= MANY;
    this.count.textContent = t("runs.shown", { n: count(this.selection.slots.size), total: count(cards.length) });
    this.filter();
  }

  filter() {
    const found = new Set(this.found.map((card) => card.id));
    for (const [id, { element }] of this.items) element.hidden = !found.has(id);
  }

  item(card) {
    const { id, name } = card;
    const show = h("button", { type: "button", className: "show", onclick: () => this.selection.toggle(id) });
    const [, above, last] = /^(.*\/)?([^/]*)$/.exec(name);
    const speak = h("button", { type: "button", className: "speak", onclick: () => this.selection.speakOf(id) }, h("span", { className: "faint" }, above ?? ""), h("b", {}, last));
    const state = h("span", { className: "state" });
    const kind = h("span", {}, card.kind);
    const line = h("span", { className: "number" });
    return { show, speak, state, kind, line, element: h("li", {}, show, h("div", { className: "about" }, speak, h("p", {}, state, kind), h("p", {}, line))) };
  }

  update({ show, speak, state, kind: sort, line, element }, card) {
    const slot = this.selection.slots.get(card.id);
    const drawn = slot !== undefined;
    const [kind, words] = stateOf(card, this.feed.now);
    set(show, "aria-pressed", String(drawn));
    set(show, "aria-label", t("runs.show", { name: card.name }));
    show.disabled = card.step === null || (!drawn && this.selection.slots.size >= MOST);
    if (show.dataset.slot !== String(slot)) { show.dataset.slot = String(slot); show.replaceChildren(drawn ? swatch(slot) : h("span", { className: "off" })); }
    if (card.id === this.selection.focus) speak.setAttribute("aria-current", "true"); else speak.removeAttribute("aria-current");
    set(state, "data-state", kind);
    text(state, words);
    text(sort, [card.kind, age(card, this.feed.now)].filter(Boolean).join(" · "));
    text(line, figures(card, this.feed.now).join(" · "));
    element.classList.toggle("damaged", Boolean(card.damaged));
    element.title = card.damaged;
  }

  /** Speak of the next run (+1) or the one before (−1). */
  step(by) {
    const ids = this.found.map((card) => card.id);
    const to = ids[Math.min(ids.length - 1, Math.max(0, ids.indexOf(this.selection.focus) + by))];
    if (!to) return;
    this.selection.speakOf(to);
    this.items.get(to).speak.focus();
  }
}

const set = (element, name, value) => { if (element.getAttribute(name) !== value) element.setAttribute(name, value); };
const text = (element, value) => { if (element.textContent !== value) element.textContent = value; };
