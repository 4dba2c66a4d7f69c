// Sending samples to people: which project asks them, and what became of it.

import { get, post } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count, t } from "../lib/i18n.js";
import { permissions } from "../lib/shell.js";
import { pathOf } from "./feed.js";

let asked = null;

/** The projects that are open; asked for once. */
export const projects = () => (asked ??= permissions.has("label") ? get("/projects").catch(() => { asked = null; return []; }) : Promise.resolve([]));

/** Whether this person may control runs and send samples to people. */
export const mayRun = permissions.has("run");

/** A choice of project; hidden while there is only one to choose. */
export function projectChoice() {
  const select = h("select", { "aria-label": t("runs.project") });
  const label = h("label", { className: "project small" }, h("span", { className: "faint" }, t("runs.project")), select);
  projects().then((found) => {
    select.replaceChildren(...found.map((project) => h("option", { value: project.id }, project.title)));
    label.hidden = found.length < 2;
  });
  return { element: label, get value() { return select.value; }, get title() { return select.selectedOptions[0]?.textContent ?? select.value; } };
}

/** Send samples of a run to labelling; the sentence that says what became of it. @param {any} wanted rows or n, step, alarm */
export async function send(id, choice, wanted) {
  await projects();
  if (!choice.value) return t("runs.noproject");
  try {
    const said = await post(`${pathOf(id)}/label`, { project: choice.value, ...wanted });
    const parts = [t("runs.sent", { n: count(said.new), project: choice.title })];
    for (const kind of ["known", "same", "alone"]) if (said[kind]) parts.push(t(`runs.sent.${kind}`, { n: count(said[kind]) }));
    return parts.join(" ");
  } catch (problem) { return problem.message; }
}
