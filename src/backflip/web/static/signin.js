// Signing in: with the secret behind the # of a link, or with a name and a password.

import { post } from "./lib/api.js";
import { h } from "./lib/dom.js";
import { t } from "./lib/i18n.js";
import { main } from "./lib/shell.js";

const carried = location.hash.slice(1);
history.replaceState(null, "", location.pathname); // the secret stays in no history
const [kind, secret] = carried.includes("=") ? carried.split("=", 2) : ["link", carried];
const said = h("p", { className: "error", hidden: true, role: "alert" });

async function enter(body) {
  try {
    await post("/session", body);
    location.assign("/");
  } catch (problem) {
    said.hidden = false;
    said.textContent = problem.message;
  }
}

function show() {
  const invited = kind === "invitation" && secret;
  const name = h("input", { name: "name", autocomplete: "username", required: true, maxLength: 64 });
  const password = h("input", { name: "password", type: "password", autocomplete: invited ? "new-password" : "current-password", required: true, minLength: invited ? 10 : 1, maxLength: 256 });
  const form = h("form", { className: "card stack", onsubmit: (event) => {
    event.preventDefault();
    enter(invited ? { invitation: secret, name: name.value, password: password.value } : { name: name.value, password: password.value });
  } },
  h("h1", {}, t(invited ? "signin.join" : "signin.signin")), h("p", { className: "faint" }, t(invited ? "signin.joinmore" : "signin.more")),
  h("label", {}, t("signin.name"), name), h("label", {}, t(invited ? "signin.newpassword" : "signin.password"), password), said, h("button", { className: "main" }, t(invited ? "signin.join" : "signin.signin")));
  main.replaceChildren(h("div", { className: "signin" }, form));
  name.focus();
}

show();
if (kind === "link" && secret) enter({ link: secret });
