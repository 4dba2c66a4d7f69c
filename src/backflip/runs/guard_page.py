"""Sets what a monitor found as a section of the report page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backflip.runs.charts import escape
from backflip.runs.report_data import Alert, Chart, Feature, SampleRow, Watched

ACTS = {"stop": "stop", "pause": "pause", "mine": "label", "warn": "look"}
"""What each act is called where a person reads it."""

_WIDTH, _MIDDLE = 180, 90.0


def section(found: Watched | None, chart: Callable[[Chart], str], sample: Callable[[SampleRow], str]) -> str:
    """The section; charts and samples are set as everywhere on the page. All text is escaped."""
    if found is None:
        return ""
    drawn = f'<div class="charts">{"".join(map(chart, found.charts))}</div>' if found.charts else ""
    parts = [f"<p>{escape(found.verdict)}</p>", _alerts(found.alerts), drawn, _features(found.features)]
    if found.suspects:
        texts = "".join(map(sample, found.suspects))
        parts.append(
            f"<h3>Suspects</h3><p>Texts that the proxy likes more than the judges do, beside texts for the same prompts that "
            f"were written before. Scores are in standard deviations of the first look.</p>{texts}"
        )
    return f'<section class="monitor"><h2>The monitor</h2>{"".join(parts)}</section>'


def _alerts(alerts: Sequence[Alert]) -> str:
    if not alerts:
        return '<p class="quiet">No alarm was raised.</p>'
    return f'<ol class="alerts">{"".join(map(_alert, alerts))}</ol>'


def _alert(alert: Alert) -> str:
    where = f"{alert.where}, " if alert.where else ""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in alert.evidence.items())
    act = alert.act if alert.act in ACTS else "warn"
    said = f"{alert.sentence[:1].upper()}{alert.sentence[1:]}."
    return (
        f'<li class="{act}"><p class="where"><b>{escape(alert.kind)}</b> {escape(where)}step {alert.step}'
        f'<span class="act">{ACTS[act]}</span></p><p>{escape(said)}</p><dl>{rows}</dl></li>'
    )


def _features(features: Sequence[Feature]) -> str:
    if not features:
        return ""
    judged = any(f.judges is not None for f in features)
    most = max([abs(v) for f in features for v in (f.proxy, f.judges) if v is not None] + [1e-9])
    heads = ["Feature", "At first", "Now", "Proxy", *(["Judges"] if judged else [])]
    rows = [
        f'<tr><th scope="row">{escape(f.feature)}</th><td>{_plain(f.before)}</td><td>{_plain(f.now)}</td>'
        f"<td>{_signed(f.proxy)}</td>"
        f"{f'<td>{_signed(f.judges)}</td>' if judged else ''}<td class=\"pays\">{_bars(f, most)}</td></tr>"
        for f in features
    ]  # fmt: skip
    key = '<span class="s0">proxy</span> <span class="s1">judges</span>' if judged else '<span class="s0">proxy</span>'
    return (
        "<h3>What the proxy pays for</h3><p>How much of the change in score goes with each feature, in standard deviations. A "
        "regression says what goes with a score, not what causes it.</p>"
        f'<div class="scroll"><table><thead><tr>{"".join(f"<th scope=col>{h}</th>" for h in heads)}'
        f'<th scope="col" class="pays">{key}</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _bars(feature: Feature, most: float) -> str:
    """Two bars from a middle line: what the proxy pays and, below, what the judges do."""
    bars = []
    for i, value in enumerate((feature.proxy, feature.judges)):
        if value is not None:
            width = abs(value) / most * (_MIDDLE - 4)
            left = _MIDDLE - (width if value < 0 else 0)
            bars.append(f'<rect class="s{i}" x="{left:.1f}" y="{3 + 8 * i}" width="{width:.1f}" height="6" rx="1"/>')
    line = f'<line class="zero" x1="{_MIDDLE}" x2="{_MIDDLE}" y1="0" y2="20"/>'
    return f'<svg viewBox="0 0 {_WIDTH} 20" aria-hidden="true">{line}{"".join(bars)}</svg>'


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")
