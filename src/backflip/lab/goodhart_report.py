"""The report of `goodhart`, and its tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.goodhart_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import bars
from backflip.maths.overoptimisation import BON, RL, Form
from backflip.maths.ratings import best_of_n_kl
from backflip.runs.report_data import Chart, Figure, ReportData, Series
from backflip.worlds.tails import TAILS

Worlds = Mapping[str, Mapping[str, Any]]
Errors = Mapping[str, Mapping[str, float]]


def report(
    worlds: Worlds, seeds: Sequence[Mapping[str, Any]], errors: Errors, lines: Sequence[Line], settings: Settings
) -> ReportData:  # fmt: skip
    """Everything as a page."""
    return ReportData(
        title="Goodhart's law, by enumeration",
        summary=(
            f"Best of n up to n = {settings.most:,} under five kinds of noise: "
            + "; ".join(f"{name}, {TAILS[name].outcome}" for name in worlds)
            + f". {sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(name, world) for name, world in worlds.items())],
        charts=[_together(worlds), *(_one(name, world, seeds, settings) for name, world in worlds.items())],
        settings=to_yaml(settings),
        notes=[
            "Made by `backflip lab run goodhart`; tables.md beside this page holds the figures.",
            "The x of every chart is √KL(best of n ‖ one draw) in nats, with KL = log n − (n − 1)/n.",
        ],
    )


def _figure(name: str, world: Mapping[str, Any]) -> Figure:
    return Figure(
        f"{name}: {TAILS[name].outcome}", signed(world["gold"][-1], 2),
        f"most {signed(world['peak'], 2)} at n = {world['peak n']:,}",
        f"gold of the best of {world['n'][-1]:,} by proxy. {TAILS[name].sentence}",
    )  # fmt: skip


def _together(worlds: Worlds) -> Chart:
    return Chart(
        "Gold of the best by proxy", "√KL, nats", "gold",
        [Series(name, world["distance"], world["gold"]) for name, world in worlds.items()],
        "The same proxy, gold plus noise, with five kinds of noise. Enumerated.", group="All five",
    )  # fmt: skip


def _one(name: str, world: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], settings: Settings) -> Chart:
    def line(form: Form) -> Series:
        found = world["forms"][form.name]
        return Series(
            f"{form.name}, fitted to n ≤ {settings.fitted}", world["distance"],
            form(world["distance"], found["alpha fitted"], found["beta fitted"]).tolist(),
        )  # fmt: skip

    drawn = [[s["sampled"][name][n] for s in seeds] for n in world["at"]]
    samples = Series(
        "samples", [math.sqrt(best_of_n_kl(int(n))) for n in world["at"]], [sum(v) / len(v) for v in drawn],
        [min(v) for v in drawn], [max(v) for v in drawn],
    )  # fmt: skip
    return Chart(
        name, "√KL, nats", "gold", [Series("enumerated", world["distance"], world["gold"]), samples, line(BON), line(RL)],
        f"{TAILS[name].sentence} Samples: mean, lowest and highest of {len(seeds)}, {settings.samples:,} draws each.",
        group="One by one",
    )  # fmt: skip


def tables(worlds: Worlds, errors: Errors, earlier: Mapping[str, Mapping[int, float]]) -> str:
    """The tables of the page in the documentation."""
    return "\n".join([_shapes(worlds), _forms(worlds), _digits(worlds, errors, earlier)])


def _shapes(worlds: Worlds) -> str:
    def row(name: str, world: Mapping[str, Any]) -> list[str]:
        last = world["n"][-1]
        peak = [f"{world['peak n']:,}", f"{world['peak distance']:.2f}", signed(world["peak"], 3)]
        peak = ["", "", ""] if world["peak n"] == last else peak
        middle = signed(world["at"]["1000"], 3) if "1000" in world["at"] else ""
        return [name, TAILS[name].outcome, *peak, middle, signed(world["gold"][-1], 3)]

    last = next(iter(worlds.values()))["n"][-1]
    head = ["noise", "outcome", "n at the peak", "√KL there", "gold there", "gold at n = 1,000", f"gold at n = {last:,}"]
    return table(head, [row(name, world) for name, world in worlds.items()])


def _forms(worlds: Worlds) -> str:
    def row(name: str, world: Mapping[str, Any]) -> list[str]:
        cells = [name]
        for form in (BON, RL):
            found = world["forms"][form.name]
            cells += [signed(found["beta"], 3), f"{found['r2']:.2f}", signed(found["miss"], 2)]
        return cells

    head = ["noise", "best of n: β", "R²", "miss at the end", "reinforcement: β", "R²", "miss at the end"]
    return table(head, [row(name, world) for name, world in worlds.items()])


def _digits(worlds: Worlds, errors: Errors, earlier: Mapping[str, Mapping[int, float]]) -> str:
    rows = [
        [name, f"{n:,}", signed(worlds[name]["at"][str(n)], 3), signed(value, 2), f"{errors[name][str(n)]:.3f}"]
        for name, values in earlier.items()
        for n, value in values.items()
        if str(n) in worlds[name]["at"]
    ]
    return table(["noise", "n", "enumerated", "from one sample", "standard error of a sample"], rows)
