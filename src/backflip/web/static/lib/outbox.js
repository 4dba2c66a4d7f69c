// What a person did, kept on this device until the server has it: put → paint → send → delete.
// Events leave in the order they came, up to 64 in one request, and each has a key, so sending twice stores once.

import { post } from "./api.js";

const BATCH = 64;
const LONGEST_WAIT = 30;

const asked = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const finished = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = () => resolve(undefined);
  transaction.onabort = transaction.onerror = () => reject(transaction.error);
});

/** A random name for an event. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (x) => x.toString(16).padStart(2, "0")).join("");
}

export class Outbox extends EventTarget {
  /** @param {string} owner whose events these are: nobody sends another person's */
  constructor(owner) {
    super();
    this.owner = owner;
    this.waiting = 0;
    this.state = "saved"; // or "waiting", "offline"
    this.failures = 0;
    this.timer = 0;
    this.sending = null;
    this.memory = []; // where IndexedDB cannot be had, as in some private windows
    this.db = null;
  }

  /** Open the device's storage; what an earlier page left behind is sent. */
  async open() {
    if (this.opened) return;
    this.opened = true;
    try {
      const request = indexedDB.open(`backflip ${this.owner}`, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("events", { autoIncrement: true });
        request.result.createObjectStore("attention", { autoIncrement: true });
      };
      this.db = await asked(request);
      this.waiting = (await this.views()).length;
    } catch {
      this.db = null;
    }
    addEventListener("online", () => this.flush(true));
    addEventListener("pagehide", () => this.leave());
    document.addEventListener("backflip:signedin", () => this.flush(true));
    this.flush();
  }

  /** Keep an event; resolves when this device has it. */
  async put(event) {
    this.waiting += 1;
    if (this.db) {
      const transaction = this.db.transaction("events", "readwrite", { durability: "strict" });
      transaction.objectStore("events").add({ ...event, at: performance.now() });
      await finished(transaction);
    } else {
      this.memory.push(event);
    }
    this.tell();
    this.flush();
  }

  /** The views of what waits. */
  async views() {
    if (!this.db) return this.memory.map((event) => event.view);
    return (await asked(this.db.transaction("events").objectStore("events").getAll())).map((event) => event.view);
  }

  /** What the server refused, for the person to look at. */
  async attention() {
    return this.db ? asked(this.db.transaction("attention").objectStore("attention").getAll()) : [];
  }

  async clearAttention() {
    if (!this.db) return;
    const transaction = this.db.transaction("attention", "readwrite");
    transaction.objectStore("attention").clear();
    await finished(transaction);
    this.tell();
  }

  /** Send what waits; `now` does not wait for the next try. One page sends at a time. */
  flush(now = false) {
    if (now) { this.failures = 0; clearTimeout(this.timer); this.timer = 0; }
    if (this.sending || this.timer) return this.sending ?? Promise.resolve();
    const send = () => this.send();
    this.sending = (navigator.locks ? navigator.locks.request(`backflip outbox ${this.owner}`, send) : send()).finally(() => { this.sending = null; });
    return this.sending;
  }

  async send() {
    for (;;) {
      const [ids, events] = await this.first();
      if (!events.length) { this.settle("saved"); return; }
      let said;
      try {
        said = await post("/events", { events: events.map(({ at, ...event }) => event) });
      } catch (problem) {
        if ([400, 409, 413, 422].includes(problem.status)) { await this.refused(ids, events, problem); continue; }
        this.later(problem);
        return;
      }
      this.failures = 0;
      const refused = said.outcomes.filter((outcome) => outcome.status === "refused");
      await this.drop(ids, events.flatMap((event) => refused.filter((o) => o.key === event.key).map((o) => ({ event, error: o.error, when: Date.now() }))));
      for (const outcome of said.outcomes) {
        const event = events.find((e) => e.key === outcome.key);
        this.dispatchEvent(new CustomEvent("stored", { detail: { event, outcome, ms: performance.now() - event.at } }));
      }
    }
  }

  /** A request that was refused as a whole: its events are tried one by one, and only what is wrong is put aside. */
  async refused(ids, events, problem) {
    if (events.length === 1) { await this.drop(ids, [{ event: events[0], error: problem.message, when: Date.now() }]); return; }
    for (let i = 0; i < events.length; i += 1) {
      try {
        const { at, ...event } = events[i];
        await post("/events", { events: [event] });
        await this.drop([ids[i]], []);
      } catch (one) {
        if (![400, 409, 413, 422].includes(one.status)) throw one;
        await this.drop([ids[i]], [{ event: events[i], error: one.message, when: Date.now() }]);
      }
    }
  }

  async first() {
    if (!this.db) { const events = this.memory.slice(0, BATCH); return [events, events]; }
    const store = this.db.transaction("events").objectStore("events");
    const [ids, events] = await Promise.all([asked(store.getAllKeys(null, BATCH)), asked(store.getAll(null, BATCH))]);
    return [ids, events];
  }

  async drop(ids, aside) {
    if (this.db) {
      const transaction = this.db.transaction(["events", "attention"], "readwrite");
      for (const entry of aside) transaction.objectStore("attention").add(entry);
      for (const id of ids) transaction.objectStore("events").delete(id);
      await finished(transaction);
      this.waiting = await asked(this.db.transaction("events").objectStore("events").count());
    } else {
      this.memory = this.memory.filter((event) => !ids.includes(event));
      this.waiting = this.memory.length;
    }
    if (aside.length) this.dispatchEvent(new CustomEvent("refused", { detail: aside }));
    this.tell();
  }

  later(problem) {
    this.failures += 1;
    if (problem.status === 401) { this.settle("waiting"); this.dispatchEvent(new CustomEvent("signedout")); return; }
    const wait = problem.wait || Math.min(LONGEST_WAIT, 2 ** (this.failures - 1));
    this.timer = setTimeout(() => { this.timer = 0; this.flush(); }, wait * 1000);
    this.settle(problem.status ? "waiting" : "offline", problem);
  }

  settle(state, problem) {
    this.state = state;
    this.tell(problem);
  }

  tell(problem) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state: this.state, waiting: this.waiting, problem } }));
  }

  /** The page goes away: what still waits is sent without waiting for an answer; if that fails, the next page sends it. */
  async leave() {
    const [, events] = await this.first();
    if (events.length) sendAndForget(events.map(({ at, ...event }) => event));
  }
}

function sendAndForget(events) {
  fetch("/api/v1/events", { method: "POST", keepalive: true, headers: { "content-type": "application/json" }, body: JSON.stringify({ events }) }).catch(() => {});
}
