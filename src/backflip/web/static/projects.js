// Projects: what is asked, how it is put to people, and how far they are.

import { get, post, put } from "./lib/api.js";
import { fill, h } from "./lib/dom.js";
import { count, percent, t } from "./lib/i18n.js";
import { main } from "./lib/shell.js";
import { loadStarter } from "./lib/starter.js";
import { upload } from "./lib/upload.js";

const wanted = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const PREVIEW_MS = 300;

function alertLine() {
  const line = h("p", { className: "error", role: "alert", hidden: true });
  return { line, say: (text) => { line.hidden = !text; line.textContent = text; } };
}

// ---- the list

function bar(done, total) {
  return total ? h("progress", { max: total, value: done, "aria-label": t("projects.answered") }) : null;
}

function card(project) {
  const { questions, answered, answers, people } = project.progress;
  const name = project.title || project.id;
  const tags = [project.open ? null : t("projects.closed"), project.answers === "rate" ? t("projects.rates") : null].filter(Boolean);
  return h("li", { className: "card project" },
    h("h2", {}, h("a", { href: `/projects/${encodeURIComponent(project.id)}` }, name), ...tags.map((tag) => h("span", { className: "tag" }, tag))),
    h("p", { className: "small faint" }, questions ? t("projects.progress", { answered: count(answered), questions: count(questions) }) : t("projects.noquestions"), questions ? ` · ${t("projects.by", { answers: count(answers), people: count(people) })}` : ""),
    bar(answered, questions),
    h("div", { className: "row" },
      h("a", { className: "button", href: `/projects/${encodeURIComponent(project.id)}`, "aria-label": `${t("projects.settings")}: ${name}` }, t("projects.settings")),
      project.open ? h("a", { className: "button", href: `/label/${encodeURIComponent(project.id)}`, "aria-label": `${t("projects.label")}: ${name}` }, t("projects.label")) : null));
}

function showList(projects) {
  const head = h("div", { className: "row" }, h("h1", { className: "grow" }, t("title.projects")), h("a", { className: "button main", href: "#new" }, t("projects.new")));
  const list = projects.length
    ? h("ul", { className: "projects" }, ...projects.map(card))
    : h("div", { className: "empty" }, h("h2", {}, t("projects.none")), h("p", {}, t("projects.nonemore")));
  main.replaceChildren(h("div", { className: "stack page" }, head, list,
    h("section", { className: "card" }, h("h2", {}, t("projects.export")), h("p", { className: "small faint" }, t("projects.exportmore")), h("a", { className: "button", href: "/api/v1/export", download: "backflip.jsonl" }, t("projects.download")))));
}

// ---- one project

/** A field with its label and a line that explains it. */
function field(label, control, more) {
  const id = `field-${control.name}`;
  if (more) control.setAttribute("aria-describedby", `${id}-more`);
  return h("div", { className: "field" }, h("label", {}, label, control), more ? h("p", { className: "small faint", id: `${id}-more` }, more) : null);
}

function box(label, control) {
  return h("label", { className: "check" }, control, h("span", {}, label));
}

/** A text in Markdown with how people will see it under it. */
function markdown(label, name, value, maxLength, more) {
  const area = h("textarea", { name, value, maxLength, rows: name === "guideline" ? 8 : 2 });
  const shown = h("div", { className: "text" });
  const preview = h("section", { className: "preview", "aria-label": `${label}: ${t("projects.preview")}`, hidden: true }, h("p", { className: "small faint" }, t("projects.preview")), shown);
  let timer = 0;
  let asked = 0;
  const draw = async () => {
    const turn = asked += 1;
    if (!area.value.trim()) { preview.hidden = true; return; }
    const said = await post("/manage/render", { text: area.value }).catch(() => null);
    if (turn !== asked || !said) return;
    fill(shown, said.html);
    preview.hidden = false;
  };
  area.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(draw, PREVIEW_MS); });
  if (value) draw();
  return h("div", { className: "stack tight" }, field(label, area, more), preview);
}

