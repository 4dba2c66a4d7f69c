// A board from its state, drawn as SVG: exact at any size, nothing to load.
//   {"kind": "grid"|"chess"|"go"|"discs", "rows": ["X.O", …], "last": [row, column], "caption": "…"}  ("." is empty)
//   {"kind": "chess", "fen": "…"}

import { s } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

const PIECES = { K: "♔", Q: "♕", R: "♖", B: "♗", N: "♘", P: "♙", k: "♚", q: "♛", r: "♜", b: "♝", n: "♞", p: "♟" };
const UNIT = 40;

/** @param {Record<string, any>} state */
export function board(state) {
  const rows = rowsOf(state);
  const width = Math.max(1, ...rows.map((row) => row.length));
  const kind = state.kind ?? "grid";
  const height = rows.length || 1;
  const said = rows.map((row) => row.join("")).join(" / ");
  const svg = s("svg", { viewBox: `0 0 ${width * UNIT} ${height * UNIT}`, class: "board", role: "img", "aria-label": t("board.label", { rows: said }) });
  for (let r = 0; r < height; r += 1) {
    for (let c = 0; c < width; c += 1) {
      const dark = kind === "chess" && (r + c) % 2;
      svg.append(s("rect", { x: c * UNIT, y: r * UNIT, width: UNIT, height: UNIT, fill: dark ? "var(--line)" : "var(--sunken)", stroke: "var(--strong-line)", "stroke-width": 1 }));
      if (state.last?.[0] === r && state.last?.[1] === c) svg.append(s("rect", { x: c * UNIT + 2, y: r * UNIT + 2, width: UNIT - 4, height: UNIT - 4, fill: "none", stroke: "var(--accent)", "stroke-width": 3 }));
      const mark = rows[r]?.[c] ?? ".";
      if (mark !== "." && mark !== " ") svg.append(piece(kind, mark, (c + 0.5) * UNIT, (r + 0.5) * UNIT));
    }
  }
  return svg;
}

function rowsOf(state) {
  if (typeof state.fen === "string") return state.fen.split(" ")[0].split("/").map((row) => [...row].flatMap((x) => (/\d/.test(x) ? Array(Number(x)).fill(".") : [x])));
  return (Array.isArray(state.rows) ? state.rows : []).map((row) => [...String(row)]);
}

function piece(kind, mark, x, y) {
  const stroke = { stroke: "var(--ink)", "stroke-width": 4, "stroke-linecap": "round", fill: "none" };
  if (kind === "discs" || kind === "go") {
    const first = mark === mark.toUpperCase();
    const fill = kind === "go" ? (first ? "#111" : "#f5f5f5") : first ? "var(--accent)" : "var(--warn)";
    return s("circle", { cx: x, cy: y, r: 15, fill, stroke: "var(--strong-line)", "stroke-width": 1.5 });
  }
  if (kind === "grid" && mark === "X") return s("path", { d: `M${x - 11} ${y - 11}l22 22m0-22l-22 22`, ...stroke });
  if (kind === "grid" && mark === "O") return s("circle", { cx: x, cy: y, r: 12, ...stroke });
  const text = kind === "chess" ? PIECES[mark] ?? mark : mark;
  return s("text", { x, y, "text-anchor": "middle", "dominant-baseline": "central", "font-size": kind === "chess" ? 30 : 22, fill: "var(--ink)" }, text);
}
