"""The report of `grue`: what a person would be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.grue_settings import TITLES, Settings
from backflip.lab.grue_tasks import TASKS, Task
from backflip.lab.outcome import Line
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="Reward beside perplexity",
        summary=(
            f"A2C, TRPO, PPO and NLPO at {settings.steps * settings.batch_size} samples each on two tasks whose rewards can be "
            f"gamed ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}): reward gained beside what it costs in naturalness. "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(figure for task in TASKS for figure in _figures(seeds, task))],
        charts=[chart for task in TASKS for chart in _charts(seeds, task)],
        samples=[row for task in TASKS for row in _samples(seeds[0], task)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run grue --seeds {len(seeds)}`.",
            "Perplexity is per token, under a language model of the same size, pretrained on other texts from other "
            "weights, that nothing is optimised against. Lower is more like the corpus; far below the base model's is monotony.",
        ],
    )


def over_seeds(seeds: Sequence[Seed], task: Task, run: str, step: Any, figure: str) -> float:
    """The mean over seeds of a figure after so many steps."""
    return float(sum(s["tasks"][task.name][run][step][figure] for s in seeds)) / len(seeds)


def _figures(seeds: Sequence[Seed], task: Task) -> list[Figure]:
    figures = []
    for name, title in TITLES.items():
        steps = sorted(seeds[0]["tasks"][task.name][name], key=int)
        first, end = (
            [over_seeds(seeds, task, name, step, figure) for figure in ("reward", "perplexity", "kl/seq_nats", "different")]
            for step in (steps[0], steps[-1])
        )
        figures.append(
            Figure(
                f"{task.title}: {title}", f"{first[0]:.2f} → {end[0]:.2f}".replace("-", "−"),
                f"perplexity {first[1]:.1f} → {end[1]:.1f}",
                f"KL {end[2]:.1f} nats a completion, {end[3]:.0%} of the texts different; means of seeds",
            )
        )  # fmt: skip
    return figures


def _charts(seeds: Sequence[Seed], task: Task) -> list[Chart]:
    told = [
        ("reward", "Reward", "reward", "On prompts that are not trained on, drawn without a mask."),
        ("log-perplexity", "Log-perplexity", "nats a token", "Under a language model that nobody optimises against."),
        ("kl/seq_nats", "KL to the base model", "nats a completion", "How far each policy went."),
        ("different", "Different texts", "share", "Of the completions of all prompts, how many occur once."),
    ]
    runs = seeds[0]["tasks"][task.name]

    def line(name: str, figure: str) -> Series:
        each = [[_value(measured, figure) for measured in s["tasks"][task.name][name].values()] for s in seeds]
        return band(TITLES[name], [int(step) for step in runs[name]], each)

    return [
        Chart(
            title, "step", unit, [line(name, figure) for name in TITLES], f"{note} Mean, lowest and highest seed.",
            group=task.title,
        )
        for figure, title, unit, note in told
    ]  # fmt: skip


def _value(measured: dict[str, Any], figure: str) -> float:
    return math.log(measured["perplexity"]) if figure == "log-perplexity" else float(measured[figure])


def _samples(seed: Seed, task: Task) -> list[SampleRow]:
    """What the policies of one seed write in the end, beside the base model."""
    runs = seed["tasks"][task.name]
    rows = []
    for i, before in enumerate(runs["ppo"][min(runs["ppo"], key=int)]["shown"]):
        after = [Column(title, runs[name][max(runs[name], key=int)]["shown"][i]["text"]) for name, title in TITLES.items()]
        rows.append(SampleRow(before["prompt"], [Column("base", before["text"]), *after]))
    return rows