function settings(project, isNew) {
  const input = (name, props = {}) => h("input", { name, value: project[name] ?? "", ...props });
  const number = (name, value, props) => h("input", { name, type: "number", inputMode: "numeric", required: true, value, step: "any", ...props });
  const check = (name) => h("input", { name, type: "checkbox", checked: project[name] });
  const choose = h("select", { name: "answers" }, ...["compare", "rate"].map((kind) => h("option", { value: kind, selected: project.answers === kind }, t(`projects.${kind}`))));
  const { line, say } = alertLine();
  const done = h("p", { className: "good", role: "status" });
  const share = (x) => Math.round(x * 1e6) / 1e4;
  const form = h("form", { className: "card stack", "aria-label": t(isNew ? "projects.new" : "projects.settings"), onsubmit: save, oninput: () => { dirty = true; done.textContent = ""; } },
    h("h2", {}, t(isNew ? "projects.new" : "projects.settings")),
    isNew ? field(t("projects.id"), input("id", { required: true, pattern: "[a-z0-9][a-z0-9\\-]{0,62}", maxLength: 63, autocapitalize: "none", spellcheck: false, autocomplete: "off" }), t("projects.idmore")) : null,
    field(t("projects.title"), input("title", { maxLength: 200, autocomplete: "off" })),
    markdown(t("projects.question"), "question", project.question, 4000, t("projects.questionmore")),
    markdown(t("projects.guideline"), "guideline", project.guideline, 40_000, t("projects.guidelinemore")),
    h("div", { className: "grid" },
      field(t("projects.kind"), choose),
      field(t("projects.overlap"), number("overlap", project.overlap, { min: 1, max: 1000, step: 1 }), t("projects.overlapmore")),
      field(t("projects.goldshare"), number("gold_share", share(project.gold_share), { min: 0, max: 50 }), t("projects.goldsharemore")),
      field(t("projects.repeatshare"), number("repeat_share", share(project.repeat_share), { min: 0, max: 50 }), t("projects.repeatsharemore")),
      field(t("projects.floor"), number("floor_ms", project.floor_ms, { min: 0, max: 600_000, step: 1 }), t("projects.floormore")),
      isNew ? field(`${t("projects.purpose")} (${t("projects.optional")})`, input("purpose", { maxLength: 64, autocomplete: "off", spellcheck: false }), t("projects.purposemore")) : null),
    box(t("projects.open"), check("open")), box(t("projects.reveal"), check("reveal")), box(t("projects.wholeclip"), check("whole_clip")),
    line, h("div", { className: "row" }, h("button", { className: "main" }, t(isNew ? "projects.make" : "projects.save")), done));
  let dirty = false;

  async function save(event) {
    event.preventDefault();
    const value = (name) => form.elements[name].value;
    const id = isNew ? value("id").trim() : project.id;
    const body = {
      title: value("title").trim(), question: value("question").trim(), guideline: value("guideline").trim(), answers: value("answers"),
      overlap: Number(value("overlap")), floor_ms: Number(value("floor_ms")), gold_share: Number(value("gold_share")) / 100, repeat_share: Number(value("repeat_share")) / 100,
      open: form.elements.open.checked, reveal: form.elements.reveal.checked, whole_clip: form.elements.whole_clip.checked,
      purpose: isNew ? value("purpose").trim() : project.purpose,
    };
    try {
      say("");
      await put(`/manage/projects/${encodeURIComponent(id)}`, body);
      dirty = false;
      if (isNew) location.assign(`/projects/${encodeURIComponent(id)}`);
      else done.textContent = t("projects.saved");
    } catch (problem) {
      say(problem.message);
    }
  }

  addEventListener("beforeunload", (event) => { if (dirty && form.isConnected) event.preventDefault(); });
  return form;
}

function figures(progress) {
  return h("dl", { className: "figures" }, ...["questions", "answered", "answers", "people", "golds", "repeats"].map((name) => h("div", {}, h("dt", { className: "small faint" }, t(`projects.${name}`)), h("dd", { className: "number" }, count(progress[name])))));
}

