// The Label page: which project, then its questions.

import { get } from "./lib/api.js";
import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { keys, main, signInAgain } from "./lib/shell.js";
import { offer } from "./lib/starter.js";
import { KEYS, Labeller, openOutbox, projectOf } from "./label/labeller.js";

keys(KEYS);
const wanted = decodeURIComponent(location.pathname.split("/")[2] ?? "");

function say(title, text) {
  main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t(title)), h("p", {}, text)));
}

const RETRY_MS = 3000;

/** Ask until the server answers; meanwhile the page says that nothing is lost. */
async function patiently(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (problem) {
      if (problem.status === 401) signInAgain();
      else if (problem.status && problem.status < 500) throw problem;
      say("label.waiting", t("label.nothinglost"));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function start() {
  const outbox = await openOutbox();
  const projects = await patiently(() => get("/projects"));
  const id = wanted || projects[0]?.id;
  if (!id) { say("label.noproject", t("label.noprojectmore")); main.firstElementChild.append(offer(null) ?? ""); return; }
  const project = await patiently(() => projectOf(id));
  document.title = `${project.title} · backflip`;
  main.replaceChildren();
  if (projects.length > 1) {
    const choose = h("select", { onchange: (event) => location.assign(`/label/${encodeURIComponent(event.target.value)}`) }, ...projects.map((each) => h("option", { value: each.id, selected: each.id === id }, each.title)));
    main.append(h("label", { className: "row" }, h("span", { className: "faint small" }, t("label.project")), choose));
    choose.style.width = "auto";
  } else main.append(h("h1", { className: "hidden" }, project.title));
  const root = h("div", { className: "labelling" });
  main.append(root);
  await new Labeller(root, project, outbox).start();
}

start().catch((problem) => say("label.trouble", problem.message));
