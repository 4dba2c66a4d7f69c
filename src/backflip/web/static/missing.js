import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { main } from "./lib/shell.js";

main.replaceChildren(h("div", { className: "empty" }, h("h1", {}, t("title.missing")), h("p", {}, t("missing.more"))));