function bring(project, changed) {
  const { line, say } = alertLine();
  const said = h("p", { role: "status" });
  const progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": t("projects.bring") });
  const file = h("input", { type: "file", hidden: true, "aria-label": t("projects.choose"), accept: ".jsonl,.json,.gz,.ndjson,application/jsonl,application/json,application/gzip", onchange: () => { if (file.files[0]) send(file.files[0]); file.value = ""; } });
  const known = h("select", { name: "known" }, h("option", { value: "" }, t("projects.asquestions")), h("option", { value: "true" }, t("projects.asgolds")));
  const starter = h("button", { type: "button", onclick: async () => {
    say("");
    starter.disabled = true;
    try { said.textContent = await loadStarter(project.id); changed(); } catch (problem) { say(problem.message); }
    starter.disabled = false;
  } }, t("starter.load"));
  const choose = h("button", { type: "button", className: "main", onclick: () => file.click() }, t("projects.choose"));
  const area = h("div", { className: "drop" }, h("p", {}, t("projects.drop")), file, choose);

  async function send(given) {
    say("");
    choose.disabled = true;
    progress.hidden = false;
    const tell = (share) => {
      progress.value = share;
      said.textContent = share < 1 ? t("projects.uploading", { name: given.name, share: percent(share) }) : t("projects.reading", { name: given.name });
    };
    try {
      const query = new URLSearchParams({ project: project.id, ...(known.value ? { known: "true" } : {}) });
      const { rows, new: n } = await upload(`/import?${query}`, given, "application/jsonl", tell);
      said.textContent = t("projects.imported", { name: given.name, rows: count(rows), new: count(n) });
      changed();
    } catch (problem) {
      said.textContent = "";
      say(t("projects.refused", { name: given.name, why: problem.status ? problem.message : t("projects.unreachable") }));
    }
    progress.hidden = true;
    choose.disabled = false;
  }

  for (const kind of ["dragenter", "dragover"]) area.addEventListener(kind, (event) => { event.preventDefault(); area.dataset.over = ""; });
  for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, (event) => { event.preventDefault(); delete area.dataset.over; });
  area.addEventListener("drop", (event) => { if (event.dataTransfer?.files[0]) send(event.dataTransfer.files[0]); });
  return h("section", { className: "card stack", id: "bring" }, h("h2", {}, t("projects.bring")), field(t("projects.as"), known), area, progress, said, line,
    h("p", { className: "small faint" }, t("projects.formats")), h("hr"), h("div", { className: "row" }, starter), h("p", { className: "small faint" }, t("starter.more")));
}

function program(project) {
  const code = `import backflip\n\nclient = backflip.Client("${location.origin}", token)\nclient.push("${project.id}", [{"prompt": "…", "completions": ["…", "…"]}])\nfor comparison in client.comparisons("${project.id}"):\n    …`;
  return h("section", { className: "card" }, h("h2", {}, t("projects.program")), h("p", { className: "small faint" }, t("projects.programmore"), " ", h("a", { href: "/people" }, t("title.people"))), h("pre", { className: "code", tabIndex: 0, "aria-label": t("projects.program") }, code));
}

async function showOne(id) {
  const project = await get(`/manage/projects/${encodeURIComponent(id)}`);
  const name = project.title || project.id;
  document.title = `${name} · backflip`;
  let numbers = figures(project.progress);
  const changed = async () => {
    const fresh = figures((await get(`/manage/projects/${encodeURIComponent(id)}`)).progress);
    numbers.replaceWith(fresh);
    numbers = fresh;
  };
  main.replaceChildren(h("div", { className: "stack page" },
    h("p", {}, h("a", { href: "/projects" }, `← ${t("projects.back")}`)),
    h("div", { className: "row" }, h("h1", { className: "grow" }, name, " ", h("code", { className: "small faint" }, project.id)), project.open ? h("a", { className: "button", href: `/label/${encodeURIComponent(project.id)}` }, t("projects.label")) : null),
    numbers,
    h("div", { className: "two" }, settings(project, false), h("div", { className: "stack" }, bring(project, changed), program(project)))));
  if (location.hash === "#bring") document.getElementById("bring").scrollIntoView();
}

const BLANK = { id: "", purpose: "", title: "", question: "", guideline: "", answers: "compare", overlap: 1, gold_share: 0, repeat_share: 0, floor_ms: 600, reveal: false, whole_clip: true, open: true };

function showNew() {
  const form = settings(BLANK, true);
  main.replaceChildren(h("div", { className: "stack page narrow" }, h("p", {}, h("a", { href: "/projects" }, `← ${t("projects.back")}`)), h("h1", { className: "hidden" }, t("projects.new")), form));
  form.elements.id.focus();
}

async function show() {
  if (wanted) await showOne(wanted);
  else if (location.hash === "#new") showNew();
  else showList(await get("/manage/projects"));
}

const trouble = (problem) => main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t("projects.trouble")), h("p", {}, problem.message)));
addEventListener("hashchange", () => show().catch(trouble));
show().catch(trouble);
