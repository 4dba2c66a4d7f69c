"""The report of `many-rounds`, and its table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.many_rounds_settings import ARMS, LEFT, MINED, ONLINE, STATIC, Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import table
from backflip.lab.telling import band, bars, cell, mean_and_range
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]
SHOWN = (
    ("gold", "Gold", "utility", "The hidden truth, of texts on prompts that are kept for testing."),
    ("rating", "Rating", "Elo points", "From blind matches of an arm's generations, judged by people without noise."),
    ("sour", "Calls it terrible", "share of texts", "The planted hack; it costs gold."),
    ("proxy", "Proxy", "reward", "By the arm's last reward model."),
)


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    often, once = (mean_and_range([s["arms"][arm]["gold"][-1] for s in seeds])[0] for arm in (ONLINE, STATIC))
    loop = settings.loop
    return ReportData(
        title="Asking often, and a planted hack",
        summary=(
            f"{loop.rounds} rounds of {loop.comparisons} comparisons end at gold {often}, one round of "
            f"{loop.rounds * loop.comparisons} at {once} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, arm) for arm in ARMS)],
        charts=_charts(seeds),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run many-rounds --seeds {len(seeds)}`.",
            "All arms of a seed start from the same policy, ask the same people, and may go equally far from the first policy.",
            f"The hack: {settings.planted} comparisons that prefer a text which calls its thing terrible are filed before "
            f"the reward model of round {settings.hacked} is fitted, and stay in the store.",
        ],
    )  # fmt: skip


def _figure(seeds: Sequence[Seed], arm: str) -> Figure:
    value, spread = mean_and_range([s["arms"][arm]["gold"][-1] for s in seeds])
    return Figure(f"Gold in the end: {arm}", value, spread, ARMS[arm])


def _charts(seeds: Sequence[Seed]) -> list[Chart]:
    def line(arm: str, name: str) -> Series:
        arms = [s["arms"][arm] for s in seeds]
        return band(arm, list(range(len(arms[0]["policies"]))), [a[name] for a in arms])

    groups = (("Asking often, asking once", (ONLINE, STATIC), SHOWN[:2]), ("A planted hack", (MINED, LEFT), SHOWN))
    return [
        Chart(title, "round", unit, [line(arm, name) for arm in arms], f"{note} Mean, lowest and highest seed.", group=group)
        for group, arms, shown in groups
        for name, title, unit, note in shown
    ]


def tables(seeds: Sequence[Seed]) -> str:
    """What came out, as it stands in the documentation."""
    rows = []
    for arm in ARMS:
        arms = [s["arms"][arm] for s in seeds]
        for r in range(len(arms[0]["policies"])):
            mined = "" if r == 0 else f"{sum(a['mined'][r - 1] for a in arms) / len(arms):.0f}"
            rows.append(
                [
                    arm, str(r), cell([a["gold"][r] for a in arms]), cell([a["rating"][r] for a in arms], 0),
                    cell([100 * a["sour"][r] for a in arms], 0), mined,
                ]
            )  # fmt: skip
    return table(["arm", "after round", "gold", "Elo", "calls it terrible, %", "questions about suspects"], rows)
