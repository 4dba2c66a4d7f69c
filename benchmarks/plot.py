"""The results of a machine as one picture: ratios and roofline as bars with their spread, scaling as lines."""

from __future__ import annotations

import math
from typing import Any

from bars import FLOORS, ratio_bar
from worker import QUIET

from backflip.runs.charts import escape, number, ticks

WIDTH, LEFT, RIGHT, ROW = 820, 220, 60, 16
INK, PALE, MET, MISSED, PLAIN = "#1f2933", "#d5dbe1", "#2f6fb0", "#c2571a", "#8a97a5"
FONT = 'font-family="system-ui, sans-serif"'


def picture(results: dict[str, Any]) -> str:
    """The whole picture as SVG text."""
    parts: list[str] = []
    bottom = _ratios(results.get("ratios", {}), parts, 10, bars="gpu" not in results.get("machine", {}))
    bottom = _floors(results, parts, bottom + 24)
    bottom = _scaling(results.get("scaling", {}), parts, bottom + 24)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom:.0f}" {FONT} font-size="11">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{bottom:.0f}" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 11, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


Bar = tuple[str, float, float, float, float | None, bool]
"""Name, median, lowest, highest, what must be reached, whether others disturbed it."""


def _bars(title: str, rows: list[Bar], unit: str, scale: float, parts: list[str], top: float) -> float:
    if not rows:
        return top
    largest = max(max(high, bar or 0.0) for _, _, _, high, bar, _ in rows) * 1.02
    end = top + 30 + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + value / largest * (WIDTH - LEFT - RIGHT)

    parts.append(_text(10, top + 14, title, size=13, weight="bold"))
    for tick in ticks(0.0, largest * scale, about=6):
        parts.append(_line(x(tick / scale), top + 24, x(tick / scale), end, PALE))
        parts.append(_text(x(tick / scale), end + 12, number(tick) + unit, anchor="middle", size=10))
    for i, (name, median, low, high, bar, doubtful) in enumerate(rows):
        y = top + 26 + ROW * i
        colour = PLAIN if bar is None else MET if median >= bar else MISSED
        shade = 'fill-opacity="0.45" ' if doubtful else ""
        parts.append(_text(LEFT - 6, y + 11, name + (" (disturbed)" if doubtful else ""), anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 2:.1f}" width="{x(median) - LEFT:.1f}" height="{ROW - 5}" {shade}fill="{colour}"/>'
        )
        parts.append(_line(x(low), y + 7.5, x(high), y + 7.5, INK))
        if bar is not None:
            parts.append(_line(x(bar), y - 0.5, x(bar), y + ROW - 1.5, INK, 2.0))
        parts.append(_text(WIDTH - RIGHT + 6, y + 11, f"{median * scale:.3g}{unit}"))
    return end + 18


def _ratios(ratios: dict[str, Any], parts: list[str], top: float, *, bars: bool) -> float:
    rows = [
        (key.replace("/", " "), r["median"], r["low"], r["high"], ratio_bar(key) if bars else None, r["foreign"] > QUIET)
        for key, r in ratios.items()
    ]
    reach = "; thick: what it must reach" if bars else ""
    title = f"Times as fast as the peer (thin: lowest to highest pair of steps{reach})"
    return _bars(title, rows, "×", 1.0, parts, top)


def _floors(results: dict[str, Any], parts: list[str], top: float) -> float:
    details = results.get("floor_details", {})
    rows = [
        (key.replace("/", " "), r["median"], r["low"], r["high"], FLOORS.get(key), r["foreign"] > QUIET)
        for key, r in details.items()
    ]
    return _bars("Share of the measured roofline", rows, "%", 100.0, parts, top)


def _scaling(scaling: dict[str, Any], parts: list[str], top: float) -> float:
    if not scaling:
        return top
    parts.append(_text(10, top + 14, "Seconds of a GRPO step, both axes logarithmic", size=13, weight="bold"))
    width, height, gap = (WIDTH - 80) / len(scaling) - 40, 170.0, 40
    everything = [p["seconds"] for row in scaling.values() for p in row["points"].values()]
    low, high = math.log(min(everything)) - 0.15, math.log(max(everything)) + 0.15
    base = top + 34 + height
    for i, (name, row) in enumerate(scaling.items()):
        left = 60 + i * (width + gap)
        xs = [math.log(float(x)) for x in row["points"]]
        ys = [math.log(p["seconds"]) for p in row["points"].values()]

        def x(value: float, left: float = left, xs: list[float] = xs) -> float:
            return left + (value - xs[0]) / (xs[-1] - xs[0]) * width

        def y(value: float) -> float:
            return base - (value - low) / (high - low) * height

        parts += [_line(left, base, left + width, base, PLAIN), _line(left, top + 34, left, base, PLAIN)]
        mean_x, mean_y, slope = sum(xs) / len(xs), sum(ys) / len(ys), row["exponent"]
        parts.append(_line(x(xs[0]), y(mean_y + slope * (xs[0] - mean_x)), x(xs[-1]), y(mean_y + slope * (xs[-1] - mean_x)), MET))
        for value, point in row["points"].items():
            where = x(math.log(float(value)))
            parts.append(_line(where, y(math.log(point["low"])), where, y(math.log(point["high"])), INK))
            parts.append(f'<circle cx="{where:.1f}" cy="{y(math.log(point["seconds"])):.1f}" r="3" fill="{MET}"/>')
            parts.append(_text(where, base + 13, value, anchor="middle", size=10))
        if i == 0:
            seconds = [s for k in range(-3, 4) for s in (10.0**k, 2 * 10.0**k, 5 * 10.0**k) if low < math.log(s) < high]
            parts += [_text(left - 6, y(math.log(s)) + 4, f"{s:g}", anchor="end", size=10) for s in seconds]
        parts.append(_text(left + 8, top + 44, f"{name}: exponent {slope:.2f}"))
    return base + 24
