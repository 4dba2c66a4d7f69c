"""The report of `hh-online`, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.hh_online_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import bars, cell, mean_and_range
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    wins, spread = mean_and_range([100 * s["met"]["wins"]["mean"] for s in seeds], 0)
    loop = settings.asking.loop
    return ReportData(
        title="Asking people again",
        summary=(
            f"The last policy of {loop.rounds} rounds of {loop.comparisons} comparisons wins {wins} % of its meetings with that "
            f"of one round of {loop.rounds * loop.comparisons} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), Figure("Meetings won by asking often", f"{wins} %", spread, "before people whom neither asked")],
        charts=[*_laws(seeds[0], settings), *_apart(seeds[0], settings), *_arms(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run hh-online --seeds {len(seeds)}`.",
            "Scores are in standard deviations of what the model gave the texts of the first policy. The curves are those of "
            f"seed {seeds[0]['seed']}; the bars are over all seeds.",
            "The bend is where a line that is broken once fits best; the law is fitted to the points before it.",
        ],
    )  # fmt: skip


def _laws(seed: Seed, settings: Settings) -> list[Chart]:
    """Score over √KL of every size: the looks, and the line up to the bend."""
    series = []
    for width in settings.sizes:
        run, line = seed["runs"][f"{width} against {settings.models[-1]}"], seed["laws"][str(width)]
        order = sorted(range(len(run["root kl"])), key=lambda i: run["root kl"][i])
        series.append(Series(f"width {width}", [run["root kl"][i] for i in order], [run["train"][i] for i in order]))
        xs = [0.0, line["bend"]]
        series.append(Series(f"fit {width}", xs, [line["intercept"] + line["slope"] * x for x in xs]))
    told = "; ".join(f"width {w}: slope {law['slope']:.2f}, R² {law['r2']:.3f}" for w, law in seed["laws"].items())
    note = f"A score that is linear in √KL, up to the bend. {told}."
    return [
        Chart("Score of the train model", "√KL, √nats per sequence", "standard deviations", series, note, group="The √KL law")
    ]


def _apart(seed: Seed, settings: Settings) -> list[Chart]:
    """What train and test model say of one run, for every width of the models, and the gaps together."""
    found, both = [], []
    for m in settings.models:
        run = seed["runs"][f"{settings.sizes[-1]} against {m}"]
        note = f"Preference models of width {m}, of disjoint halves of the comparisons; the policy is paid by the first."
        lines = [Series(name, run["step"], run[name]) for name in ("train", "test")]
        found.append(Chart(f"Width {m}", "PPO step", "standard deviations", lines, note, group="Train and test model"))
        low, high = ([g + side * 1.96 * e for g, e in zip(run["gap"], run["error"], strict=True)] for side in (-1, 1))
        order = sorted(range(len(run["gap"])), key=lambda i: run["root kl"][i])
        both.append(Series(f"width {m}", *([part[i] for i in order] for part in (run["root kl"], run["gap"], low, high))))
    note = "What the train model gives more than the test model, with 95 % intervals over prompts."
    found.append(Chart("The gap", "√KL, √nats per sequence", "standard deviations", both, note, group="Train and test model"))
    return found


def _arms(seeds: Sequence[Seed]) -> list[Chart]:
    """Gold and calibration of both arms, seed by seed."""
    xs = [float(s["seed"]) for s in seeds]

    def lines(*path: str) -> list[Series]:
        rows = [s["met"] for s in seeds]
        for name in path:
            rows = [row[name] for row in rows]
        return [Series(arm, xs, [row[arm] for row in rows]) for arm in ("online", "static")]

    low = [s["met"]["wins"]["low"] for s in seeds]
    high = [s["met"]["wins"]["high"] for s in seeds]
    won = Series("won", xs, [s["met"]["wins"]["mean"] for s in seeds], low, high)
    group = "Asking often, asking once"
    return [
        Chart("Gold of the last policies", "seed", "utility", lines("gold"), "The hidden truth.", group=group),
        Chart("Meetings won by asking often", "seed", "share", [won], "Before people whom neither asked; 95 %.", group=group),
        Chart(
            "Calibration error, high scores", "seed", "probability", lines("high"),
            "Of each arm's last reward model, on pairs of texts by the last policies.", group=group,
        ),
        Chart("Calibration error, low scores", "seed", "probability", lines("low"), "On pairs by the first policy.", group=group),
    ]  # fmt: skip


def tables(seeds: Sequence[Seed]) -> str:
    """What came out, as it stands in the documentation."""
    laws = [
        [
            width,
            *(cell([s["laws"][width][name] for s in seeds], digits) for name, digits in (("slope", 2), ("r2", 3), ("bend", 2))),
        ]
        for width in seeds[0]["laws"]
    ]
    apart = [
        [
            m, *(cell([s["accuracy"][f"{m} {half}"] for s in seeds]) for half in ("train", "test")),
            cell([s["gaps"][m]["mean"] for s in seeds]), cell([s["gaps"][m]["mean"] / s["gaps"][m]["error"] for s in seeds], 1),
            cell([s["gaps"][m]["kl"] for s in seeds], 1),
        ]
        for m in seeds[0]["gaps"]
    ]  # fmt: skip
    arms = [
        [arm, *(cell([s["met"][what][arm] for s in seeds]) for what in ("gold", "low", "high"))] for arm in ("online", "static")
    ]
    points = " ".join(signed(s["met"]["elo"]) for s in seeds)
    won = cell([100 * s["met"]["wins"]["mean"] for s in seeds], 0)
    return "\n".join(
        [
            table(["width of the policy", "slope", "R²", "√KL at the bend"], laws),
            table(["width of the models", "train right", "test right", "gap", "standard errors", "at KL, nats"], apart),
            table(["arm", "gold", "calibration error, low scores", "at high scores"], arms),
            f"Meetings won by asking often: {won} %; Elo by seed: {points}.\n",
        ]
    )
