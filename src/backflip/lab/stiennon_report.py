"""The report of `stiennon`, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.stiennon_settings import Settings
from backflip.lab.tables import table
from backflip.lab.telling import band, bars, cell, mean_and_range
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]
NATS, SHARE = "KL, nats a completion", "win rate"
SIDES = {"true": "by gold", "predicted": "as the proxy predicts"}


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="Predicted and true win rate over KL",
        summary=(
            f"One proxy of width {settings.width} and {settings.comparisons:,} comparisons, optimised ever harder "
            f"({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, beta) for beta in seeds[0]["runs"])],
        charts=[_last(seeds), *(_way(seeds, beta) for beta in seeds[0]["runs"]), _best_of_n(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run stiennon --seeds {len(seeds)}`; tables.md beside this page holds the tables.",
            "Win rates are over all samples that the first policy wrote for the same prompt, ties as halves. The predicted one "
            "is the mean of σ((r − r_ref)/T), with the T at which the proxy's chances are right about pairs of those samples.",
            "Means over seeds, from the lowest to the highest; the KL of a point is the mean of the seeds at that look.",
        ],
    )  # fmt: skip


def _figure(seeds: Sequence[Seed], beta: str) -> Figure:
    value, spread = mean_and_range([s["runs"][beta]["true"][-1] for s in seeds])
    told, _ = mean_and_range([s["runs"][beta]["predicted"][-1] for s in seeds])
    kl, _ = mean_and_range([s["runs"][beta]["kl"][-1] for s in seeds], 1)
    return Figure(f"PPO, β = {beta}: win rate", value, spread, f"predicted {told}, at {kl} nats")


def _along(name: str, curves: Sequence[dict[str, list[float]]], y: str) -> Series:
    xs = [sum(points) / len(points) for points in zip(*(c["kl"] for c in curves), strict=True)]
    return band(name, xs, [c[y] for c in curves])


def _last(seeds: Sequence[Seed]) -> Chart:
    order = sorted(seeds[0]["runs"], key=lambda beta: sum(s["runs"][beta]["kl"][-1] for s in seeds))
    curves = [
        {name: [start, *(s["runs"][beta][name][-1] for beta in order)] for name, start in
         (("kl", 0.0), ("true", 0.5), ("predicted", 0.5))}
        for s in seeds
    ]  # fmt: skip
    return Chart(
        "The last policy under each penalty", NATS, SHARE, [_along(name, curves, side) for side, name in SIDES.items()],
        f"β from {order[0]} on the left to {order[-1]} on the right; the first point is the first policy.", group="PPO",
    )  # fmt: skip


def _way(seeds: Sequence[Seed], beta: str) -> Chart:
    curves = [s["runs"][beta] for s in seeds]
    return Chart(
        f"Look by look, β = {beta}", NATS, SHARE, [_along(name, curves, side) for side, name in SIDES.items()],
        group="PPO, on the way",
    )  # fmt: skip


def _best_of_n(seeds: Sequence[Seed]) -> Chart:
    curves = [s["best of n"] for s in seeds]
    ns = ", ".join(f"{n:g}" for n in curves[0]["n"])
    return Chart(
        "Best of n", NATS, SHARE, [_along(name, curves, side) for side, name in SIDES.items()], f"n = {ns}.", group="Best of n"
    )


def tables(seeds: Sequence[Seed]) -> str:
    """The tables of the page in the documentation."""

    def percent(name: str, rows: Sequence[dict[str, list[float]]], at: int) -> str:
        return cell([100 * row[name][at] for row in rows], 0)

    runs = [
        [beta, cell([row["kl"][-1] for row in rows], 1), percent("true", rows, -1), percent("predicted", rows, -1),
         cell([100 * max(row["true"]) for row in rows], 0)]
        for beta in seeds[0]["runs"]
        for rows in [[s["runs"][beta] for s in seeds]]
    ]  # fmt: skip
    rows = [s["best of n"] for s in seeds]
    best = [
        [f"{n:g}", f"{rows[0]['kl'][i]:.1f}", percent("true", rows, i), percent("predicted", rows, i)]
        for i, n in enumerate(rows[0]["n"])
    ]
    head = ["KL, nats", "wins by gold, %", "wins as predicted, %"]
    return "\n".join([table(["β", *head, "most on the way, %"], runs), table(["best of n", *head], best)])
