// What the page knows of the runs: their cards, and of those that are shown the lines it draws, kept up to date by one stream.
//
// Events: "cards" (some card has changed), "lines" (detail: a run whose lines have), "samples" (detail: a run that wrote some),
// "contact" (detail: seconds since the server was heard; 0 while all is well), "signedout".

import { api, get } from "../lib/api.js";

const POINTS = 800; // the lowest and the highest of every pixel of a small chart
const RECENT = 500; // streamed rows kept for lines that are still on their way
const KEPT = 50; // runs that were shown before
const LONGEST = 4000; // points of a line after which the server thins it anew
const STALE_S = 12; // the server says something every 5 seconds
const RETRY_MS = 3000;

/** The path of a run in the API. A browser takes a "." out of an address, so the folder itself has another name there. */
export const pathOf = (id) => `/runs/${id === "." ? ".root" : id.split("/").map(encodeURIComponent).join("/")}`;

export class Feed extends EventTarget {
  constructor() {
    super();
    this.cards = new Map();
    this.shown = []; // ids, in the order of the list
    this.data = new Map(); // id → {lines: Map, asked: Set, cursor, recent}
    this.wanted = new Set(); // names of metrics that some chart draws
    this.skew = 0; // by how much the server's clock is ahead of ours
    this.heard = performance.now();
    setInterval(() => this.watch(), 1000);
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    document.addEventListener("backflip:signedin", () => this.open());
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** Seconds since 1970 by the server's clock. */
  get now() {
    return Date.now() / 1000 + this.skew;
  }

  async start() {
    const said = await get("/runs");
    this.skew = said.now - Date.now() / 1000;
    this.cards = new Map(said.runs.map((card) => [card.id, card]));
    this.tell("cards");
  }

  /** Show these runs, and no others. What is known of those that are taken away is kept: shown again, they go on from there. */
  show(ids) {
    this.shown = ids;
    for (const id of ids) if (!this.data.has(id)) this.data.set(id, { lines: new Map(), asked: new Set(), cursor: null, recent: [] });
    const hidden = [...this.data.keys()].filter((id) => !ids.includes(id));
    for (const id of hidden.slice(0, Math.max(0, hidden.length - KEPT))) this.data.delete(id);
    this.fetch();
    this.open();
  }

  /** Have these metrics of every run that is shown, now and as they grow. */
  want(names) {
    const before = this.wanted.size;
    for (const name of names) this.wanted.add(name);
    if (this.wanted.size > before) this.fetch();
  }

  lines(id) {
    return this.data.get(id)?.lines ?? new Map();
  }

  // ---- lines, in one request for all that came into view at once

  fetch() {
    this.fetching ??= Promise.resolve().then(() => {
      this.fetching = null;
      for (const id of this.shown) {
        const run = this.data.get(id);
        const names = [...this.wanted].filter((name) => !run.asked.has(name));
        if (names.length) this.load(id, run, names);
      }
    });
  }

  async load(id, run, names) {
    for (const name of names) run.asked.add(name);
    const query = new URLSearchParams([...names.map((name) => ["names", name]), ["points", POINTS]]);
    try {
      const said = await get(`${pathOf(id)}/series?${query}`);
      if (this.data.get(id) !== run) return;
      for (const [name, line] of Object.entries(said.lines)) {
        run.lines.set(name, line);
        for (const row of run.recent) add(line, name, row);
      }
      const first = run.cursor === null;
      run.cursor ??= said.cursor;
      if (first) this.open();
      this.tell("lines", id);
    } catch (problem) {
      for (const name of names) run.asked.delete(name);
      if (problem.status === 401) this.tell("signedout");
      else if (problem.status !== 404) setTimeout(() => this.fetch(), RETRY_MS);
    }
  }

  // ---- the stream

  /** (Re)open the stream for the runs whose beginning is known. */
  open() {
    clearTimeout(this.opening);
    // While the beginnings of some runs are on their way it would have to be opened again for each.
    const coming = this.shown.some((id) => !this.data.get(id)?.cursor);
    this.opening = setTimeout(() => {
      if (document.hidden) return;
      const ids = this.shown.filter((id) => this.data.get(id)?.cursor);
      if (this.source && this.source.readyState !== EventSource.CLOSED && ids.join("\n") === this.following?.join("\n")) return;
      this.close();
      this.following = ids;
      const query = new URLSearchParams([...ids.map((id) => ["run", id === "." ? ".root" : id]), ["after", ids.map((id) => this.data.get(id).cursor).join("|")]]);
      const source = new EventSource(`/api/v1/runs/stream?${query}`);
      const on = (kind, act) => source.addEventListener(kind, (event) => {
        if (source !== this.source) return;
        this.hear();
        act(JSON.parse(event.data), event);
      });
      on("beat", ({ now }) => { this.skew = now - Date.now() / 1000; });
      on("runs", (said) => this.onCards(said));
      on("rows", (said, event) => this.onRows(said, event.lastEventId));
      on("samples", ({ run }) => this.tell("samples", run));
      source.onerror = () => { if (source === this.source && source.readyState === EventSource.CLOSED) this.failed(); };
      this.source = source;
    }, coming ? 400 : 30);
  }

  close() {
    this.source?.close();
    this.source = null;
    this.heard = performance.now(); // a page that nobody looks at is not stale
  }

  /** A browser that was answered with an error does not try again by itself. */
  async failed() {
    const signedIn = await api("GET", "/session").then(() => true, (problem) => problem.status !== 401);
    if (!signedIn) this.tell("signedout");
    else setTimeout(() => this.open(), RETRY_MS);
  }

  hear() {
    const was = this.silent;
    this.heard = performance.now();
    this.silent = 0;
    if (was) this.tell("contact", 0);
  }

  watch() {
    if (document.hidden || !this.source) return;
    const silence = (performance.now() - this.heard) / 1000;
    if (silence < STALE_S) return;
    this.silent = silence;
    this.tell("contact", silence);
  }

  onCards({ runs, gone, now }) {
    this.skew = now - Date.now() / 1000;
    for (const card of runs) this.cards.set(card.id, card);
    for (const id of gone) this.cards.delete(id);
    this.cards = new Map([...this.cards].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.tell("cards");
  }

  onRows({ run: id, log, reset, rows }, cursors) {
    cursors.split("|").forEach((cursor, i) => {
      const followed = this.data.get(this.following[i]);
      if (followed) followed.cursor = cursor;
    });
    const run = this.data.get(id);
    if (!run) return;
    if (reset) {
      // The run went back to a checkpoint: what is drawn never happened. Its lines are fetched anew.
      const fresh = { lines: new Map(), asked: new Set(), cursor: run.cursor, recent: [] };
      this.data.set(id, fresh);
      this.fetch();
      return;
    }
    for (const row of rows) row.log = log;
    run.recent.push(...rows);
    run.recent.splice(0, run.recent.length - RECENT);
    let longest = 0;
    for (const [name, line] of run.lines) {
      for (const row of rows) add(line, name, row);
      longest = Math.max(longest, line.x.length);
    }
    if (longest > LONGEST) { run.asked = new Set(); this.fetch(); }
    this.tell("lines", id);
  }
}

/** Add a streamed row to a line, unless the line was read later than the row and has it. */
function add(line, name, row) {
  const seconds = name === "wall" || name.startsWith("timings/");
  if (seconds !== (row.log === "timings")) return;
  const value = name === "wall" ? (line.y.at(-1) ?? 0) + (row.values["timings/total"] ?? 0) : row.values[name];
  if (row.wrong?.includes(name) && !line.wrong.includes(row.step)) line.wrong.push(row.step);
  if (line.x.length && row.step <= line.x.at(-1)) return;
  if (value === undefined && (line.y.at(-1) ?? null) === null) return; // a gap goes on
  line.x.push(row.step);
  line.y.push(value ?? null);
}

/** A line over the seconds of training instead of the steps; those of steps in between are interpolated. */
export function overSeconds(line, wall) {
  const at = (step) => {
    const { x, y } = wall;
    let [low, high] = [0, x.length - 1];
    if (high < 0 || step > x[high]) return null;
    if (step <= x[0]) return y[0];
    while (high - low > 1) { const middle = (low + high) >> 1; if (x[middle] <= step) low = middle; else high = middle; }
    return y[low] + ((y[high] - y[low]) * (step - x[low])) / (x[high] - x[low]);
  };
  const found = { ...line, x: [], y: [], wrong: [] };
  line.x.forEach((step, i) => { const place = at(step); if (place !== null) { found.x.push(place); found.y.push(line.y[i]); } });
  for (const step of line.wrong ?? []) { const place = at(step); if (place !== null) found.wrong.push(place); }
  return found;
}
