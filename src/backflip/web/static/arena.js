// The Arena page: ratings at /arena, blind battles at /arena/battle, chat with a policy at /arena/chat.
// Each is a page load of its own, so that keys which answer a battle are there only while it is on the page.

import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { main, permissions } from "./lib/shell.js";
import { battle } from "./arena/battle.js";
import { chat } from "./arena/chat.js";
import { ratings } from "./arena/ratings.js";

const PARTS = { ratings: [ratings, "read"], battle: [battle, "label"], chat: [chat, "run"] };
const asked = location.pathname.split("/")[2] || "ratings";
const part = PARTS[asked] ? asked : "ratings";

const tabs = Object.entries(PARTS).filter(([, [, permission]]) => permissions.has(permission)).map(([name]) =>
  h("li", {}, h("a", { href: name === "ratings" ? "/arena" : `/arena/${name}`, "aria-current": name === part ? "page" : null }, t(`arena.${name}`))));
const room = h("div", { className: `room ${part}` });
main.replaceChildren(h("div", { className: "head" }, h("h1", {}, t("title.arena")), h("nav", { "aria-label": t("arena.tabs") }, h("ul", { className: "tabs" }, ...tabs))), room);
document.title = `${t(`arena.${part}`)} · ${t("title.arena")} · backflip`;

const [start, permission] = PARTS[part];
if (permissions.has(permission)) start(room);
else room.append(h("div", { className: "empty" }, h("p", {}, t("arena.notallowed"))));
