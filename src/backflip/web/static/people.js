// People: who may do what, how they get in, what programs carry, and what was changed by whom.

import { get, post, put, remove } from "./lib/api.js";
import { dialog, h } from "./lib/dom.js";
import { count, known, moment, t } from "./lib/i18n.js";
import { main, person as me } from "./lib/shell.js";

const ROLES = ["owner", "admin", "adjudicator", "annotator", "viewer"];
const GUARDED = ["owner", "admin"];
const SCOPES = ["label", "read", "run", "admin"];
const owner = document.body.dataset.role === "owner";
const grantable = ROLES.filter((role) => owner || !GUARDED.includes(role));

const named = (name) => encodeURIComponent(name);
const button = (label, action, props = {}) => h("button", { type: "button", onclick: action, ...props }, label);

/** A place for one sentence about what went wrong, and a wrapper that fills it. */
function careful() {
  const line = h("p", { className: "error", role: "alert", hidden: true });
  const trying = (action) => async (event) => {
    event?.preventDefault();
    line.hidden = true;
    try { await action(event); } catch (problem) { line.hidden = false; line.textContent = problem.message; }
  };
  return { line, trying };
}

function roleSelect(chosen, roles = grantable) {
  return h("select", { name: "role" }, ...roles.map((role) => h("option", { value: role, selected: role === chosen }, t("people.rolewith", { role: t(`role.${role}`), what: t(`people.roles.${role}`) }))));
}

/** What somebody is to carry, shown once, with a button that copies it. */
function showOnce(title, secret, until) {
  const field = h("input", { value: secret, readOnly: true, "aria-label": title, className: "secret", spellcheck: false, onfocus: () => field.select() });
  const said = h("span", { role: "status", className: "good" });
  const copy = button(t("people.copy"), async () => {
    field.select();
    try { await navigator.clipboard.writeText(secret); } catch { document.execCommand("copy"); }
    said.textContent = t("people.copied");
  }, { className: "main" });
  const layer = dialog(title, h("div", { className: "stack" }, h("p", { className: "notice" }, t("people.once")), field, h("div", { className: "row" }, copy, button(t("shell.close"), () => layer.close()), said), h("p", { className: "small faint" }, t("people.until", { until: moment(until) }))));
  copy.focus();
}

/** A table whose cells carry their heading, so that they can stand one under the other on a small screen. */
function table(label, headings, rows) {
  return h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, ...headings.map((heading) => h("th", { scope: "col" }, heading || h("span", { className: "hidden" }, t("people.change")))))),
    h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell, i) => h("td", { dataset: { heading: headings[i] } }, ...[cell].flat()))))));
}

// ---- people

function changeDialog(one) {
  const { line, trying } = careful();
  const role = roleSelect(one.role, ROLES.filter((each) => owner || !GUARDED.includes(each)));
  const active = h("input", { type: "checkbox", checked: one.active });
  const link = button(t("people.link"), trying(async () => {
    const made = await post(`/manage/people/${named(one.name)}/link`, {});
    layer.close();
    showOnce(t("people.signinlink", { name: one.name }), made.link, made.until);
  }), { disabled: !one.active });
  const layer = dialog(t("people.changeof", { name: one.name }),
    h("form", { onsubmit: trying(async () => { await put(`/manage/people/${named(one.name)}`, { role: role.value, active: active.checked }); layer.close(); await redrawPeople(); }) },
      h("label", {}, t("people.role"), role), h("label", { className: "check" }, active, h("span", {}, t("people.maysignin"))), h("p", { className: "small faint" }, t("people.endsall")), line,
      h("div", { className: "row" }, h("button", { className: "main" }, t("people.save")), button(t("shell.cancel"), () => layer.close()))),
    h("hr"), h("p", { className: "small faint" }, t("people.linkmore")), link);
}

async function people() {
  const everybody = await get("/manage/people");
  const row = (one) => [
    [one.name, one.name === me ? h("span", { className: "tag" }, t("people.you")) : null].filter(Boolean),
    t(`role.${one.role}`),
    [h("span", { className: one.active ? "good" : "bad" }, t(one.active ? "people.active" : "people.inactive")), one.has_password ? null : h("span", { className: "tag" }, t("people.program"))].filter(Boolean),
    moment(one.at),
    owner || !GUARDED.includes(one.role) ? button(t("people.change"), () => changeDialog(one), { "aria-label": t("people.changeof", { name: one.name }) }) : "",
  ];
  return table(t("title.people"), [t("people.name"), t("people.role"), t("people.state"), t("people.came"), ""], everybody.map(row));
}

