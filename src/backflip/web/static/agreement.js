// The Agreement page: how far the answers of a project can be trusted, and what is decided where people differ.

import { get } from "./lib/api.js";
import { h } from "./lib/dom.js";
import { count, moment, t } from "./lib/i18n.js";
import { isCommand, keys, main, permissions, signInAgain } from "./lib/shell.js";
import { Desk, KEYS } from "./agreement/desk.js";
import { headline } from "./agreement/headline.js";
import { matrix } from "./agreement/matrix.js";
import { notices, raters } from "./agreement/raters.js";

keys(KEYS);
const wanted = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const SOON_MS = 1500; // while a newer report is worked out
const LATER_MS = 15_000;

function say(title, text, ...more) {
  main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t(title)), h("p", {}, text), ...more));
}

/** A part of the page that stays while what it holds is drawn anew. */
function section(id, title, ...more) {
  const body = h("div", {});
  const element = h("section", { id, className: "card", "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, t(title)), ...more, body);
  return { element, draw: (...children) => body.replaceChildren(...children.filter(Boolean)) };
}

class Page {
  /** @param {any} project @param {any[]} projects */
  constructor(project, projects) {
    this.project = project;
    this.when = h("p", { className: "small faint when", role: "status" });
    this.trouble = h("p", { className: "error", role: "alert", hidden: true });
    this.figures = h("section", { className: "card figures", "aria-label": t("agreement.figures") });
    this.notices = section("notices", "agreement.notices");
    this.raters = section("raters", "agreement.raters", h("p", { className: "small faint" }, t("agreement.ratersmore")));
    this.matrix = section("matrix", "agreement.matrix", h("p", { className: "small faint" }, t("agreement.matrixmore")));
    this.desk = new Desk(project, permissions.has("adjudicate"));
    this.desk.addEventListener("stored", () => this.load());
    this.rest = h("div", { className: "stack" }, this.notices.element, this.desk.element, this.raters.element, this.matrix.element);
    const choose = h("select", { onchange: (event) => location.assign(`/agreement/${encodeURIComponent(event.target.value)}`) },
      ...projects.map((each) => h("option", { value: each.id, selected: each.id === project.id }, each.open ? each.title : t("agreement.closed", { project: each.title }))));
    const chosen = projects.length > 1 ? h("label", { className: "row choose" }, h("span", { className: "faint small" }, t("label.project")), choose) : h("span", { className: "faint" }, project.title);
    this.head = h("div", { className: "row" }, h("h1", { className: "grow" }, t("title.agreement")), chosen);
    this.said = "";
  }

  start() {
    main.replaceChildren(h("div", { className: "stack" }, h("div", {}, this.head, this.when), this.trouble, this.figures, this.rest));
    this.rest.hidden = this.figures.hidden = true;
    this.when.textContent = t("agreement.working");
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.load(); });
    document.addEventListener("backflip:signedin", () => this.load());
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() === "d" && isCommand(event) && !this.rest.hidden) { event.preventDefault(); this.desk.focus(); }
    });
    return this.load();
  }

  async load() {
    clearTimeout(this.timer);
    let next = LATER_MS;
    try {
      const said = await get(`/agreement/${encodeURIComponent(this.project.id)}`);
      this.draw(said);
      if (!said.current) next = SOON_MS;
    } catch (problem) {
      if (problem.status === 401) signInAgain();
      else this.fail(problem);
      next = Math.max(SOON_MS, (problem.wait || 0) * 1000);
    }
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.load(), next);
  }

  fail(problem) {
    if (this.figures.hidden) this.when.textContent = "";
    this.trouble.hidden = false;
    this.trouble.textContent = problem.status ? t("agreement.failed", { problem: problem.message }) : t("agreement.away");
  }

  draw({ report, current, failure }) {
    this.trouble.hidden = !failure;
    if (failure) this.trouble.textContent = t(`agreement.failed.${failure.step}`, { problem: failure.problem, time: moment(report.at) });
    const said = t("agreement.from", { answers: count(report.answers), questions: count(report.questions), time: moment(report.at) });
    this.when.textContent = current || failure ? said : `${said} ${t("agreement.newer")}`;
    const now = JSON.stringify(report);
    if (now === this.said) return; // whoever reads is not disturbed
    this.said = now;
    const anybody = report.n_raters > 0;
    this.figures.hidden = false;
    this.figures.replaceChildren(...headline(report, this.project));
    this.rest.hidden = !anybody;
    if (!anybody) return;
    this.notices.draw(notices(report));
    this.raters.draw(...raters(report));
    this.matrix.element.hidden = report.matrix.length < 2;
    this.matrix.draw(...matrix(report));
    this.desk.update(report);
  }
}

async function start() {
  const projects = await get("/agreement");
  const project = wanted ? projects.find((each) => each.id === wanted) : projects[0];
  if (!projects.length) say("label.noproject", t("label.noprojectmore"));
  else if (!project) say("agreement.unknown", t("agreement.unknownmore", { project: wanted }), h("p", {}, h("a", { href: "/agreement" }, t("title.agreement"))));
  else {
    document.title = `${t("title.agreement")} · ${project.title} · backflip`;
    await new Page(project, projects).start();
  }
}

start().catch((problem) => (problem.status === 401 ? signInAgain() : say("label.trouble", problem.status ? problem.message : t("agreement.away"))));
