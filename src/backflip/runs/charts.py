"""Line charts as SVG text: small multiples with direct labels, interval bands and few ticks.

Colours are the classes s0…s5 of report.css, so a chart follows the page into the dark. Everything that is text is
escaped here.
"""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from backflip.runs.report_data import Chart, Series

WIDTH, HEIGHT = 360, 216
_TOP, _BOTTOM = 22, 34
_POINTS = 240  # more than one point per pixel and a half cannot be seen
_CHAR = 6.1  # width of a character of the 11 px labels
_SMOOTH_FROM = 60  # a single line of more points is drawn thin, its running mean bold
_TINY = 1e-290
_DOTS = 12  # lines of no more points show each of them
COLOURS = 6


def escape(text: object) -> str:
    """Text made safe for HTML, element or attribute; control characters become visible ones."""
    clean = "".join(c if c in "\n\t" or ord(c) >= 32 else chr(0x2400 + ord(c)) for c in str(text))
    return html.escape(clean.replace("\x7f", "\u2421"), quote=True)


def number(value: float, step: float | None = None) -> str:
    """A number as read on an axis: as many decimals as the tick `step` needs, thousands as k and M, a true minus."""
    if step is not None and value != 0 and abs(value) < step * 1e-9:
        value = 0.0
    largest = max(abs(value), abs(step or 0))
    if value == 0:
        text = "0"
    elif largest >= 1e6 and largest < 1e12:
        text = f"{value / 1e6:.4g}M"
    elif largest >= 1e4 and largest < 1e6:
        text = f"{value / 1e3:.4g}k"
    elif largest >= 1e12 or largest < 1e-4:
        text = f"{value:.3g}"
    elif step is None:
        text = f"{value:.4g}"
    else:
        decimals = next((d for d in range(17) if abs(round(step, d) - step) < step * 1e-6), 17)
        text = f"{value:.{decimals}f}"
    return text.replace("-", "−")


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers within [low, high]: about that many steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power >= raw * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def thin(series: Series, most: int = _POINTS) -> Series:
    """The series with at most about `most` points: of each run of neighbours its lowest and highest stay.

    Spikes survive, which averaging would hide.
    """
    n = len(series.xs)
    if n <= most:
        return series
    size = math.ceil(2 * n / most)
    keep: set[int] = {0, n - 1}
    for start in range(0, n, size):
        here = [(y, i) for i in range(start, min(start + size, n)) if _finite(y := series.ys[i])]
        if here:
            keep |= {min(here)[1], max(here)[1]}
    rows = sorted(keep)

    def pick(values: Sequence[float | None]) -> list[float | None]:
        return [values[i] for i in rows]

    low, high = (None if values is None else pick(values) for values in (series.low, series.high))
    return Series(series.name, [series.xs[i] for i in rows], pick(series.ys), low, high)


