"""What `generator-gap` says: its report and its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from backflip.config import to_yaml
from backflip.lab.generator_gap_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Column, ReportData, SampleRow

Seed = dict[str, Any]


def _over(seeds: Sequence[Seed], pick: Callable[[Seed], float], show: Callable[[float], str]) -> str:
    found = [float(pick(seed)) for seed in seeds]
    mean = show(sum(found) / len(found))
    return mean if len(found) == 1 else f"{mean} ({show(min(found))} to {show(max(found))})"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _gold(value: float) -> str:
    return signed(value, 2)


def tables(seeds: Sequence[Seed]) -> str:
    """Tables for the documentation: means of seeds, lowest and highest in brackets."""
    judges = seeds[0]["gap"]["judges"]
    counts = list(next(iter(judges.values()))["tries"])
    written = _over(seeds, lambda s: s["gap"]["good"], _percent)
    rows = [["written by the base model", "", *([written] * len(counts))]]
    rows.append(
        ["one is there (an oracle's pick)", "", *(_over(seeds, partial(_tried, None, n, "any"), _percent) for n in counts)]
    )
    for noise in judges:
        accuracy = _over(seeds, lambda s, j=noise: s["gap"]["judges"][j]["accuracy"], _percent)  # type: ignore[misc]
        picked = (_over(seeds, partial(_tried, noise, n, "picked"), _percent) for n in counts)
        rows.append([f"picked by the judge of noise {noise}, where one is there", accuracy, *picked])
    policies = [
        [
            name,
            _over(seeds, lambda s, p=name: s["policies"][p]["gold"], _gold),  # type: ignore[misc]
            _over(seeds, lambda s, p=name: s["policies"][p]["good"], _percent),  # type: ignore[misc]
            _over(seeds, lambda s, p=name: s["policies"][p]["words"], lambda v: f"{v:.0f}"),  # type: ignore[misc]
        ]
        for name in seeds[0]["policies"]
    ]
    return "\n".join(
        [
            table(["a good text", "judge right on pairs", *(f"of {n}" for n in counts)], rows),
            table(["policy", "gold", "good texts", "words"], policies),
        ]
    )


def _tried(judge: str | None, n: str, figure: str, seed: Seed) -> float:
    """A figure of picking among n by a judge; None: one that does not depend on who picks."""
    tries = _first(seed) if judge is None else seed["gap"]["judges"][judge]
    return float(tries["tries"][n][figure])


def _first(seed: Seed) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(seed["gap"]["judges"].values()))
    return found


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    judges = seeds[0]["gap"]["judges"]
    counts = [int(n) for n in _first(seeds[0])["tries"]]
    picked = [
        band(f"noise {noise}", counts, [[t["good"] for t in s["gap"]["judges"][noise]["tries"].values()] for s in seeds])
        for noise in judges
    ]
    oracle = band("oracle", counts, [[t["any"] for t in _first(s)["tries"].values()] for s in seeds])
    return ReportData(
        title="Easier to pick than to write",
        summary=f"{sum(line.passed for line in lines)} of {len(lines)} bars met over {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}; {settings.comparisons:,} comparisons, or "
        f"{settings.comparisons / settings.cost:,.0f} demonstrations.",
        figures=bars(lines),
        charts=[
            Chart(
                "Good texts among those picked", "samples to pick from", "share", [oracle, *picked],
                "Reward models of comparisons, so many of which were answered blindly; an oracle picks a good one whenever "
                "there is one. Mean, lowest and highest seed.",
            )
        ],
        samples=[
            SampleRow(row["prompt"], [Column(name, policy["shown"][i]["text"]) for name, policy in seeds[0]["policies"].items()])
            for i, row in enumerate(seeds[0]["policies"]["base"]["shown"])
        ],
        settings=to_yaml(settings),
        notes=[f"Made by `backflip lab run generator-gap --seeds {len(seeds)}`.", *tables(seeds).splitlines()],
    )  # fmt: skip
