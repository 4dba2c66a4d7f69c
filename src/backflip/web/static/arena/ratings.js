// Ratings: who stands where and how surely, never a number without its interval and count.

import { get, post } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { ago, count, percent, t } from "../lib/i18n.js";
import { connection, permissions, signInAgain } from "../lib/shell.js";
import { bar, byGeneration, extent, ground } from "./figures.js";

const LEAST = 10; // votes below which there are only counts
const FEW = 5; // pairs that are shown without being asked for
const SOON_MS = 1500;
const LATER_MS = 10_000;
const BY = ["all", "people", "machines"];
const LENGTHS = ["raw", "controlled"];

/** @param {HTMLElement} room */
export function ratings(room) {
  return new Ratings(room).start();
}

class Ratings {
  constructor(room) {
    const asked = new URLSearchParams(location.search);
    this.by = BY.includes(asked.get("by")) ? asked.get("by") : "all";
    this.length = LENGTHS.includes(asked.get("length")) ? asked.get("length") : "raw";
    this.anchor = asked.get("anchor"); // null: the usual one; "": the mean
    this.offers = [];
    this.drawn = "";
    this.made = h("p", { className: "small faint", role: "status" }, t("arena.computing"));
    this.trouble = h("p", { className: "error", role: "alert", hidden: true });
    this.added = h("p", { className: "notice", role: "status", hidden: true });
    this.choose = h("select", { onchange: (event) => this.change({ anchor: event.target.value }) });
    this.anchorField = h("label", { className: "choice" }, h("span", { className: "faint small" }, t("arena.anchor")), this.choose);
    this.body = h("div", { className: "stack" });
    this.more = h("section", { className: "card more", "aria-labelledby": "more-title", hidden: true });
    this.controls = h("div", { className: "row controls" },
      this.buttons("by", BY, "arena.whose", (value) => `arena.by.${value}`), this.buttons("length", LENGTHS, "arena.length", (value) => `arena.length.${value}`), this.anchorField);
    room.append(h("div", { className: "stack" }, this.controls, this.made, this.trouble, this.added, this.body, this.more));
  }

  /** Buttons of which one is pressed. */
  buttons(name, values, label, key) {
    const all = values.map((value) => h("button", { type: "button", "aria-pressed": String(this[name] === value), onclick: () => {
      all.forEach((button, i) => button.setAttribute("aria-pressed", String(values[i] === value)));
      this.change({ [name]: value });
    } }, t(key(value))));
    const id = `choice-${name}`;
    return h("div", { className: "choice", role: "group", "aria-labelledby": id, title: name === "by" ? t("arena.whosemore") : "" }, h("span", { id, className: "faint small" }, t(label)), h("span", { className: "segments" }, ...all));
  }

