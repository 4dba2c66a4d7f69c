// The Runs page: what training does, while it does it.

import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { connection, isCommand, keys, main, signInAgain } from "./lib/shell.js";
import { Details } from "./runs/details.js";
import { Feed } from "./runs/feed.js";
import { Grid } from "./runs/grid.js";
import { Guard } from "./runs/guard.js";
import { List } from "./runs/list.js";
import { Rail } from "./runs/rail.js";
import { Samples } from "./runs/samples.js";
import { Selection } from "./runs/selection.js";
import { isSilent } from "./runs/words.js";

const CLOCK_MS = 5000;
const SNIPPET = `from backflip.runs import Run
with Run.open("runs/first", kind="mine", settings={}) as run:
    run.log(1, {"objective/scores": 0.5})`;

keys([["J K", "runs.key.next"], ["X", "runs.key.show"], ["P", "runs.key.pause"], ["T", "runs.key.axis"], [", .", "runs.key.sample"]]);

const wanted = location.pathname.split("/").slice(2).map(decodeURIComponent).join("/");
const feed = new Feed();
const selection = new Selection(feed, wanted || "");
const details = new Details(feed, selection);
const list = new List(feed, selection);
const grid = new Grid(feed, selection, details);
const rail = new Rail(feed, selection, details);
const guard = new Guard(feed, selection, details);
const samples = new Samples(feed, selection);
const page = h("div", { className: "runs" }, list.element, rail.element, h("div", { className: "middle stack" }, guard.element, grid.element, samples.element));
const empty = h("div", { className: "empty" }, h("h1", {}, t("runs.none.title")), h("p", {}, t("runs.none.more")), h("pre", { className: "snippet", tabIndex: 0 }, SNIPPET), h("p", {}, t("runs.none.demo"), " ", h("code", {}, "backflip demo")));

function place() {
  const there = feed.cards.size ? page : empty;
  if (main.lastElementChild !== there) main.replaceChildren(h("h1", { className: "hidden" }, t("title.runs")), there);
}

feed.addEventListener("cards", () => {
  place();
  selection.refresh();
  list.draw();
  rail.draw();
  grid.rebuild();
});
feed.addEventListener("lines", ({ detail }) => grid.update(detail));
feed.addEventListener("contact", ({ detail }) => {
  grid.contact(detail);
  connection(detail ? "offline" : "saved", detail ? t("runs.lost") : "");
});
feed.addEventListener("signedout", signInAgain);
details.addEventListener("change", () => grid.rebuild());
selection.addEventListener("change", () => {
  feed.show(selection.ids); // whose first lines have the details asked for: charts come first
  list.draw();
  grid.rebuild();
});
selection.addEventListener("focus", () => {
  const path = selection.focus && selection.focus !== "." ? `/${selection.focus.split("/").map(encodeURIComponent).join("/")}` : "";
  history.replaceState(null, "", `/runs${path}`);
  details.have([selection.focus]);
  list.draw();
});

document.addEventListener("keydown", (event) => {
  if (!isCommand(event)) return;
  const acts = {
    j: () => list.step(1), k: () => list.step(-1), x: () => selection.toggle(selection.focus), p: () => rail.toggle(), t: () => grid.over(grid.wall ? "step" : "wall"),
    ",": () => samples.move(-1), ".": () => samples.move(1),
  };
  const act = acts[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});
setInterval(() => {
  list.draw(); // ages
  rail.draw();
  for (const id of new Set([selection.focus, ...selection.ids])) if (feed.cards.has(id) && isSilent(feed.cards.get(id), feed.now)) details.ask(id); // nothing else would have its alarm shown
}, CLOCK_MS);

async function start() {
  try {
    await feed.start();
    feed.open();
    if (selection.focus === wanted) { details.have([wanted]); samples.load(); }
  } catch (problem) {
    if (problem.status === 401) { signInAgain(); document.addEventListener("backflip:signedin", start, { once: true }); return; }
    main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t("label.trouble")), h("p", {}, problem.message)));
    setTimeout(start, CLOCK_MS);
  }
}

start();
