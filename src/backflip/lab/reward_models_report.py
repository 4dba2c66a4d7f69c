"""The report of `reward-models`: what a person would be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.reward_models_figures import interval
from backflip.lab.reward_models_settings import Settings
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = Mapping[str, Any]
WAYS = {"question": "all pairs of a ranking together", "pair": "pairs shuffled"}
LOSSES = {"bradley-terry": "Bradley–Terry", "elo": "Elo"}
RULES = {"single": "one model", "mean": "mean", "worst": "worst case", "uncertainty": "mean less λ·var"}


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="What makes a reward model good",
        summary=(
            f"Reward models of reviews whose worth is known ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}): "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_kinds(seeds)],
        charts=[*_overfitting(seeds), *_scaling(seeds), _elo(seeds), *_ensembles(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run reward-models --seeds {len(seeds)}`.",
            "Accuracy is over pairs of completions of prompts that nothing learned from, as gold has them. Bands are the lowest "
            "and the highest seed; intervals of bars are 95 % t-intervals over seeds.",
            "A rating takes 1 unit of time, a comparison 1.5, a ranking of four 4.5.",
        ],
    )


def tables(seeds: Sequence[Seed]) -> str:
    """The figures as tables in Markdown: means over seeds with 95 % intervals."""
    counts = [[f"{row['comparisons']:,}", told] for row, told in _rows(seeds, "counts")]
    sizes = [[f"{row['comparisons']:,}", f"{row['parameters']:,}", told] for row, told in _rows(seeds, "sizes")]
    kinds = [[name, _told(_kind(seeds, name))] for name in seeds[0]["feedback"]["equal time"]]
    elo = [
        [str(row["games"]), *(_told([s["feedback"]["elo"][i][loss]["accuracy"] for s in seeds]) for loss in LOSSES)]
        for i, row in enumerate(seeds[0]["feedback"]["elo"])
    ]
    over = [
        [f"{epochs:.1f}", *(_told([s["overfitting"][way]["figures"][i]["log loss"] for s in seeds]) for way in WAYS)]
        for i, epochs in enumerate(seeds[0]["overfitting"]["question"]["epochs"])
        if all(i < len(s["overfitting"][way]["figures"]) for s in seeds for way in WAYS)
    ]
    best = [
        [labels, title, *(_told([s["ensembles"][labels]["gold"][rule][i] for s in seeds]) for i in _shown(seeds[0], labels))]
        for labels in seeds[0]["ensembles"]
        for rule, title in RULES.items()
    ]
    first = next(iter(seeds[0]["ensembles"]))
    ns = [f"n = {seeds[0]['ensembles'][first]['n'][i]}" for i in _shown(seeds[0], first)]
    return "\n\n".join(
        [
            _table(["passes", *(f"held-out log loss, {title}" for title in WAYS.values())], over),
            _table(["comparisons", "accuracy"], counts), _table(["comparisons", "parameters", "accuracy"], sizes),
            _table(["at equal time", "accuracy"], kinds), _table(["games a text", "Bradley–Terry", "Elo"], elo),
            _table(["labels", "rule", *ns], best),
        ]
    ) + "\n"  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _told(values: Sequence[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})".replace("-", "−")


def _rows(seeds: Sequence[Seed], part: str) -> list[tuple[dict[str, Any], str]]:
    """What was fitted, and its accuracy over the seeds in words."""
    first = seeds[0]["scaling"][part]
    return [(row, _told([s["scaling"][part][i]["accuracy"] for s in seeds])) for i, row in enumerate(first)]


def _shown(seed: Seed, labels: str) -> list[int]:
    """Every second n, the last one always."""
    last = len(seed["ensembles"][labels]["n"]) - 1
    return [i for i in range(last + 1) if (last - i) % 2 == 0]


def _kind(seeds: Sequence[Seed], name: str) -> list[float]:
    return [s["feedback"]["equal time"][name]["accuracy"] for s in seeds]


def _kinds(seeds: Sequence[Seed]) -> list[Figure]:
    return [
        Figure(f"Accuracy from {name}", f"{interval(_kind(seeds, name))[0]:.1%}", note=f"{row['comparisons']:,} pairs")
        for name, row in seeds[0]["feedback"]["equal time"].items()
    ]


def _overfitting(seeds: Sequence[Seed]) -> list[Chart]:
    charts = []
    for figure, unit, note in (("log loss", "nats a comparison", "Lower is better."), ("accuracy", "share right", "")):
        series = []
        for way, title in WAYS.items():
            n = min(len(s["overfitting"][way]["figures"]) for s in seeds)
            ys = [[row[figure] for row in s["overfitting"][way]["figures"][:n]] for s in seeds]
            series.append(band(title, seeds[0]["overfitting"][way]["epochs"][:n], ys))
        explanation = f"On other rankings by the same people, after passes over the same pairs. {note}".strip()
        charts.append(Chart(f"Held-out {figure}", "passes", unit, series, explanation, group="Pairs of a ranking"))
    return charts


def _scaling(seeds: Sequence[Seed]) -> list[Chart]:
    def series(part: str, by: str, places: Sequence[int], name: str) -> Series:
        rows = [[s["scaling"][part][i] for i in places] for s in seeds]
        return band(name, [math.log2(row[by]) for row in rows[0]], [[row["accuracy"] for row in each] for each in rows])

    told = [row["comparisons"] for row in seeds[0]["scaling"]["sizes"]]
    by_size = [
        series("sizes", "parameters", [i for i, each in enumerate(told) if each == n], f"{n:,} comparisons")
        for n in dict.fromkeys(told)
    ]
    by_count = [series("counts", "comparisons", range(len(seeds[0]["scaling"]["counts"])), "accuracy")]
    return [
        Chart(f"Accuracy by {by}", f"log₂ {by}", "share right", lines, group="Size and data")
        for by, lines in (("comparisons", by_count), ("parameters", by_size))
    ]


def _elo(seeds: Sequence[Seed]) -> Chart:
    rows = seeds[0]["feedback"]["elo"]
    series = [
        band(title, [row["games"] for row in rows], [[row[loss]["accuracy"] for row in s["feedback"]["elo"]] for s in seeds])
        for loss, title in LOSSES.items()
    ]
    note = "The same games learned from directly, and by regression on the Elo they give each text."
    return Chart("Elo as a target", "games a text", "share right", series, note, group="Kinds of feedback")


def _ensembles(seeds: Sequence[Seed]) -> list[Chart]:
    return [
        Chart(
            f"Gold, labels {labels}" if labels.startswith("as") else f"Gold, {labels}", "log n", "gold reward",
            [
                band(title, [math.log(n) for n in found["n"]], [s["ensembles"][labels]["gold"][rule] for s in seeds])
                for rule, title in RULES.items()
            ],
            "Of the completion that scores highest among n. Where it falls, the model is being gamed.", group="Best of n",
        )
        for labels, found in seeds[0]["ensembles"].items()
    ]  # fmt: skip
