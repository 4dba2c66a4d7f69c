// Values under the pointer. The page is complete without this: every chart has its table.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const { names, rows, box } = JSON.parse(svg.dataset.chart);
  const plot = svg.parentElement;
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  const cursor = svg.querySelector("line.grid").cloneNode();
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", box[0]);
  cursor.setAttribute("y2", box[1]);
  plot.append(tip);
  const leave = () => { tip.hidden = true; cursor.remove(); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * svg.viewBox.baseVal.width;
    const row = rows.reduce((best, r) => (Math.abs(r[0] - x) < Math.abs(best[0] - x) ? r : best), rows[0]);
    cursor.setAttribute("x1", row[0]);
    cursor.setAttribute("x2", row[0]);
    svg.append(cursor);
    const values = names.map((name, i) => (row[i + 2] ? `${name} ${row[i + 2]}`.trim() : "")).filter(Boolean);
    tip.textContent = [row[1], ...values].join("\n");
    tip.hidden = false;
    const at = (row[0] / svg.viewBox.baseVal.width) * area.width;
    tip.style.left = `${at > area.width / 2 ? at - tip.offsetWidth - 10 : at + 10}px`;
  });
}