function addForm() {
  const { line, trying } = careful();
  const said = h("p", { role: "status", className: "good" });
  const name = h("input", { name: "name", required: true, maxLength: 64, autocomplete: "off" });
  const role = roleSelect("annotator");
  return h("details", { className: "more" }, h("summary", {}, t("people.add")), h("form", { className: "stack", onsubmit: trying(async () => {
    const made = await post("/manage/people", { name: name.value.trim(), role: role.value });
    name.value = "";
    said.textContent = t("people.added", { name: made.name });
    await Promise.all([redrawPeople(), redrawTokens()]);
  }) }, h("p", { className: "small faint" }, t("people.addmore")), h("div", { className: "fields" }, h("label", {}, t("people.name"), name), h("label", {}, t("people.role"), role)), line, said, h("div", {}, h("button", {}, t("people.add")))));
}

// ---- invitations

async function invitations() {
  const waiting = await get("/manage/invitations");
  if (!waiting.length) return h("p", { className: "small faint" }, t("people.noinvitations"));
  const { line, trying } = careful();
  return h("div", {}, line, h("ul", { className: "plain" }, ...waiting.map((one) => {
    const text = t("people.waiting", { role: t(`role.${one.role}`), by: one.by, until: moment(one.until) });
    return h("li", { className: "row" }, h("span", { className: "grow" }, text), button(t("people.revoke"), trying(async () => { await remove(`/manage/invitations/${one.id}`); await redrawInvitations(); }), { className: "danger", "aria-label": t("people.revokethis", { what: text }) }));
  })));
}

function inviteForm() {
  const { line, trying } = careful();
  const role = roleSelect("annotator");
  const hours = h("select", { name: "hours" }, ...[24, 72, 168, 720].map((n) => h("option", { value: String(n), selected: n === 72 }, t(`people.hours.${n}`))));
  return h("form", { className: "stack", onsubmit: trying(async () => {
    const made = await post("/manage/invitations", { role: role.value, hours: Number(hours.value) });
    showOnce(t("people.invitationlink"), made.link, made.until);
    await redrawInvitations();
  }) }, h("p", { className: "small faint" }, t("people.invitemore")), h("div", { className: "fields" }, h("label", {}, t("people.role"), role), h("label", {}, t("people.validfor"), hours)), line, h("div", {}, h("button", { className: "main" }, t("people.invite"))));
}

// ---- tokens

async function tokens() {
  const [held, everybody] = await Promise.all([get("/manage/tokens"), get("/manage/people")]);
  const { line, trying } = careful();
  const programs = everybody.filter((one) => one.active && one.name !== me && !one.has_password && (owner || !GUARDED.includes(one.role)));
  const whose = h("select", { name: "person" }, h("option", { value: "" }, `${me} (${t("people.you")})`), ...programs.map((one) => h("option", { value: one.name }, one.name)));
  const scopes = SCOPES.map((scope) => h("input", { type: "checkbox", name: scope, checked: scope === "read" }));
  const days = h("select", { name: "days" }, ...[7, 90, 365].map((n) => h("option", { value: String(n), selected: n === 90 }, t(`people.days.${n}`))));
  const note = h("input", { name: "note", maxLength: 100, autocomplete: "off" });
  const form = h("form", { className: "stack", onsubmit: trying(async () => {
    const chosen = SCOPES.filter((_, i) => scopes[i].checked);
    if (!chosen.length) throw new Error(t("people.noscope"));
    const made = await post("/manage/tokens", { person: whose.value || null, scopes: chosen, days: Number(days.value), note: note.value.trim() });
    showOnce(t("people.token", { name: whose.value || me }), made.token, made.until);
    await redrawTokens();
  }) }, h("p", { className: "small faint" }, t("people.tokensmore")),
  h("div", { className: "fields" }, h("label", {}, t("people.for"), whose), h("label", {}, t("people.validfor"), days), h("label", {}, t("people.note"), note)),
  h("fieldset", {}, h("legend", {}, t("people.scopes")), ...SCOPES.map((scope, i) => h("label", { className: "check" }, scopes[i], h("span", {}, t(`people.scope.${scope}`))))),
  line, h("div", {}, h("button", { className: "main" }, t("people.issue"))));
  const removal = careful();
  const list = held.length
    ? table(t("people.tokens"), [t("people.for"), t("people.note"), t("people.scopes"), t("people.used"), t("people.ends"), ""], held.map((one) => [
      one.person, one.note || "–", one.scopes.join(", "), one.used ? moment(one.used) : t("people.never"), moment(one.until),
      button(t("people.revoke"), removal.trying(async () => { await remove(`/manage/tokens/${one.id}`); await redrawTokens(); }), { className: "danger", "aria-label": t("people.revokethis", { what: one.note || one.id }) }),
    ]))
    : h("p", { className: "small faint" }, t("people.notokens"));
  return h("div", { className: "stack" }, removal.line, list, form);
}

