// What every page has: language, theme, the connection dot, who is signed in, the key sheet, and keys that go to another page.

import { api, put, remove } from "./api.js";
import { dialog, h } from "./dom.js";
import { t } from "./i18n.js";

const body = document.body;
export const person = body.dataset.person ?? "";
export const permissions = new Set((body.dataset.permissions ?? "").split(" "));
export const main = document.getElementById("main");

/** Whether a key event is a command: not typed into a field, not composed, not held down, not a browser's shortcut. */
export function isCommand(event) {
  if (event.isComposing || event.keyCode === 229 || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return false;
  const target = event.target;
  if (document.querySelector("dialog[open]")) return false;
  return !(target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName)));
}

/** @param {"saved"|"waiting"|"offline"} state @param {string} text */
export function connection(state, text) {
  const dot = document.getElementById("connection");
  dot.dataset.state = state;
  dot.querySelector(".dot-text").textContent = text;
}

document.querySelector(".tabs a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

const sheet = [["?", "keys.sheet"], ["Shift+G L", "keys.label"], ["Shift+G R", "keys.runs"], ["Shift+G A", "keys.arena"], ["Shift+G Q", "keys.agreement"]];

/** Keys of a page for the key sheet: [keys, string key] each. */
export function keys(more) {
  sheet.unshift(...more);
}

function showKeys() {
  const list = h("div", { className: "keys" });
  for (const [names, what] of sheet) list.append(h("span", {}, ...names.split(" ").flatMap((name, i) => (i ? [" ", h("kbd", {}, name)] : [h("kbd", {}, name)]))), h("span", {}, t(what)));
  const layer = dialog(t("shell.keys"), list, h("p"), h("button", { type: "button", autofocus: true, onclick: () => layer.close() }, t("shell.close")));
}

function cookie(name, value) {
  document.cookie = `backflip_${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}

const themes = ["auto", "light", "dark"];
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
  root.dataset.theme = next;
  cookie("theme", next);
  document.getElementById("theme").title = `${t("shell.theme")}: ${t(`theme.${next}`)}`;
});
document.getElementById("language").addEventListener("change", (event) => {
  cookie("language", event.target.value);
  location.reload();
});
document.getElementById("help").addEventListener("click", showKeys);
document.getElementById("signout")?.addEventListener("click", async () => {
  await remove("/session").catch(() => {});
  location.assign("/signin");
});
document.getElementById("password")?.addEventListener("click", () => {
  const field = h("input", { type: "password", name: "password", autocomplete: "new-password", minLength: 10, required: true });
  const said = h("p", { className: "error", hidden: true, role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      await put("/session/password", { password: field.value });
      location.assign("/signin");
    } catch (problem) { said.hidden = false; said.textContent = problem.message; }
  } }, h("label", {}, t("signin.newpassword"), field), h("p", { className: "small faint" }, t("signin.passwordnote")), said, h("button", { className: "main" }, t("shell.save")));
  dialog(t("shell.password"), form);
});

const places = { l: "label", r: "runs", a: "arena", q: "agreement" };
let going = 0;
document.addEventListener("keydown", (event) => {
  if (!isCommand(event)) return;
  if (event.key === "?") { event.preventDefault(); showKeys(); return; }
  if (going && performance.now() - going < 1500 && places[event.key.toLowerCase()]) {
    event.preventDefault();
    event.stopImmediatePropagation();
    location.assign(`/${places[event.key.toLowerCase()]}`);
  }
  // Where g is an answer, G leads elsewhere; everywhere else both do.
  going = event.key === "G" || (event.key === "g" && !document.querySelector("[data-answers-g]")) ? performance.now() : 0;
}, true);

/** A layer over the page in which somebody whose session ended signs in again; what they did is kept. */
export function signInAgain() {
  if (document.querySelector("dialog[data-signin]")) return;
  const secret = h("input", { type: "password", autocomplete: "current-password", required: true });
  const said = h("p", { className: "error", hidden: true, role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      await api("POST", "/session", { name: person, password: secret.value });
      layer.close();
      document.dispatchEvent(new CustomEvent("backflip:signedin"));
    } catch (problem) { said.hidden = false; said.textContent = problem.message; }
  } }, h("p", {}, t("signin.ended")), h("label", {}, `${t("signin.password")} (${person})`, secret), said, h("button", { className: "main" }, t("signin.signin")));
  const layer = dialog(t("signin.again"), form);
  layer.dataset.signin = "";
}
