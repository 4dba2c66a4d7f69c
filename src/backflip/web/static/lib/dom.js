// Elements from names, properties and children. Text is text: the only way to HTML is `fill`, and it takes what the server cleaned.

/** @param {string} tag @param {Record<string, any>} [props] @param {...(Node|string|number|null|undefined|false)} children */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false).map(asNode));
  return element;
}

/** The same for SVG. */
export function s(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) if (value !== undefined && value !== null) element.setAttribute(name, String(value));
  element.append(...children.map(asNode));
  return element;
}

const asNode = (child) => (child instanceof Node ? child : String(child));

const policy = globalThis.trustedTypes?.createPolicy("backflip", { createHTML: (html) => html });

/** Fill an element with HTML that the server rendered and cleaned (`web/render.py`). */
export function fill(element, html) {
  element.innerHTML = policy ? policy.createHTML(html) : html;
  for (const link of element.querySelectorAll("a[href]")) link.target = "_blank";
  return element;
}

/** A dialog above the page; it is gone when it is closed. */
export function dialog(title, ...children) {
  const heading = h("h2", { id: "layer-title" }, title);
  const layer = h("dialog", { "aria-labelledby": "layer-title" }, heading, ...children);
  layer.addEventListener("close", () => layer.remove());
  layer.addEventListener("click", (event) => { if (event.target === layer) layer.close(); });
  document.getElementById("layers").append(layer);
  layer.showModal();
  return layer;
}
