// What somebody who may bring questions is offered where there are none: the starter set, or a file of their own.

import { post } from "./api.js";
import { h } from "./dom.js";
import { count, t } from "./i18n.js";
import { permissions } from "./shell.js";

/** Load the starter set into a project; a sentence that says what came of it. */
export async function loadStarter(project) {
  const { new: n } = await post(`/manage/projects/${encodeURIComponent(project)}/starter`, {});
  return n ? t("starter.loaded", { n: count(n) }) : t("starter.known");
}

/** The two buttons for a project (null: there is none yet), or null for whoever may not.
 *  @param {string|null} project @param {() => void} [done] called when questions were loaded */
export function offer(project, done = () => {}) {
  if (!permissions.has("admin")) return null;
  if (!project) return h("div", { className: "row offer" }, h("a", { className: "button", href: "/projects#new" }, t("starter.make")));
  const said = h("p", { className: "error", role: "alert", hidden: true });
  const load = h("button", { type: "button", className: "main", onclick: async () => {
    load.disabled = true;
    try {
      await loadStarter(project);
      done();
    } catch (problem) {
      said.hidden = false;
      said.textContent = problem.message;
    }
    load.disabled = false;
  } }, t("starter.load"));
  return h("div", { className: "offer" }, h("div", { className: "row" }, load, h("a", { className: "button", href: `/projects/${encodeURIComponent(project)}#bring` }, t("starter.import"))), h("p", { className: "small" }, t("starter.more")), said);
}