// ---- the audit

function did(row) {
  const key = `people.did.${row.what.replaceAll(" ", "_")}`;
  const details = { ...row.details, ...(row.details.project ? { id: row.details.project.id } : {}) };
  if (details.role) details.role = t(`role.${details.role}`);
  if (Array.isArray(details.scopes)) details.scopes = details.scopes.join(", ");
  return known(key) ? t(key, details) : row.what;
}

function auditRow(row) {
  return h("li", {}, h("details", {}, h("summary", {}, h("span", { className: "small faint number" }, moment(row.at)), " ", h("strong", {}, row.actor), " ", did(row)),
    h("pre", { className: "code", tabIndex: 0, "aria-label": t("people.details") }, JSON.stringify({ event: row.id, what: row.what, ...row.details }, null, 1))));
}

function audit() {
  const list = h("ol", { className: "plain audit" });
  const { line, trying } = careful();
  let before = null;
  const older = button(t("people.older"), trying(more), { hidden: true });
  async function more() {
    const said = await get(`/manage/audit?limit=20${before ? `&before=${before}` : ""}`);
    list.append(...said.rows.reverse().map(auditRow));
    older.hidden = !said.more;
    before = said.rows.at(-1)?.id ?? before;
  }
  const found = h("p", { role: "status" });
  const check = button(t("people.verify"), trying(async () => {
    found.className = "";
    found.textContent = t("people.verifying");
    check.disabled = true;
    try {
      const said = await get("/manage/verify");
      found.className = said.ok ? "good" : "bad";
      if (said.ok) found.replaceChildren(`${t("people.sound", { queries: count(said.queries), verdicts: count(said.verdicts), events: count(said.events) })} `, h("code", {}, said.head));
      else found.textContent = `${t("people.unsound")} ${said.problem}`;
    } catch (problem) {
      found.textContent = "";
      throw problem;
    } finally { check.disabled = false; }
  }));
  trying(more)();
  return h("section", { className: "card stack" }, h("h2", {}, t("people.audit")), h("p", { className: "small faint" }, t("people.auditmore"), " ", t("people.verifymore"), " ", h("code", {}, "backflip store verify")), h("div", { className: "row" }, check), found, line, list, h("div", {}, older));
}

// ---- the page

const place = () => h("div", { tabIndex: -1 });
const places = { people: place(), invitations: place(), tokens: place() };

/** Draw a part anew; whoever was at a button of it that is gone is put where it was. */
async function redraw(where, make) {
  const fresh = await make();
  const lost = where.contains(document.activeElement);
  where.replaceChildren(fresh);
  if (lost) where.focus();
}

const redrawPeople = () => redraw(places.people, people);
const redrawInvitations = () => redraw(places.invitations, invitations);
const redrawTokens = () => redraw(places.tokens, tokens);

async function show() {
  await Promise.all([redrawPeople(), redrawInvitations(), redrawTokens()]);
  main.replaceChildren(h("div", { className: "stack page" }, h("h1", {}, t("title.people")),
    h("section", { className: "card stack" }, places.people, addForm()),
    h("section", { className: "card stack" }, h("h2", {}, t("people.invitations")), places.invitations, inviteForm()),
    h("section", { className: "card stack" }, h("h2", {}, t("people.tokens")), places.tokens),
    audit()));
}

show().catch((problem) => main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t("people.trouble")), h("p", {}, problem.message))));
