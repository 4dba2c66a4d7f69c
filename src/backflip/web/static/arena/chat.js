// Chat with a policy. The conversation lives in the page alone; the server renders what the policy wrote into harmless HTML.

import { get, post } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { signInAgain } from "../lib/shell.js";

const LONG_MS = 4000; // after which the page says that the first answer takes longer

/** @param {HTMLElement} room */
export async function chat(room) {
  try {
    const policies = await get("/chat/policies");
    if (!policies.length) { room.replaceChildren(h("div", { className: "empty" }, h("h2", {}, t("chat.none")), h("p", {}, t("chat.nonemore")))); return; }
    new Conversation(room, policies).start();
  } catch (problem) {
    if (problem.status === 401) { signInAgain(); document.addEventListener("backflip:signedin", () => chat(room), { once: true }); return; }
    room.replaceChildren(h("div", { className: "empty" }, h("h2", {}, t("label.trouble")), h("p", {}, problem.message)));
  }
}

class Conversation {
  constructor(room, policies) {
    this.room = room;
    this.policies = policies;
    this.messages = [];
    this.answered = false; // whether the policy chosen last has answered: it is loaded then
    this.choose = h("select", { onchange: () => { this.answered = false; this.greet(); } }, ...policies.map((each) => h("option", { value: each.id }, each.id)));
    this.temperature = h("input", { type: "number", min: "0", max: "10", step: "0.1", value: "0.7", required: true });
    this.tokens = h("input", { type: "number", min: "1", max: "4096", step: "1", value: "256", required: true });
    this.log = h("div", { className: "log", role: "log", "aria-label": t("chat.log"), tabIndex: 0 });
    this.said = h("p", { className: "error", role: "alert", hidden: true });
    this.waiting = h("p", { className: "faint small waiting", role: "status" });
    this.field = h("textarea", { rows: 2, maxLength: 20_000, "aria-describedby": "chat-how", onkeydown: (event) => this.onKey(event) });
    this.send = h("button", { className: "main" }, t("chat.send"));
    const settings = h("details", { className: "sampling" }, h("summary", {}, t("chat.settings")), h("div", { className: "row" }, h("label", {}, t("chat.temperature"), this.temperature), h("label", {}, t("chat.tokens"), this.tokens)));
    const fresh = h("button", { type: "button", onclick: () => this.renew() }, t("chat.new"));
    this.form = h("form", { className: "write", onsubmit: (event) => { event.preventDefault(); this.ask(); } }, h("label", {}, t("chat.message"), this.field), h("div", { className: "row" }, h("span", { id: "chat-how", className: "faint small grow" }, t("chat.messagemore")), this.send));
    room.replaceChildren(h("div", { className: "row with" }, h("label", { className: "grow" }, t("chat.policy"), this.choose), fresh), settings, this.log, this.waiting, this.said, this.form, h("p", { className: "faint small" }, t("chat.more")));
  }

  get name() { return this.policies.find((each) => each.id === this.choose.value).name; }

  start() {
    this.greet();
    this.field.focus();
  }

  greet() {
    if (!this.messages.length) this.log.replaceChildren(h("p", { className: "faint hello" }, t("chat.hello", { policy: this.name })));
  }

  renew() {
    if (this.busy) return;
    this.messages = [];
    this.said.hidden = true;
    this.greet();
    this.field.focus();
  }

  onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  async ask() {
    const text = this.field.value;
    if (!text.trim() || this.busy) return;
    const name = this.name;
    const bubble = this.show("user", t("chat.you"), text);
    this.messages.push({ role: "user", content: text });
    this.field.value = "";
    this.said.hidden = true;
    this.work(true, name);
    try {
      const answer = await post("/chat", { policy: this.choose.value, messages: this.messages, max_new_tokens: Number(this.tokens.value), temperature: Number(this.temperature.value) });
      this.answered = true;
      this.messages.push({ role: "assistant", content: answer.text });
      const notes = [t("chat.took", { s: answer.seconds.toFixed(1) }), ...(answer.forgotten ? [t("chat.forgotten", { n: count(answer.forgotten) })] : [])];
      this.show("assistant", name, answer.text, answer.html, notes.join(" · "));
    } catch (problem) {
      // Nothing was answered: what was asked goes back to where it was written.
      this.messages.pop();
      bubble.remove();
      this.greet();
      this.field.value = text;
      if (problem.status === 401) signInAgain();
      else { this.said.hidden = false; this.said.textContent = problem.status ? problem.message : t("arena.offline"); }
    }
    this.work(false);
    this.field.focus();
  }

  show(role, name, text, html, note) {
    this.log.querySelector(".hello")?.remove();
    const content = h("div", { className: "text", dir: "auto" });
    if (html) fill(content, html);
    else content.textContent = text || t("label.nothing");
    const bubble = h("article", { className: "turn", dataset: { role } }, h("header", { className: "small faint" }, h("b", {}, name), note ? ` · ${note}` : ""), content);
    this.log.append(bubble);
    this.log.scrollTop = this.log.scrollHeight;
    return bubble;
  }

  /** While an answer is written: nothing else can be asked, and the seconds are counted. */
  work(busy, name) {
    this.busy = busy;
    this.send.disabled = this.choose.disabled = busy;
    clearInterval(this.clock);
    this.waiting.textContent = "";
    if (!busy) return;
    const began = performance.now();
    const tick = () => {
      const ms = performance.now() - began;
      this.waiting.textContent = [t("chat.writing", { policy: name, s: Math.floor(ms / 1000) }), !this.answered && ms > LONG_MS ? t("chat.loading") : ""].join(" ").trim();
    };
    tick();
    this.clock = setInterval(tick, 1000);
  }
}
