"""The report of `instructgpt`, and its tables as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.instructgpt_settings import PPO, SHARED, Settings, with_beta, with_gamma
from backflip.lab.outcome import Line
from backflip.lab.tables import table
from backflip.lab.telling import band, bars, mean_and_range
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="InstructGPT's findings, small",
        summary=(
            f"Demonstrations, rankings of {settings.least} to {settings.most} completions, PPO: gold "
            f"{told(seeds, 'SFT', 'gold')[0]} after demonstrations and {told(seeds, PPO, 'gold')[0]} after PPO "
            f"({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, name) for name in seeds[0]["models"])],
        charts=[*_reward_charts(seeds), *_policy_charts(seeds, settings)],
        samples=_samples(seeds[0]),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run instructgpt --seeds {len(seeds)}`.",
            "Gold is the hidden utility of the world, near 0 on demonstrations with a standard deviation near 1.5; the proxy "
            "is 0 there, with a standard deviation of 1.",
            "KL is to the model after demonstrations, in nats per sequence. The loss on the corpus is in nats per token, on "
            "documents that no model has seen; its rise is the alignment tax.",
        ],
    )  # fmt: skip


def tables(seeds: Sequence[Seed]) -> str:
    """What came out, as it stands in the documentation."""
    curves = {name: [s["reward"][name] for s in seeds] for name in seeds[0]["reward"]}
    figures = (("train loss", "loss learned from", 3), ("held loss", "loss held out", 3), ("held accuracy", "right held out", 3))
    parts = [
        table(
            ["passes", *(f"{name}: {title}" for name in curves for _, title, _ in figures)],
            [
                [
                    f"{passed:.2f}",
                    *(
                        f"{statistics.fmean(curve[figure][i] for curve in each):.{digits}f}"
                        for each in curves.values()
                        for figure, _, digits in figures
                    ),
                ]
                for i, passed in enumerate(curves["all pairs"][0]["passes"])
            ],
        ),
        table(
            ["model", "gold", "proxy", "KL, nats", "corpus, nats a token", "tokens"],
            [
                [name, *(_cell(*told(seeds, name, f)) for f in ("gold", "proxy", "kl", "corpus loss", "length"))]
                for name in seeds[0]["models"]
            ],
        ),
    ]
    return "\n".join(parts)


def _cell(mean: str, spread: str) -> str:
    return f"{mean} ({spread})" if spread else mean


def told(seeds: Sequence[Seed], model: str, name: str) -> tuple[str, str]:
    """The mean of a figure over the seeds, and its range."""
    digits = 3 if name == "corpus loss" else 1 if name == "length" else 2
    return mean_and_range([s["models"][model][name] for s in seeds], digits)


def _figure(seeds: Sequence[Seed], name: str) -> Figure:
    gold, spread = told(seeds, name, "gold")
    proxy, kl, corpus = (told(seeds, name, figure)[0] for figure in ("proxy", "kl", "corpus loss"))
    return Figure(name, gold, spread, f"gold on test prompts; proxy {proxy}, KL {kl} nats, corpus {corpus} nats a token")


def _reward_charts(seeds: Sequence[Seed]) -> list[Chart]:
    """How the two ways of batching over-fit."""
    curves = {name: [s["reward"][name] for s in seeds] for name in seeds[0]["reward"]}

    def line(name: str, figure: str, title: str) -> Series:
        return band(title, curves[name][0]["passes"], [curve[figure] for curve in curves[name]])

    return [
        Chart(
            "Loss", "passes", "nats a pair",
            [line(name, f"{side} loss", f"{name}, {words}") for name in curves for side, words in _SIDES],
            "Shuffled, a completion is in many updates of one pass; all pairs together, in one. Mean, lowest and highest seed.",
            group="The reward model",
        ),
        Chart(
            "Right on rankings held out", "passes", "share of pairs", [line(name, "held accuracy", name) for name in curves],
            "Annotators are noisy: gold itself does not agree with them more often than it does.", group="The reward model",
        ),
    ]  # fmt: skip


_SIDES = (("train", "learned from"), ("held", "held out"))


def _policy_charts(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    groups = {
        "The weight of the KL penalty": [with_beta(beta) for beta in settings.betas],
        "Pretraining text mixed in": [PPO, *(with_gamma(gamma) for gamma in settings.gammas)],
        "Where the critic stands": [PPO, SHARED],
    }
    told = (("gold", "Gold", "utility"), ("proxy", "Proxy", "reward"), ("kl", "KL to the start", "nats a sequence"))

    def line(name: str, figure: str) -> Series:
        curves = [s["models"][name]["curve"] for s in seeds]
        return band(name, curves[0]["step"], [curve[figure] for curve in curves])

    return [
        Chart(
            title, "step", unit, [line(name, figure) for name in names],
            "Of the step's own samples. Mean, lowest and highest seed.", group=group,
        )
        for group, names in groups.items()
        for figure, title, unit in told
    ]  # fmt: skip


def _samples(seed: Seed) -> list[SampleRow]:
    """What the models of one seed write to the same prompts."""
    models = seed["models"]
    return [
        SampleRow(shown["prompt"], [Column(name, model["shown"][i]["text"]) for name, model in models.items()])
        for i, shown in enumerate(models["SFT"]["shown"])
    ]
