"""What a run's monitor left in `guard.json`, in the words of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.runs.charts import number
from backflip.runs.logs import read_object
from backflip.runs.report_data import Alert, Chart, Column, Feature, SampleRow, Series, Watched
from backflip.runs.watching import GUARD_FILE

SHOWN = 6
"""Suspects that a page shows, the most suspicious first."""

JUDGED = ("guard/proxy_scaled", "guard/quality")
CURVES = (
    (
        "guard/kl_seq_nats",
        "Distance from the reference",
        "nats per sequence",
        "How far the policy has gone for what the proxy pays.",
    ),
    (
        "guard/disagreement",
        "Disagreement",
        "standard deviations",
        "Between proxy and judges about a text, mean over a look's texts: high where they no longer know what they judge.",
    ),
    (
        "guard/evidence",
        "Evidence of a fall",
        "cumulative sum",
        "That the judges' opinion has fallen from its best; beyond the threshold the run stops.",
    ),
)
"""Metric, title, unit and explanation of what is drawn besides the proxy and the judges' opinion."""


def read_guard(run: Path) -> dict[str, Any] | None:
    """What the monitor of a run has seen and decided so far; None where nobody looked. Raises DataError for a damaged file."""
    path = run / GUARD_FILE
    return read_object(path) if path.exists() else None


def watched(report: Mapping[str, Any]) -> Watched:
    """A monitor's report (`Guard.report`) as a page has it."""
    looks = report.get("looks", ())
    return Watched(
        verdict=verdict(report),
        alerts=alerts(report),
        charts=_charts(looks, report.get("best_step", 0)),
        features=[Feature(**row) for row in sorted(report.get("features", ()), key=excess, reverse=True)],
        suspects=[_suspect(row) for row in most_suspicious(report)],
    )


def verdict(report: Mapping[str, Any]) -> str:
    """What came of watching, in a sentence or two."""
    looks, best = report.get("looks", ()), report.get("best_step", 0)
    seen = f"{len(looks)} looks, the last at step {looks[-1]['step']:.0f}. " if looks else ""
    kept = f"the policy of step {best}, the best look, is kept in best/"
    match report.get("decision"):
        case "stop":
            return f"{seen}The run was stopped; {kept}, and the run ends with it."
        case "pause":
            return f"{seen}The run is held until a person lets it go on; {kept}."
    return f"{seen}Nothing stopped the run; {kept}."


def alerts(report: Mapping[str, Any], where: str = "") -> list[Alert]:
    """Every alarm of a monitor's report, in the order in which they began; `where` says of which run."""
    return [
        Alert(
            kind=row["kind"], step=row["step"], act=row["act"], sentence=row["sentence"], evidence=said(row["evidence"]),
            where=where,
        )
        for row in report.get("findings", ())
    ]  # fmt: skip


def said(evidence: Mapping[str, Any]) -> dict[str, str]:
    """The numbers an alarm rests on, as text.

    >>> said({"quality": {"change": -0.5, "n": 40}, "threshold": 4.0})
    {'quality': 'change −0.5, n 40', 'threshold': '4'}
    """
    return {
        name: ", ".join(f"{what} {_text(x)}" for what, x in value.items()) if isinstance(value, Mapping) else _text(value)
        for name, value in evidence.items()
    }


def most_suspicious(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The suspects that a page shows."""
    return sorted(report.get("suspects", ()), key=lambda row: -row["suspicion"])[:SHOWN]


def excess(row: Mapping[str, Any]) -> float:
    """By how much the proxy pays more for a feature than the judges do; what it pays, where there are none."""
    return float(row["proxy"]) - float(row["judges"] or 0.0)


def _text(value: Any) -> str:
    return number(float(f"{value:.3g}")) if isinstance(value, int | float) else "–" if value is None else str(value)


def _charts(looks: Sequence[Mapping[str, float]], best: int) -> list[Chart]:
    steps = [look["step"] for look in looks]
    judged = [
        Series(name, steps, [look.get(key) for look in looks])
        for name, key in zip(("proxy", "judges"), JUDGED, strict=True)
        if any(key in look for look in looks)
    ]
    if judged:
        kept = {look["step"]: look.get(JUDGED[-1], look.get(JUDGED[0])) for look in looks if look["step"] == best}
        judged.append(Series("kept", list(kept), list(kept.values())))
    drawn = [
        Chart(
            "What the proxy says, and the judges", "step", "standard deviations of the first look", judged,
            "Where the two part, the policy earns what nobody meant. The dot is the policy that is kept.",
        )
    ] if judged else []  # fmt: skip
    for key, title, unit, note in CURVES:
        ys = [look.get(key) for look in looks]
        if any(y is not None for y in ys):
            drawn.append(Chart(title, "step", unit, [Series(title, steps, ys)], note))
    return drawn


def _suspect(row: Mapping[str, Any]) -> SampleRow:
    scores = {"proxy": row["proxy"], **({} if row["quality"] is None else {"judges": row["quality"]})}
    found = Column(f"step {row['step']}", row["completion"].strip(), scores)
    return SampleRow(row["prompt"].strip(), [Column("written before", row["before"].strip()), found])
