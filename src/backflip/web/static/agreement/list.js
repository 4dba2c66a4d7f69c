// The list beside the desk: what people differ on, or what was decided already.

import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";

export class List {
  /** @param {(query: string) => void} open what to do with a question that was picked @param {() => void} clear with none */
  constructor(open, clear) {
    this.pick = open;
    this.clear = clear;
    this.entries = []; // open ones
    this.made = null; // decided ones, once somebody asked
    this.here = new Set(); // decided on this page: they keep their place, so that one finds back
    this.mode = "open";
    this.query = "";
    this.load = async () => [];
    this.tabs = { open: h("button", { type: "button", onclick: () => this.show("open") }), decided: h("button", { type: "button", onclick: () => this.show("decided") }) };
    this.items = h("ol", { className: "contested", onkeydown: (event) => this.onKey(event) });
    this.element = h("div", { className: "listing" }, h("div", { className: "row tabs-list", role: "group", "aria-label": t("agreement.which") }, this.tabs.open, this.tabs.decided), this.items);
  }

  get shown() { return this.mode === "open" ? this.entries : this.made ?? []; }
  get first() { return this.shown[0]?.query ?? ""; }
  get nothing() { return !this.entries.length && !this.count; }

  /** What is there already keeps its place, whatever a newer report lists first: whoever is in the middle is not moved. */
  update(contested, decided) {
    this.count = decided;
    const fresh = new Map(contested.map((each) => [each.query, each]));
    const stays = ({ query }) => this.here.has(query) || query === this.query || (fresh.has(query) && !fresh.get(query).decided);
    const kept = this.entries.filter(stays).map((each) => (this.here.has(each.query) ? each : fresh.get(each.query) ?? each));
    const known = new Set(kept.map((each) => each.query));
    this.entries = [...kept, ...contested.filter((each) => !each.decided && !known.has(each.query))];
    if (this.mode === "decided") this.fetch();
    else this.draw();
  }

  /** Mark a question as decided, or not after all. */
  settle(query, decided = true) {
    if (decided) this.here.add(query);
    else this.here.delete(query);
    for (const each of this.entries) if (each.query === query) each.decided = decided;
    this.draw();
  }

  async show(mode) {
    this.mode = mode;
    this.made = null;
    this.draw();
    if (mode === "decided") await this.fetch();
    if (this.first) this.pick(this.first);
    else this.clear();
  }

  async fetch() {
    const made = await this.load().catch(() => []);
    this.made = made.filter((each) => each.counts).map((each) => ({ query: each.query, excerpt: each.excerpt, by: each.by, decided: true }));
    this.draw();
  }

  mark(query) {
    this.query = query;
    this.draw();
  }

  beside(query, by) {
    const at = this.shown.findIndex((each) => each.query === query);
    return at < 0 ? "" : this.shown[at + by]?.query ?? "";
  }

  position(query) {
    return { at: this.shown.findIndex((each) => each.query === query) + 1, total: this.shown.length };
  }

  draw() {
    const left = this.entries.filter((each) => !each.decided).length;
    this.tabs.open.textContent = t("agreement.open", { n: count(left) });
    this.tabs.decided.textContent = t("agreement.done", { n: count(this.count ?? 0) });
    for (const [name, tab] of Object.entries(this.tabs)) tab.setAttribute("aria-pressed", String(name === this.mode));
    const focused = this.items.contains(document.activeElement);
    const { scrollTop } = this.items;
    const reached = this.shown.some((each) => each.query === this.query) ? this.query : this.first;
    this.items.replaceChildren(...this.shown.map((each) => h("li", {}, h("button", { type: "button", tabIndex: each.query === reached ? 0 : -1, "aria-current": each.query === this.query ? "true" : null, onclick: () => this.pick(each.query) },
      h("span", { className: "excerpt", dir: "auto" }, each.excerpt || t("agreement.noprompt")), h("span", { className: "small faint number" }, this.told(each))))));
    this.items.scrollTop = scrollTop;
    const current = this.items.querySelector("[aria-current]");
    if (focused) current?.focus();
    if (current && (current.offsetTop < this.items.scrollTop || current.offsetTop + current.offsetHeight > this.items.scrollTop + this.items.clientHeight)) this.items.scrollTop = current.offsetTop - 40;
  }

  told(each) {
    if (each.by) return t("agreement.decidedby", { by: each.by });
    const split = `${count(each.split[0])} : ${count(each.split[1])}`;
    const said = each.ties ? t("agreement.splitties", { split, n: count(each.ties) }) : t("agreement.split", { split });
    return each.decided ? `✓ ${t("agreement.settled")}` : said;
  }

  /** Up and down go through the list; only one entry is on the way of the Tab key. */
  onKey(event) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const buttons = [...this.items.querySelectorAll("button")];
    const next = { Home: buttons[0], End: buttons.at(-1) }[event.key] ?? (by ? buttons[buttons.indexOf(document.activeElement) + by] : null);
    if (!next) return;
    event.preventDefault();
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  }
}
