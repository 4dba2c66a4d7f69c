"""The report of `whack-a-mole`, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.seeds import Interval, over_seeds
from backflip.lab.tables import table
from backflip.lab.telling import bars, cell, interval_band, mean_and_interval, with_interval
from backflip.lab.whack_a_mole_figures import steps_to_hack, trend
from backflip.lab.whack_a_mole_settings import ARMS, MINED, Settings
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]
SHOWN = (
    ("peak", "Gold at the peak", "gold", "The most gold of any look of a round, and so a little lucky in every round alike."),
    ("end", "Gold at the hack", "gold", "Where a round is not hacked, at its end."),
    ("kl", "KL at the hack", "nats a sequence", "To the first policy."),
    ("proxy", "Proxy at the hack", "reward", "By the round's own reward model, scaled to 0 ± 1 on the first policy's texts."),
    ("accuracy", "Reward model", "right, held out", "On comparisons like those it learned from, of which there are few."),
)
INTERVAL = "Mean over seeds with its 95 % interval."


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    hacked = [r["steps"] is not None for s in seeds for r in s["arms"][MINED][1:]]
    later = with_interval(_trend(seeds, MINED, settings), 1, "95 % interval ")
    return ReportData(
        title="Whack-a-mole",
        summary=(
            f"{sum(hacked)} of {len(hacked)} rounds whose predecessors' hacks were all labelled are hacked again "
            f"({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). From round to round the hack comes "
            f"{later} steps later. {sum(line.passed for line in lines)} of {len(lines)} "
            "bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, arm, settings) for arm in ARMS)],
        charts=[*_rounds(seeds, settings), *_runs(seeds[0])],
        samples=_samples(seeds[0]),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run whack-a-mole --seeds {len(seeds)}`; tables.md beside this page holds the tables.",
            "Every round starts from the first policy, with the same prompts and random numbers; the first round of both arms is "
            "the same run.",
            f"Hacked is the first look at which gold is below its peak by more than {settings.tolerance:.0%} of the peak's gain "
            f"and {settings.sure:g} standard errors, and the proxy above what it was at the peak. A round without such a look "
            f"counts {settings.ppo.steps} steps.",
            "The kind of a hack is the feature with the largest part of the proxy's gain that is not gold's.",
        ],
    )  # fmt: skip


def _trend(seeds: Sequence[Seed], arm: str, settings: Settings) -> Interval:
    return over_seeds([trend(s["arms"][arm], settings.ppo.steps) for s in seeds])


def _figure(seeds: Sequence[Seed], arm: str, settings: Settings) -> Figure:
    value, interval = mean_and_interval(_trend(seeds, arm, settings), 1)
    return Figure(f"Steps that the hack comes later from round to round: {arm}", value, interval, ARMS[arm])


def _rounds(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    """What became of each round."""
    numbers = [float(r) for r in range(1, settings.rounds + 1)]

    def chart(title: str, unit: str, note: str, of: Callable[[list[dict[str, Any]]], list[float]]) -> Chart:
        series = [interval_band(arm, numbers, [of(s["arms"][arm]) for s in seeds]) for arm in ARMS]
        return Chart(title, "round", unit, series, f"{note} {INTERVAL}", group="Round after round")

    def column(name: str) -> Callable[[list[dict[str, Any]]], list[float]]:
        return lambda rounds: [r[name] for r in rounds]

    first = "When gold has surely fallen from its peak; a round that is not hacked counts all its steps."
    return [
        chart("Steps to the hack", "steps", first, lambda rounds: steps_to_hack(rounds, settings.ppo.steps)),
        *(chart(title, unit, note, column(name)) for name, title, unit, note in SHOWN),
    ]


def _runs(seed: Seed) -> list[Chart]:
    """The runs of one seed, up to where each is hacked."""
    return [
        Chart(
            f"{name.capitalize()}, {arm}", "step", name,
            [Series(f"round {r}", each["curve"]["step"], each["curve"][name]) for r, each in enumerate(seed["arms"][arm], 1)],
            "Each run ends where it is hacked, or with its last step.", group=f"Every run of seed {seed['seed']}",
        )
        for arm in ARMS
        for name in ("gold", "proxy")
    ]  # fmt: skip


def _samples(seed: Seed) -> list[SampleRow]:
    """What the hacked policies of the mined arm write for the same prompts."""
    rounds = seed["arms"][MINED]
    rows = []
    for i, text in enumerate(rounds[0]["texts"]):
        columns = [Column("first policy", text["before"])]
        for r, each in enumerate(rounds, 1):
            own = each["texts"][i]
            columns.append(
                Column(f"round {r}: {each['kind'] or 'no hack'}", own["text"], {"proxy": own["proxy"], "gold": own["gold"]})
            )
        rows.append(SampleRow(text["prompt"], columns))
    return rows


def tables(seeds: Sequence[Seed], settings: Settings) -> str:
    """What came out, as it stands in the documentation: each round, and the kinds of hack of each seed."""
    head = ["arm", "round", "hacked", "steps to the hack", "gold at the peak", "at the hack", "KL", "proxy"]
    rows = []
    for arm in ARMS:
        for r in range(settings.rounds):
            own = [s["arms"][arm][r] for s in seeds]
            steps = steps_to_hack(own, settings.ppo.steps)
            rows.append(
                [
                    arm, str(r + 1), f"{sum(x['steps'] is not None for x in own)} of {len(own)}", cell(steps, 0),
                    *(cell([x[name] for x in own]) for name in ("peak", "end")), cell([x["kl"] for x in own], 0),
                    cell([x["proxy"] for x in own]),
                ]
            )  # fmt: skip
    kinds = [
        [str(s["seed"]), arm, *(r["kind"] or "none" for r in s["arms"][arm])] for s in seeds for arm in ARMS
    ]  # fmt: skip
    names = [f"round {r}" for r in range(1, settings.rounds + 1)]
    return table(head, rows) + "\n" + table(["seed", "arm", *names], kinds)
