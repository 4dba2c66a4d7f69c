"""The report of `r1`: what a person would be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.r1_settings import Settings
from backflip.lab.seeds import Interval, over_seeds
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars, with_interval
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]

STAGES = {
    "base": "base model",
    "cold": "cold start",
    "grpo": "GRPO",
    "language": "GRPO, one language",
    "rejection": "rejection sampling",
    "second": "GRPO after it, one language",
    "small": "small base model",
    "small-rl": "small, GRPO",
    "small-sft": "small, distilled on the same problems",
    "small-wide": "small, distilled on a problem each",
}
"""The stages, as people call them."""

SHARES = ("accuracy", "mixed", "format")
"""Figures with an interval of their own."""


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    cost = over_seeds([value(s, "language", "accuracy") - value(s, "grpo", "accuracy") for s in seeds])
    before, after = (over_seeds([s["stages"][stage]["other"] for s in seeds]).mean for stage in ("grpo", "language"))
    return ReportData(
        title="The pipeline of R1 in two languages",
        summary=(
            f"A reward for one language takes the words of the other from {before:.0%} to {after:.0%} of all in thoughts and "
            f"changes accuracy by {points(cost)} points ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_figures(seeds)],
        charts=_charts(seeds),
        samples=_samples(seeds[0]),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run r1 --seeds {len(seeds)}`; tables.md beside this page holds every figure.",
            f"Every model is measured on {settings.problems} test problems that occur in no corpus and no run, one completion "
            "each at temperature 1. Figures of several seeds are means with Student's 95 % interval.",
            f"GRPO, rejection sampling and distillation each draw {settings.drawn()} completions of the same problems; the "
            "second stage as many of others, and the last distillation one of each of as many problems.",
            "Dead groups of a model are test problems whose completions are all right or all wrong; in a run, those whose "
            "rewards, format and language among them, are all the same.",
        ],
    )


def value(seed: Seed, stage: str, figure: str) -> float:
    """One figure of a stage's model."""
    found = seed["stages"][stage][figure]
    return float(found["value"] if figure in (*SHARES, "full") else found)


def points(interval: Interval) -> str:
    """A difference of shares in points, with its interval.

    >>> points(Interval(-0.02, -0.05, 0.01))
    '−2.0 (−5.0 to +1.0)'
    """
    low, high = (None if end is None else 100 * end for end in (interval.low, interval.high))
    return with_interval(Interval(100 * interval.mean, low, high), 1)


DIFFERENCES = {
    "GRPO less the cold start": ("grpo", "cold"),
    "one language less GRPO": ("language", "grpo"),
    "rejection sampling less the cold start": ("rejection", "cold"),
    "rejection sampling less GRPO": ("rejection", "grpo"),
    "second stage less rejection sampling": ("second", "rejection"),
    "second stage less one language": ("second", "language"),
    "small, distilled on the same problems, less GRPO": ("small-sft", "small-rl"),
    "small, distilled on a problem each, less GRPO": ("small-wide", "small-rl"),
}
"""What is compared: the model of one stage and that of another."""


def _difference(seeds: Sequence[Seed], pair: tuple[str, str], figure: str) -> Interval:
    return over_seeds([value(s, pair[0], figure) - value(s, pair[1], figure) for s in seeds])


def _figures(seeds: Sequence[Seed]) -> list[Figure]:
    return [
        Figure(f"Accuracy, {name}", f"{points(_difference(seeds, pair, 'accuracy'))} points", note="mean of seeds")
        for name, pair in DIFFERENCES.items()
    ]


