"""The report of a reward model: accuracy wherever it can be divided, calibration, length, strange texts, the loss on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.maths.calibration import Coefficient
from backflip.runs.report import from_run
from backflip.runs.report_data import Chart, Figure, ReportData, Series
from backflip.train.quality import Quality, Slice

WHERE = {
    "predicted difference": "A model that knows what it does not know is right more often where it predicts more.",
    "stated strength": "How much better the labeler called the better one, from 1 to 4.",
    "stated margin": "By how much the two differ for the labeler, as a margin or in their ratings.",
    "length of the preferred text": "A model that likes long texts is right where the longer one is preferred, and wrong where "
    "the shorter one is; “much” is from one and a half times on.",
    "annotator": "Labels of one person each; those with few stand together.",
    "policies": "Who wrote the two texts.",
    "age of the label": "Days before the newest label.",
    "distance from the policy": "log π/ρ of the two texts, the mean: further away the model has seen less.",
}
"""The divisions that stand in a report, and what each is good for."""


def reward_page(quality: Quality, folder: Path, told: Mapping[str, Any]) -> ReportData:
    """Everything `report.html` says of a reward model whose run is in `folder`; `told` are the counts of its result."""
    report, run = quality.report, from_run(folder)
    seen = "kept aside" if told["held_out"] else "it learned from"
    return ReportData(
        title="Reward model",
        summary=(
            f"Fitted to {told['comparisons']:,} comparisons and measured on those {seen}: right on {report.accuracy:.1%} of "
            f"{report.n} that prefer one text, where always the shorter one would be right on {report.shorter_accuracy:.1%}."
        ),
        figures=_figures(quality),
        charts=[*_accuracy(quality), _calibration(quality), *run.charts],
        settings=run.settings,
        notes=_notes(quality, told),
    )


def _figures(quality: Quality) -> list[Figure]:
    report, t = quality.report, quality.temperature
    found = [
        Figure(
            "Right", f"{report.accuracy:.1%}", _interval(report.accuracy_low, report.accuracy_high), f"of {report.n} comparisons"
        ),
        Figure("Shorter text right", f"{report.shorter_accuracy:.1%}", _interval(report.shorter_low, report.shorter_high)),
        Figure("Log loss", f"{report.log_loss:.3f}", note=f"{t.after:.3f} at temperature {t.value:.2f}; a coin: 0.693"),
        Figure("Calibration error", f"{report.calibration_error:.3f}", note="mean distance of prediction and belief"),
        _length("Model’s taste in length", quality.model_length),
        _length("People’s taste in length", quality.people_length),
    ]
    if quality.strange is not None:
        found.append(Figure("Strange texts", f"{quality.strange.share:.1%}", note=f"of {quality.strange.n}; usual would be 5 %"))
    return found


def _length(label: str, found: Coefficient) -> Figure:
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}".replace("-", "−")
    return Figure(label, f"{found.value:+.2f}".replace("-", "−"), interval, "nats for a standard deviation more of length")


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.1%} to {high:.1%}"


def _accuracy(quality: Quality) -> list[Chart]:
    divided = dict(quality.slices)
    notes = dict(WHERE)
    if quality.strange is not None and quality.strange.slices:
        divided["strangeness"] = quality.strange.slices
        notes["strangeness"] = "How far the stranger of the two texts is from those learned from (relative Mahalanobis distance)."
    return [_slices(name, divided[name], notes[name]) for name in notes if name in divided]


def _slices(name: str, slices: Sequence[Slice], note: str) -> Chart:
    """A point for each part with its interval; the parts are named under the chart."""
    xs = [each.x for each in slices]
    parts = "; ".join(f"{each.x:.3g}: {each.name} ({each.right.n})" for each in slices)
    series = Series(
        "right", xs, [each.right.value for each in slices], [each.right.low for each in slices],
        [each.right.high for each in slices],
    )  # fmt: skip
    return Chart(
        f"By {name}", name, "share right", [series, Series("a coin", xs, [0.5] * len(xs))], f"{note} {parts}.",
        group="Where it is right",
    )  # fmt: skip


def _calibration(quality: Quality) -> Chart:
    xs = [each.predicted for each in quality.bins]
    series = [Series("observed", xs, [each.observed for each in quality.bins]), Series("perfect", xs, xs)]
    return Chart(
        "Calibration", "predicted preference", "mean belief", series,
        "Of comparisons that the model calls 70 %, 70 % should go that way; flatter than the diagonal: too sure.",
        group="Calibration",
    )  # fmt: skip


def _notes(quality: Quality, told: Mapping[str, Any]) -> list[str]:
    notes = [
        "Ties count neither as right nor as wrong. Intervals are 95 %; in the charts the pairs of a question count together."
    ]
    if "left_out" in told:
        notes.append("Left out: " + ", ".join(f"{n} {why}" for why, n in told["left_out"].items()) + ".")
    notes.append(
        f"The temperature of {quality.temperature.value:.2f} was fitted on the comparisons it is told of: score differences "
        "divided by it give the least log loss there."
    )
    return notes