  start() {
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.load(); });
    document.addEventListener("backflip:signedin", () => { this.load(); this.loadOffers(); });
    new ResizeObserver(() => this.drawLine()).observe(this.body);
    this.loadOffers();
    return this.load();
  }

  change(chosen) {
    Object.assign(this, chosen);
    const query = new URLSearchParams();
    if (this.by !== "all") query.set("by", this.by);
    if (this.length !== "raw") query.set("length", this.length);
    if (this.anchor !== null) query.set("anchor", this.anchor);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    this.made.textContent = t("arena.computing");
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    const turn = (this.turn = (this.turn ?? 0) + 1); // what was asked before something else was chosen is not drawn
    const query = new URLSearchParams({ by: this.by, length: this.length });
    if (this.anchor !== null) query.set("anchor", this.anchor);
    let said = null;
    try {
      said = await get(`/arena?${query}`);
      if (turn !== this.turn) return;
      connection("saved", "");
      this.trouble.hidden = !said.problem;
      this.trouble.textContent = said.problem ? t("arena.problem", { problem: said.problem }) : "";
      this.draw(said);
    } catch (problem) {
      if (turn !== this.turn) return;
      this.failed(problem);
    }
    if (!document.hidden) this.timer = setTimeout(() => this.load(), said?.stale ? SOON_MS : LATER_MS);
  }

  failed(problem) {
    if (problem.status === 401) { signInAgain(); return; }
    if (!problem.status) { connection("offline", t("arena.offline")); return; }
    if (problem.status === 422 && this.anchor) { this.anchor = null; this.load(); return; } // an anchor of another time
    this.made.textContent = "";
    this.trouble.hidden = false;
    this.trouble.textContent = problem.message;
  }

  async loadOffers() {
    if (!permissions.has("run")) return;
    this.offers = await get("/arena/offers").catch(() => []);
    this.drawOffers();
    if (this.said) { this.drawn = ""; this.draw(this.said); }
  }

  async add(offers, button) {
    button.disabled = true;
    const total = { n: 0, same: 0 };
    try {
      for (const run of new Set(offers.map((offer) => offer.run))) {
        const pairs = offers.filter((offer) => offer.run === run).map(({ a, b }) => [a, b]);
        const { queued, same_text: same } = await post("/arena/queue", { run, pairs });
        total.n += queued;
        total.same += same;
      }
      this.added.hidden = false;
      this.added.textContent = t("arena.added", { n: count(total.n), same: count(total.same) });
    } catch (problem) {
      this.trouble.hidden = false;
      this.trouble.textContent = problem.message;
    }
    await this.loadOffers();
    await this.load();
  }

  // ---- what is drawn

  draw(said) {
    this.said = said;
    const parts = [t("arena.madeof", { votes: count(said.votes), annotators: count(said.annotators), prompts: count(said.prompts) }), t("arena.computed", { ago: ago(Math.max(0, Date.now() / 1000 - said.at)) })];
    if (said.stale) parts.push(t("arena.stale"));
    this.made.textContent = parts.join(" · ");
    const { at, seconds, cursor, stale, ...rest } = said;
    const same = JSON.stringify(rest);
    if (same === this.drawn) return; // what somebody reads, or has focused, stays
    this.drawn = same;
    this.drawAnchors(said);
    this.rated = said.generations.map((name) => said.policies.find((each) => each.policy === name)).filter((each) => each?.rating !== null);
    this.controls.hidden = !said.policies.length;
    if (!said.policies.length) { this.body.replaceChildren(this.nothing()); return; }
    if (!said.enough) { this.body.replaceChildren(this.few(said)); return; }
    this.body.replaceChildren(...[this.notes(said), this.table(said), this.line(), this.matrix(said)].filter(Boolean));
    this.drawLine();
  }

  drawAnchors(said) {
    const playing = said.generations.filter((name) => said.policies.find((each) => each.policy === name).games);
    this.anchorField.hidden = !said.enough;
    this.choose.replaceChildren(...playing.map((name) => h("option", { value: name, selected: name === said.anchor }, name)), h("option", { value: "", selected: said.anchor === null }, t("arena.mean")));
  }

  nothing() {
    return h("div", { className: "empty" }, h("h2", {}, t("arena.nothing")), this.prose("arena.nothingmore"));
  }

  few(said) {
    const battle = said.project && permissions.has("label") ? h("p", {}, h("a", { className: "button", href: "/arena/battle" }, t("arena.votenow"))) : null;
    const rows = said.policies.map((each) => h("tr", {}, h("th", { scope: "row" }, each.policy), h("td", { className: "num" }, count(each.games))));
    return h("section", { className: "card few" }, h("h2", {}, said.votes ? t("arena.few", { n: count(said.votes), least: LEAST }) : t("arena.nobody")), h("p", {}, t("arena.fewmore", { least: LEAST })), battle,
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("arena.policy")), h("th", { scope: "col", className: "num" }, t("arena.games")))), h("tbody", {}, ...rows)));
  }

  notes(said) {
    const found = [];
    if (said.links.length) found.push(this.missing(said));
    if (said.regularised) found.push(h("p", {}, t("arena.regularised")));
    return found.length ? h("div", { className: "notice stack" }, ...found) : null;
  }

  /** Which battles would join policies that cannot be compared, and how to get them. */
  missing(said) {
    const groups = said.groups.map((group) => `{${group.join(", ")}}`).join(t("arena.and"));
    const group = (name) => said.groups.findIndex((each) => each.includes(name));
    const links = said.links.map(({ a, b, waiting }) => {
      const line = h("p", {}, t("arena.missing", { a, b }), " ");
      const offer = this.offers.find((each) => [each.a, each.b].includes(a) && [each.a, each.b].includes(b)) ?? this.offers.find((each) => [group(a), group(b)].sort().join() === [group(each.a), group(each.b)].sort().join());
      if (waiting) line.append(t("arena.linkwaiting", { n: count(waiting) }), " ", said.project && permissions.has("label") ? h("a", { href: "/arena/battle" }, t("arena.gobattle")) : "");
      else if (offer) line.append(h("button", { type: "button", onclick: (event) => this.add([offer], event.currentTarget) }, t("arena.linkoffer", { n: count(offer.n), a: offer.a, b: offer.b })));
      else if (permissions.has("run")) line.append(...this.prose("arena.linknone").childNodes);
      return line;
    });
    return h("div", {}, h("h2", {}, t("arena.notcomparable")), h("p", {}, t("arena.groups", { groups })), ...links);
  }

  /** What length does, and that it was taken out; nothing where it was not. */
  effect(said) {
    if (!said.effect) return null;
    const { coefficient, low, high, typical } = said.effect;
    const games = said.win_rates.reduce((sum, rate) => sum + rate.n, 0) / 2; // each pair stands there twice
    const factor = (nats) => { const times = Math.exp(nats); return times >= 100 ? times.toFixed(0) : times.toPrecision(2); };
    return h("p", {}, t("arena.lengtheffect", { times: ((1 + typical) / (1 - typical)).toFixed(1), factor: factor(coefficient), low: factor(low), high: factor(high), n: count(games) }));
  }

  table(said) {
    const heads = [["rank", "arena.rank"], ["policy", "arena.policy"], ["rating num", "arena.rating"], ["span", "arena.interval"], ["games num", "arena.games"], ["better", "arena.better"]];
    const scale = this.rated.length ? extent(this.rated) : [0, 1];
    // The roles are said although they are those of a table: on a narrow page rows become grids, and browsers forget them then.
    const rows = said.policies.map((each) => h("tr", { role: "row" },
      h("td", { role: "cell", className: "rank number" }, each.rank ? range(each.rank) : "–"),
      h("th", { role: "rowheader", scope: "row", className: "policy" }, each.policy),
      h("td", { role: "cell", className: "rating num" }, ...this.number(each, said.anchor)),
      h("td", { role: "cell", className: "span" }, each.rating === null ? "" : bar(each, scale, 1000)),
      h("td", { role: "cell", className: "games num" }, h("span", { className: "wide" }, count(each.games)), h("span", { className: "narrow" }, t("arena.ngames", { n: count(each.games) }))),
      h("td", { role: "cell", className: "better" }, ...this.better(each))));
    return h("section", { className: "card", "aria-labelledby": "ratings-title" }, h("h2", { id: "ratings-title" }, t("arena.ratings")), this.effect(said),
      h("table", { role: "table", className: "standings", "aria-labelledby": "ratings-title" },
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads.map(([className, key]) => h("th", { role: "columnheader", scope: "col", className }, t(key))))), h("tbody", { role: "rowgroup" }, ...rows)),
      h("p", { className: "small faint" }, t("arena.ratingsmore")));
  }

  number({ policy, rating, low, high }, anchor) {
    if (rating === null) return [h("span", { className: "faint" }, t("arena.none"))];
    const doubt = policy === anchor ? t("arena.isanchor") : `[${low.toFixed(0)}, ${high.toFixed(0)}]`;
    return [h("b", {}, rating.toFixed(0)), " ", h("span", { className: "faint" }, doubt)];
  }

  better({ better }) {
    if (!better) return [h("span", { className: "faint" }, "–")];
    const share = better.p > 0.999 ? "> 99.9 %" : better.p < 0.001 ? "< 0.1 %" : percent(better.p, better.p > 0.99 || better.p < 0.01 ? 1 : 0);
    return [h("b", {}, share), " ", h("span", { className: "faint" }, t("arena.betterthan", { policy: better.than, n: count(better.n) }))];
  }

  line() {
    if (this.rated.length < 2) return null;
    this.lineElement = h("div", {});
    return h("section", { className: "card", "aria-labelledby": "line-title" }, h("h2", { id: "line-title" }, t("arena.bygeneration")), this.lineElement, h("p", { className: "small faint" }, t("arena.bandmore")));
  }

  /** The figure is drawn for the width there is, so that its letters stay as large as the page's. */
  drawLine() {
    if (!this.lineElement?.isConnected) return;
    const width = Math.min(900, Math.floor(this.lineElement.clientWidth));
    if (width < 100 || (this.lineElement.firstChild && this.lineWidth === width && this.lineOf === this.rated)) return;
    this.lineWidth = width;
    this.lineOf = this.rated;
    this.lineElement.replaceChildren(byGeneration(this.rated, width));
  }

  matrix(said) {
    if (!said.win_rates.length) return null;
    const names = said.policies.filter((each) => each.games).map((each) => each.policy);
    const rates = new Map(said.win_rates.map((rate) => [JSON.stringify([rate.policy, rate.against]), rate]));
    const cell = (a, b) => {
      if (a === b) return h("td", { className: "itself" }, h("span", { className: "hidden" }, t("arena.itself")));
      const rate = rates.get(JSON.stringify([a, b]));
      if (!rate) return h("td", { className: "faint" }, "–", h("span", { className: "hidden" }, t("arena.notmet")));
      const td = h("td", {}, h("b", {}, percent(rate.mean)), h("small", {}, `${Math.round(100 * rate.low)}–${Math.round(100 * rate.high)} %`), h("small", {}, t("arena.games.n", { n: count(rate.n) })));
      td.style.background = ground(rate.mean);
      return td;
    };
    const rows = names.map((a) => h("tr", {}, h("th", { scope: "row" }, a), ...names.map((b) => cell(a, b))));
    return h("section", { className: "card", "aria-labelledby": "rates-title" }, h("h2", { id: "rates-title" }, t("arena.winrates")),
      h("p", { className: "small faint" }, t("arena.winratesmore"), said.length === "controlled" ? ` ${t("arena.winratesraw")}` : ""),
      h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-labelledby": "rates-title" }, h("table", { className: "rates" }, h("thead", {}, h("tr", {}, h("td", { className: "faint small" }, t("arena.against")), ...names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows))));
  }

  drawOffers() {
    this.more.hidden = !this.offers.length;
    if (!this.offers.length) { this.more.replaceChildren(); return; }
    const runs = Map.groupBy ? Map.groupBy(this.offers, (offer) => offer.run) : group(this.offers);
    const lists = [...runs].map(([run, offers]) => {
      const n = offers.reduce((sum, offer) => sum + offer.n, 0);
      const items = offers.map((offer) => h("li", { className: "row" }, h("span", { className: "grow" }, t("arena.offer", offer), " ", h("span", { className: "faint" }, t("arena.prompts", { n: count(offer.n) }))), h("button", { type: "button", "aria-label": `${t("arena.add")}: ${t("arena.offer", offer)}`, onclick: (event) => this.add([offer], event.currentTarget) }, t("arena.add"))));
      const all = offers.length > 1 ? h("p", {}, h("button", { type: "button", onclick: (event) => this.add(offers, event.currentTarget) }, t("arena.addall", { n: count(n), run }))) : null;
      const list = h("ul", { className: "offers" }, ...items);
      return h("div", {}, all, offers.length > 1 ? h("details", { open: offers.length <= FEW }, h("summary", {}, t("arena.onebyone")), list) : list);
    });
    this.more.replaceChildren(h("h2", { id: "more-title" }, t("arena.more")), h("p", { className: "small faint" }, t("arena.moremore")), ...lists);
  }

  /** A sentence with what stands in backticks as code. */
  prose(key) {
    return h("p", {}, ...t(key).split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part)));
  }
}

const range = ([best, worst]) => (best === worst ? String(best) : `${best}–${worst}`);

function group(offers) {
  const found = new Map();
  for (const offer of offers) found.set(offer.run, [...(found.get(offer.run) ?? []), offer]);
  return found;
}
