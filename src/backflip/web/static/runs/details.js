// What takes the server some work: alarms, settings and all metric names of the runs that are drawn. Asked for one run after the
// other, and of a run that writes no more than once in a few seconds. Event: "change" (detail: the run's id).

import { get } from "../lib/api.js";
import { pathOf } from "./feed.js";

const EVERY_MS = 5000;

export class Details extends EventTarget {
  constructor(feed, selection) {
    super();
    Object.assign(this, { feed, selection });
    this.known = new Map(); // id → what `/runs/ID/card` gives
    this.asked = new Map(); // id → when
    this.queue = [];
    feed.addEventListener("lines", ({ detail }) => this.ask(detail));
    feed.addEventListener("samples", ({ detail }) => this.ask(detail));
  }

  of(id) {
    return this.known.get(id);
  }

  /** Have what is known of these runs, the first of them first. */
  have(ids) {
    for (const id of ids) if (!this.known.has(id)) this.ask(id);
  }

  /** Look again at a run, now or when it is due. */
  ask(id, now = false) {
    if (this.queue.includes(id)) return;
    const wait = now ? 0 : (this.asked.get(id) ?? -EVERY_MS) + EVERY_MS - performance.now();
    if (wait > 0) {
      this.later ??= new Set();
      if (this.later.has(id)) return;
      this.later.add(id);
      setTimeout(() => { this.later.delete(id); this.ask(id); }, wait);
      return;
    }
    this.queue.push(id);
    this.work();
  }

  async work() {
    if (this.working) return;
    this.working = true;
    while (this.queue.length) {
      const focus = this.queue.indexOf(this.selection.focus);
      const [id] = this.queue.splice(Math.max(0, focus), 1);
      this.asked.set(id, performance.now());
      if (!this.feed.cards.has(id) || (id !== this.selection.focus && !this.selection.slots.has(id))) continue;
      try {
        this.known.set(id, await get(`${pathOf(id)}/card`));
        this.dispatchEvent(new CustomEvent("change", { detail: id }));
      } catch { /* the stream says when the server cannot be reached, and the list when a run is gone */ }
    }
    this.working = false;
  }
}
