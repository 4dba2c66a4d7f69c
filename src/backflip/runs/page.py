"""Sets a `ReportData` as one HTML page: template, style and script are the files report.html, report.css, report.js.

The page asks nothing of the network: a content security policy forbids every request and every script but its own.
All text passes through `escape`, because what a model wrote may be anything.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from backflip.records import Rating
from backflip.runs import guard_page
from backflip.runs.charts import COLOURS, escape, labelled_directly, number, smoothing, svg
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

_HERE = Path(__file__).parent
_ROWS = 25  # of the table behind a chart


def render(data: ReportData) -> str:
    """The whole page."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [
        _figures(data.figures),
        guard_page.section(data.watched, _chart, _sample),
        *_charts(data.charts),
        _ratings(data.ratings),
        _samples(data.samples),
        _notes(data.notes),
        _settings(data.settings),
    ]
    return Template((_HERE / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(data.title),
        summary=f'<p class="summary">{escape(data.summary)}</p>' if data.summary else "",
        sections="\n".join(s for s in sections if s),
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        script=script,
        digest=digest,
    )


def _figures(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    cells = []
    for figure in figures:
        small = "".join(f"<small>{escape(t)}</small>" for t in (figure.interval, figure.note) if t)
        cells.append(f"<div><dt>{escape(figure.label)}</dt><dd><b>{escape(figure.value)}</b>{small}</dd></div>")
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _charts(charts: Sequence[Chart]) -> list[str]:
    """One section per group, in the order in which groups first appear."""
    groups: dict[str, list[Chart]] = {}
    for chart in charts:
        groups.setdefault(chart.group, []).append(chart)
    sections = []
    said = ""
    for group, members in groups.items():
        heading = escape(group[:1].upper() + group[1:] or "What changed")
        words = "Thin lines are the values, bold lines their running mean." if any(map(smoothing, members)) else ""
        text = f"<p>{words}</p>" if words and words != said else ""
        said = said or words
        drawn = "".join(_chart(chart) for chart in members)
        sections.append(f'<section><h2>{heading}</h2>{text}<div class="charts">{drawn}</div></section>')
    return sections


def _chart(chart: Chart) -> str:
    legend = ""
    if len(chart.series) > 1 and not labelled_directly(chart):
        names = "".join(f'<li class="s{i % COLOURS}">{escape(s.name)}</li>' for i, s in enumerate(chart.series))
        legend = f'<ul class="legend">{names}</ul>'
    text = f"<p>{escape(chart.explanation)}</p>" if chart.explanation else ""
    return (
        f"<figure><figcaption><h3>{escape(chart.title)}</h3>{text}</figcaption>{legend}"
        f'<div class="plot">{svg(chart)}</div>{_values(chart)}</figure>'
    )


def _values(chart: Chart) -> str:
    """The chart's values as a table, evenly spaced rows of it when there are many."""
    xs = sorted({x for s in chart.series for x in s.xs})
    every = math.ceil(len(xs) / _ROWS) or 1
    shown = xs[::every] if not xs or xs[::every][-1] == xs[-1] else [*xs[::every], xs[-1]]
    looked_up = [dict(zip(s.xs, range(len(s.xs)), strict=True)) for s in chart.series]
    head = [chart.x_label, *(s.name for s in chart.series)]
    rows = [[number(x), *(_value(s, where.get(x)) for s, where in zip(chart.series, looked_up, strict=True))] for x in shown]
    few = f"<p>{len(shown)} of {len(xs)} points.</p>" if len(shown) < len(xs) else ""
    return f"<details><summary>Values</summary>{few}{_table(head, rows)}</details>"


def _value(series: Series, index: int | None) -> str:
    y = None if index is None else series.ys[index]
    if index is None or y is None:
        return "–"
    if series.low is not None and series.high is not None:
        low, high = series.low[index], series.high[index]
        if low is not None and high is not None:
            return f"{number(y)} ({number(low)} to {number(high)})"
    return number(y)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of numbers under a first column of names; all cells are escaped."""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _ratings(ratings: Sequence[Rating]) -> str:
    if not ratings:
        return ""
    placed = [v for r in ratings for v in (r.rating, r.low, r.high) if v is not None]
    span = (min(placed), max(placed)) if placed else (0.0, 1.0)
    ordered = sorted(ratings, key=lambda r: (r.rating is None, -(r.rating or 0.0)))
    rows = []
    for r in ordered:
        known = r.rating is not None and r.low is not None and r.high is not None
        rating = f"<td>{r.rating:.0f}</td>" if r.rating is not None else '<td class="words">not yet comparable</td>'
        interval = f"{r.low:.0f} to {r.high:.0f}" if known else "–"
        rows.append(
            f'<tr><th scope="row">{escape(r.policy)}</th>{rating}<td>{interval}</td>'
            f'<td>{r.matches}</td><td class="whisker">{_whisker(r, span)}</td></tr>'
        )
    return (
        "<section><h2>Ratings</h2><p>Elo scale: 400 points are odds of ten to one. Intervals are 95 %.</p>"
        '<div class="scroll"><table class="ratings"><thead><tr><th scope="col">Policy</th><th scope="col">Rating</th>'
        '<th scope="col">95 % interval</th><th scope="col">Matches</th>'
        '<th scope="col" class="whisker"></th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _whisker(rating: Rating, span: tuple[float, float]) -> str:
    if rating.rating is None or rating.low is None or rating.high is None:
        return ""
    width = span[1] - span[0] or 1.0
    low, middle, high = (6 + (v - span[0]) / width * 148 for v in (rating.low, rating.rating, rating.high))
    return (
        '<svg viewBox="0 0 160 14" aria-hidden="true">'
        f'<line class="whisk s0" x1="{low:.1f}" x2="{high:.1f}" y1="7" y2="7"/>'
        f'<circle class="dot s0" cx="{middle:.1f}" cy="7" r="4"/></svg>'
    )


def _samples(samples: Sequence[SampleRow]) -> str:
    if not samples:
        return ""
    several = any(len(row.columns) > 1 for row in samples)
    words = "<p>In brackets: the difference from the first column.</p>" if several else ""
    return f"<section><h2>Samples</h2>{words}{''.join(_sample(row) for row in samples)}</section>"


def _sample(row: SampleRow) -> str:
    first = row.columns[0] if row.columns else Column("", "")
    cards = "".join(_card(column, first) for column in row.columns)
    return (
        f'<article class="sample"><h3 class="prompt"><span>Prompt</span><bdi>{escape(row.prompt)}</bdi></h3>'
        f'<div class="columns">{cards}</div></article>'
    )


def _card(column: Column, first: Column) -> str:
    rewards = "".join(_reward(name, value, column, first) for name, value in column.rewards.items())
    return (
        f'<div class="card"><h4>{escape(column.policy)}</h4><p class="text" dir="auto">{escape(column.text)}</p>'
        f"<dl>{rewards}</dl></div>"
    )


def _reward(name: str, value: float, column: Column, first: Column) -> str:
    change = ""
    if column is not first and name in first.rewards:
        change = f" <small>({_signed(value - first.rewards[name])})</small>"
    return f"<div><dt>{escape(name)}</dt><dd>{_decimal(value)}{change}</dd></div>"


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>" if items else ""


def _settings(settings: str) -> str:
    if not settings.strip():
        return ""
    details = f"<details><summary>All settings</summary><pre>{escape(settings)}</pre></details>"
    return f"<section><h2>Settings</h2>{details}</section>"
