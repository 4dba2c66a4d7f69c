// Decisions on their way: kept on this device until the server has them, sent one after the other, each with a key, so sending
// twice stores once.

import { post } from "../lib/api.js";
import { count, t } from "../lib/i18n.js";
import { connection, person, signInAgain } from "../lib/shell.js";

const LONGEST_WAIT = 30;
const REFUSED = [400, 403, 404, 409, 413, 422];

export class Sender extends EventTarget {
  /** @param {string} project whose decisions these are */
  constructor(project) {
    super();
    this.project = project;
    this.name = `backflip decision ${person} ${project} `;
    this.waiting = this.kept();
    this.failures = 0;
    this.timer = 0;
    this.sending = false;
    addEventListener("online", () => this.flush(true));
    document.addEventListener("backflip:signedin", () => this.flush(true));
    if (this.waiting.length) this.flush();
  }

  /** What earlier pages left behind. */
  kept() {
    try {
      const names = Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i)).filter((name) => name.startsWith(this.name));
      return names.map((name) => JSON.parse(localStorage.getItem(name))).sort((a, b) => a.t - b.t);
    } catch {
      return []; // no storage on this device
    }
  }

  show() {
    const state = this.failures ? "offline" : this.waiting.length ? "waiting" : "saved";
    connection(state, t(`shell.${{ offline: "offline", waiting: "sending", saved: "saved" }[state]}`, { n: count(this.waiting.length) }));
  }

  /** Send a decision as soon as that can be done. */
  put(decision) {
    this.waiting.push(decision);
    try { localStorage.setItem(this.name + decision.key, JSON.stringify(decision)); } catch { /* no room: it waits in memory */ }
    this.show();
    return this.flush();
  }

  async flush(now = false) {
    if (now) { clearTimeout(this.timer); this.timer = 0; }
    if (this.sending || this.timer) return;
    this.sending = true;
    try {
      while (this.waiting.length) {
        const [decision] = this.waiting;
        try {
          await post(`/agreement/${encodeURIComponent(this.project)}/adjudications`, decision);
          this.tell("stored", { decision });
        } catch (problem) {
          if (!REFUSED.includes(problem.status)) { this.later(problem); return; }
          this.tell("refused", { decision, problem });
        }
        this.failures = 0;
        this.waiting.shift();
        this.forget(decision);
        this.show();
      }
    } finally {
      this.sending = false;
    }
  }

  forget(decision) {
    try { localStorage.removeItem(this.name + decision.key); } catch { /* nothing was kept there */ }
  }

  later(problem) {
    if (problem.status === 401) { signInAgain(); this.show(); return; }
    this.failures += 1;
    this.timer = setTimeout(() => { this.timer = 0; this.flush(); }, (problem.wait || Math.min(LONGEST_WAIT, 2 ** (this.failures - 1))) * 1000);
    this.show();
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
