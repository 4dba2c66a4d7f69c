// The Label page: which project, then its questions.

import { get } from "./lib/api.js";
import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { keys, main } from "./lib/shell.js";
import { KEYS, Labeller, projectOf } from "./label/labeller.js";

keys(KEYS);
const wanted = decodeURIComponent(location.pathname.split("/")[2] ?? "");

function say(title, text) {
  main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t(title)), h("p", {}, text)));
}

async function start() {
  const projects = await get("/projects");
  const id = wanted || projects[0]?.id;
  if (!id) { say("label.noproject", t("label.noprojectmore")); return; }
  const project = await projectOf(id);
  document.title = `${project.title} · backflip`;
  if (projects.length > 1) {
    const choose = h("select", { onchange: (event) => location.assign(`/label/${encodeURIComponent(event.target.value)}`) }, ...projects.map((each) => h("option", { value: each.id, selected: each.id === id }, each.title)));
    main.append(h("label", { className: "row" }, h("span", { className: "faint small" }, t("label.project")), choose));
    choose.style.width = "auto";
  } else main.append(h("h1", { className: "hidden" }, project.title));
  const root = h("div", { className: "labelling" });
  main.append(root);
  await new Labeller(root, project).start();
}

start().catch((problem) => say("label.trouble", problem.message));
