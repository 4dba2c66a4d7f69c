// Blind battles: the Labeller on the project of the arena's matches. Who wrote what is said after the vote.

import { get, put } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { keys, permissions, signInAgain } from "../lib/shell.js";
import { KEYS, Labeller, openOutbox, projectOf } from "../label/labeller.js";

const PURPOSE = "arena";
const RETRY_MS = 3000;

/** @param {HTMLElement} room */
export async function battle(room) {
  keys(KEYS);
  const say = (title, ...more) => room.replaceChildren(h("div", { className: "empty" }, h("h2", {}, t(title)), ...more));

  /** Ask until the server answers; whoever was signed out signs in meanwhile. */
  async function patiently(ask) {
    for (;;) {
      try {
        return await ask();
      } catch (problem) {
        if (problem.status === 401) signInAgain();
        else if (problem.status && problem.status < 500) throw problem;
        say("label.waiting", h("p", {}, t("label.nothinglost")));
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  async function open() {
    const outbox = await openOutbox();
    const found = await patiently(() => get("/arena/project"));
    if (!found.project) { say("arena.noproject", h("p", {}, t("arena.noprojectmore")), setUp()); return; }
    if (!found.open) { say("arena.closed", h("p", {}, t("arena.closedmore", { project: found.project }))); return; }
    const project = await patiently(() => projectOf(found.project));
    const root = h("div", { className: "labelling" });
    room.replaceChildren(root);
    await new Labeller(root, project, outbox).start();
  }

  function setUp() {
    if (!permissions.has("admin")) return h("p", {}, t("arena.askadmin"));
    const said = h("p", { className: "error", role: "alert", hidden: true });
    const make = h("button", { type: "button", className: "main", onclick: async () => {
      make.disabled = true;
      try {
        await put(`/manage/projects/${PURPOSE}`, { purpose: PURPOSE, title: t("arena.projecttitle"), reveal: true });
        await open();
      } catch (problem) {
        make.disabled = said.hidden = false;
        said.textContent = problem.message;
      }
    } }, t("arena.setup"));
    return h("div", {}, h("div", { className: "row" }, make), said);
  }

  await open().catch((problem) => say("label.trouble", h("p", {}, problem.message)));
}
