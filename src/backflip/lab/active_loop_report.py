"""The report of `active-loop`, and its table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.active_loop_figures import slope, staleness
from backflip.lab.active_loop_settings import ONCE, Settings
from backflip.lab.outcome import Line
from backflip.lab.seeds import over_seeds
from backflip.lab.tables import table
from backflip.lab.telling import bars, cell, interval_band, mean_and_interval, mean_and_range, with_interval
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]
INTERVAL = "Mean over seeds with its 95 % interval."
LAST = (
    ("gold", "Gold of the last policy", "gold", "The hidden truth, of texts on prompts that nobody trained on."),
    (
        "accuracy", "Reward model", "right",
        "How often the last reward model says which of two new texts of the last policy has more gold.",
    ),
    ("kl", "KL in the last leg", "nats a sequence", "To the first policy; all arms aim at the same."),
)  # fmt: skip
LEGS = (("gold", "Gold", "gold"), ("proxy", "Proxy", "reward"), ("kl", "KL", "nats a sequence"))


def at_random(settings: Settings) -> list[str]:
    """The arms that ask at random: what their staleness costs is not mixed with what a rule chooses."""
    return [name for name, arm in settings.arms().items() if arm.ask == "random"]


def groups(settings: Settings) -> dict[str, list[str]]:
    """The arms that are compared: in more portions or fewer, later or sooner, and chosen by a rule."""
    arms = settings.arms()
    return {
        "more or fewer portions": [name for name, arm in arms.items() if arm.ask == "random" and not arm.delay],
        "later or sooner": [settings.freshest, *(name for name, arm in arms.items() if arm.delay)],
        "near ties": [name for name, arm in arms.items() if arm.ask != "random"],
    }


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    fresh, stale = (_told([s["arms"][arm]["gold"] for s in seeds]) for arm in (settings.freshest, ONCE))
    return ReportData(
        title="Stale labels",
        summary=(
            f"{settings.comparisons} comparisons asked in {settings.legs} portions about the policy of the moment end at gold "
            f"{fresh}, all asked about the first policy at {stale} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_slopes(seeds, settings), *(_figure(seeds, arm) for arm in settings.arms())],
        charts=[*_over_staleness(seeds, settings), *_over_legs(seeds, settings)],
        samples=_samples(seeds[0]),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run active-loop --seeds {len(seeds)}`; tables.md beside this page holds the table.",
            f"Every arm's training falls into {settings.legs} legs of {settings.ppo.steps} steps, each with an optimizer of its "
            "own; prompts and random numbers are the same in all arms.",
            "Staleness is how many legs of training lie between the policy that wrote the compared texts and the one that is "
            "trained, mean over the comparisons a reward model learned from and over the legs.",
        ],
    )  # fmt: skip


def _told(values: Sequence[float]) -> str:
    return with_interval(over_seeds(values), what="95 % interval ")


def _slopes(seeds: Sequence[Seed], settings: Settings) -> list[Figure]:
    found = groups(settings)
    names = {"all arms that ask at random": at_random(settings)} | {
        f"arms that ask {kind}": found[kind] for kind in ("more or fewer portions", "later or sooner")
    }
    return [
        Figure(f"Gold per policy of staleness, {title}", *mean_and_interval(over_seeds([slope(s, arms) for s in seeds])))
        for title, arms in names.items()
    ]


def _figure(seeds: Sequence[Seed], arm: str) -> Figure:
    arms = [s["arms"][arm] for s in seeds]
    stale, _ = mean_and_range([staleness(a) for a in arms])
    value, interval = mean_and_interval(over_seeds([a["gold"] for a in arms]))
    return Figure(f"Gold in the end: {arm}", value, interval, f"texts {stale} policies old")


def _over_staleness(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    """What an arm ends with over how stale its comparisons were; one line for each thing that made them so."""

    def line(kind: str, names: list[str], figure: str) -> Series:
        names = sorted(names, key=lambda name: staleness(seeds[0]["arms"][name]))
        xs = [over_seeds([staleness(s["arms"][name]) for s in seeds]).mean for name in names]
        return interval_band(kind, xs, [[s["arms"][name][figure] for name in names] for s in seeds])

    return [
        Chart(
            title, "staleness, in policies", unit, [line(kind, names, figure) for kind, names in groups(settings).items()],
            f"{note} {INTERVAL}", group="What staleness costs",
        )
        for figure, title, unit, note in LAST
    ]  # fmt: skip


def _over_legs(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    numbers = [float(leg + 1) for leg in range(settings.legs)]
    kinds = groups(settings)
    pages = {"More or fewer portions": kinds["more or fewer portions"], "Later or sooner, and near ties": [
        *kinds["later or sooner"], *kinds["near ties"]
    ]}  # fmt: skip
    return [
        Chart(
            title, "leg", unit, [interval_band(arm, numbers, [s["arms"][arm]["legs"][figure] for s in seeds]) for arm in arms],
            f"Of the texts that the leg learns from. {INTERVAL}", group=page,
        )
        for page, arms in pages.items()
        for figure, title, unit in LEGS
    ]  # fmt: skip


def _samples(seed: Seed) -> list[SampleRow]:
    """What the last policies write for the same prompts."""
    arms = seed["arms"]
    return [
        SampleRow(
            text["prompt"],
            [
                Column(name, arm["texts"][i]["text"], {"gold": arm["texts"][i]["gold"], "proxy": arm["texts"][i]["proxy"]})
                for name, arm in arms.items()
            ],
        )
        for i, text in enumerate(arms[ONCE]["texts"])
    ]


def tables(seeds: Sequence[Seed], settings: Settings) -> str:
    """The table of the page in the documentation."""
    rows = []
    for name in settings.arms():
        arms = [s["arms"][name] for s in seeds]
        rows.append(
            [
                name, cell([staleness(a) for a in arms]), cell([a["gold"] for a in arms]),
                cell([100 * a["accuracy"] for a in arms], 0), cell([a["kl"] for a in arms], 1),
                cell([a["comparisons"] for a in arms], 0),
            ]
        )  # fmt: skip
    head = ["asked", "staleness, policies", "gold in the end", "reward model right, %", "KL", "comparisons"]
    return table(head, rows)