def _charts(seeds: Sequence[Seed]) -> list[Chart]:
    told = [
        ("accuracy", "Accuracy", "share right", "Of the step's own samples, on problems that come only once."),
        ("language", "One language", "share of words", "Words of the target language; thoughts without words count 0."),
        ("length", "Length", "tokens", "Mean length of a completion."),
        ("entropy", "Entropy", "nats a token", "Of the next-token distribution."),
        ("dead groups", "Dead groups", "share", "Problems whose completions all have the same reward."),
        ("kl", "KL to the start", "nats a completion", "To the model that the stage began with."),
    ]
    runs = list(seeds[0]["curves"])

    def line(run: str, figure: str) -> Series:
        curves = [s["curves"][run] for s in seeds]
        return band(STAGES[run], curves[0]["step"], [curve[figure] for curve in curves])

    return [
        Chart(
            title, "step", unit, [line(run, figure) for run in runs], f"{note} Mean, lowest and highest seed.",
            group="Reinforcement",
        )
        for figure, title, unit, note in told
    ]  # fmt: skip


def _samples(seed: Seed) -> list[SampleRow]:
    rows = []
    for i, first in enumerate(seed["stages"]["base"]["shown"]):
        rows.append(
            SampleRow(
                first["prompt"],
                [Column(name, seed["stages"][stage]["shown"][i]["text"]) for stage, name in STAGES.items()],
            )
        )
    return rows


def tables(seeds: Sequence[Seed]) -> str:
    """Every stage's figures, what is compared, and each seed's accuracy with its interval, as in docs/r1.md."""
    return "\n".join([_stages(seeds), _compared(seeds), _accuracies(seeds), _imitated(seeds)])


def _stages(seeds: Sequence[Seed]) -> str:
    def mean(stage: str, figure: str) -> float:
        return over_seeds([value(s, stage, figure) for s in seeds]).mean

    def kl(stage: str) -> str:
        return "" if seeds[0]["stages"][stage]["kl"] is None else f"{mean(stage, 'kl'):.1f}"

    def row(stage: str) -> list[str]:
        percents = [f"{100 * mean(stage, figure):.1f}" for figure in ("accuracy", "other", "mixed", "format", "dead groups")]
        first = seeds[0]["stages"][stage]
        return [
            STAGES[stage], *percents, f"{mean(stage, 'length'):.1f}", f"{mean(stage, 'entropy'):.3f}", kl(stage),
            str(first["drawn"]), _whole(seeds, lambda s: s["stages"][stage]["read"]),
            _whole(seeds, lambda s: s["stages"][stage]["seconds"]),
        ]  # fmt: skip

    head = [
        "stage", "accuracy, %", "other words, %", "mixed, %", "format, %", "dead groups, %", "tokens", "entropy", "KL", "drawn",
        "read", "seconds",
    ]  # fmt: skip
    return table(head, map(row, STAGES))


def _whole(seeds: Sequence[Seed], of: Callable[[Seed], float]) -> str:
    """The mean over seeds as a whole number."""
    return f"{over_seeds([of(s) for s in seeds]).mean:.0f}"


def _compared(seeds: Sequence[Seed]) -> str:
    rows = []
    for name, pair in DIFFERENCES.items():
        length = over_seeds([value(s, pair[0], "length") - value(s, pair[1], "length") for s in seeds])
        shares = [points(_difference(seeds, pair, figure)) for figure in ("accuracy", "other", "mixed")]
        rows.append([name, *shares, signed(length.mean, 1)])
    return table(["difference, mean of seeds and 95 % interval", "accuracy", "other words", "mixed", "tokens"], rows)


def _accuracies(seeds: Sequence[Seed]) -> str:
    def cell(seed: Seed, stage: str) -> str:
        share = seed["stages"][stage]["accuracy"]
        return f"{100 * share['value']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"

    rows = [[name, *(cell(s, stage) for s in seeds)] for stage, name in STAGES.items()]
    return table(["accuracy, %, and Wilson's interval", *(f"seed {s['seed']}" for s in seeds)], rows)


def _imitated(seeds: Sequence[Seed]) -> str:
    rows = [
        [STAGES[name], f"seed {s['seed']}", *(str(found[key]) for key in ("drawn", "right", "different"))]
        for name in seeds[0]["kept"]
        for s in seeds
        for found in [s["kept"][name]]
    ]
    return table(["imitated", "", "drawn", "right", "different"], rows)