def running_mean(ys: Sequence[float | None], width: int) -> list[float | None]:
    """The mean of the `width` values around each one; gaps are left out.

    Near an end the window shrinks on both sides alike, so a straight line stays straight.
    """
    means: list[float | None] = []
    for i in range(len(ys)):
        half = min(width // 2, i, len(ys) - 1 - i)
        near = [y for y in ys[i - half : i + half + 1] if y is not None and math.isfinite(y)]
        means.append(sum(near) / len(near) if near else None)
    return means


def smoothing(chart: Chart) -> int:
    """The width of the running mean that `svg` draws for a chart; 0 when it draws the values alone."""
    only = chart.series[0] if len(chart.series) == 1 else None
    if only is None or only.low is not None or len(only.xs) < _SMOOTH_FROM:
        return 0
    return max(5, len(only.xs) // 20) | 1


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where data lies on the paper."""

    x_ticks: list[float]
    y_ticks: list[float]
    x_span: tuple[float, float]
    y_span: tuple[float, float]
    left: float
    right: float

    def x(self, value: float) -> float:
        low, high = self.x_span
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_span
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP)


def svg(chart: Chart) -> str:
    """The chart as an `<svg>` element that scales to the width it is given."""
    drawn = [thin(s) for s in chart.series]
    xs = [x for s in drawn for x in s.xs if _finite(x)]
    ys = [y for s in drawn for values in (s.ys, s.low or (), s.high or ()) for y in values if y is not None and _finite(y)]
    if not xs or not ys:
        return '<p class="empty">Nothing was measured yet.</p>'
    direct = labelled_directly(chart)
    frame = _frame(xs, ys, max((len(s.name) for s in drawn), default=0) if direct else 0)
    parts = _axes(chart, frame)
    for index, series in enumerate(drawn):
        if series.low is not None and series.high is not None:
            parts.append(_band(series, frame, index))
    width = smoothing(chart)
    for index, series in enumerate(drawn):
        parts += _line(series, frame, index, faint=bool(width))
    if width:
        whole = chart.series[0]
        mean = thin(Series(whole.name, whole.xs, running_mean(whole.ys, width)))
        parts += _line(mean, frame, 0)
    if direct:
        parts += _labels(drawn, frame)
    label = f"{chart.title}. {chart.explanation}".strip()
    top = 0 if chart.y_label else _TOP - 8
    return (
        f'<svg viewBox="0 {top} {WIDTH} {HEIGHT - top}" role="img" aria-label="{escape(label)}" '
        f'data-chart="{escape(json.dumps(_hover(drawn, frame)))}">{"".join(parts)}</svg>'
    )


def labelled_directly(chart: Chart) -> bool:
    """Whether lines carry their names at their ends; else the page lists the names above the chart."""
    return 1 < len(chart.series) <= 5 and max(len(s.name) for s in chart.series) <= 14


def _frame(xs: list[float], ys: list[float], label_chars: int) -> _Frame:
    x_span, y_span = _span(xs, 0.0), _span(ys, 0.03)
    x_ticks, y_ticks = ticks(*x_span), ticks(*y_span)
    y_step = y_ticks[1] - y_ticks[0]
    left = 10 + _CHAR * max(len(number(t, y_step)) for t in y_ticks)
    right = WIDTH - (12 + _CHAR * label_chars if label_chars else 10)
    return _Frame(x_ticks, y_ticks, x_span, y_span, left, right)


def _span(values: list[float], pad: float) -> tuple[float, float]:
    """From the least to the greatest value and a little beyond; never empty, and zero is an edge where it is near."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if high - low <= size * 1e-9 + _TINY:
        room = size * 0.1 if size > _TINY else 1.0
        return low - room, high + room
    room = (high - low) * pad
    return (0.0 if 0 <= low < room else low - room), (0.0 if -room < high <= 0 else high + room)


def _axes(chart: Chart, frame: _Frame) -> list[str]:
    parts = []
    y_step = frame.y_ticks[1] - frame.y_ticks[0]
    for tick in frame.y_ticks:
        y = frame.y(tick)
        zero = " zero" if abs(tick) < y_step * 1e-9 else ""
        ends = f'x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="grid{zero}" {ends}/>')
        parts.append(_text("tick", frame.left - 6, y + 3.6, number(tick, y_step), "end"))
    x_step = frame.x_ticks[1] - frame.x_ticks[0] if len(frame.x_ticks) > 1 else None
    for tick in frame.x_ticks:
        x = frame.x(tick)
        parts.append(_text("tick", x, HEIGHT - _BOTTOM + 15, number(tick, x_step), "end" if x > WIDTH - 14 else "middle"))
    parts.append(_text("axis", 0, 10, chart.y_label, "start"))
    parts.append(_text("axis", frame.right, HEIGHT - 4, chart.x_label, "end"))
    return parts


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _band(series: Series, frame: _Frame, index: int) -> str:
    edges = [
        (frame.x(x), frame.y(low), frame.y(high))
        for x, low, high in zip(series.xs, series.low or (), series.high or (), strict=True)
        if low is not None and high is not None and _finite(low) and _finite(high) and _finite(x)
    ]
    there = [f"{x:.1f},{high:.1f}" for x, _, high in edges]
    back = [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(edges)]
    return f'<polygon class="band s{index % COLOURS}" points="{" ".join(there + back)}"/>'


def _line(series: Series, frame: _Frame, index: int, faint: bool = False) -> list[str]:
    """The line, broken where a value is missing, with dots where there are few enough to tell apart."""
    colour = f"s{index % COLOURS}"
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.xs, series.ys, strict=True):
        if _finite(x) and y is not None and _finite(y):
            runs[-1].append((frame.x(x), frame.y(y)))
        elif runs[-1]:
            runs.append([])
    kind = "faint" if faint else "dashed" if index >= COLOURS else "line"
    parts = []
    for run in runs:
        if len(run) > 1:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            parts.append(f'<polyline class="{kind} {colour}" points="{points}"/>')
        if len(run) == 1 or (len(series.xs) <= _DOTS and not faint):
            parts += [f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in run]
    return parts


def _labels(drawn: Sequence[Series], frame: _Frame) -> list[str]:
    """Names at the ends of the lines, pushed apart until they can be read."""
    ends = []
    for index, series in enumerate(drawn):
        known = [y for y in series.ys if y is not None and _finite(y)]
        if known:
            ends.append([frame.y(known[-1]), float(index)])
    ends.sort()
    gap = 13.0
    for above, below in itertools.pairwise(ends):
        below[0] = max(below[0], above[0] + gap)
    over = max(0.0, ends[-1][0] - (HEIGHT - _BOTTOM)) if ends else 0.0
    for end in reversed(ends):
        end[0] -= over
        over = max(0.0, over)
    return [
        f'<text class="name s{int(index) % COLOURS}" x="{frame.right + 7:.1f}" y="{y + 3.6:.1f}">'
        f"{escape(drawn[int(index)].name)}</text>"
        for y, index in ends
    ]


def _hover(drawn: Sequence[Series], frame: _Frame) -> dict[str, object]:
    """What report.js needs to read values under the pointer: places on the paper and numbers as text."""
    rows: dict[float, list[str]] = {}
    for index, series in enumerate(drawn):
        for i, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
            if not _finite(x) or y is None or not _finite(y):
                continue
            text = number(y)
            if series.low is not None and series.high is not None:
                low, high = series.low[i], series.high[i]
                if low is not None and high is not None:
                    text += f" ({number(low)} to {number(high)})"
            rows.setdefault(x, [""] * len(drawn))[index] = text
    return {
        "names": [s.name for s in drawn] if len(drawn) > 1 else [""],
        "rows": [[round(frame.x(x), 1), number(x), *rows[x]] for x in sorted(rows)],
        "box": [_TOP, HEIGHT - _BOTTOM],
    }


def _finite(value: float | None) -> bool:
    return value is not None and abs(value) < 1e300
