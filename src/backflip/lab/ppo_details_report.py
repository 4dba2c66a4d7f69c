"""The report of `ppo-details`: what a person would be shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.ppo_details_settings import BROKEN, WHOLE, Settings
from backflip.lab.telling import band, bars, mean_and_range
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="PPO's details, one broken at a time",
        summary=(
            f"Gold at KL {settings.kl_low:g} to {settings.kl_high:g} nats with every detail: {told(seeds, WHOLE, 'gold')[0]}; "
            f"below, what each broken detail does to it ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, name) for name in seeds[0]["variants"])],
        charts=_charts(seeds),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run ppo-details --seeds {len(seeds)}`.",
            "Gold is the hidden utility of the world, of a step's own samples; its standard deviation on demonstrations is near "
            "1.5. KL is to the policy before PPO, in nats per sequence.",
        ],
    )


def told(seeds: Sequence[Seed], variant: str, name: str) -> tuple[str, str]:
    """The mean of a figure over the seeds that have it, and its range."""
    values = [value for s in seeds if (value := s["variants"][variant][name]) is not None]
    return mean_and_range(values) if values else ("never there", "")


def _figure(seeds: Sequence[Seed], name: str) -> Figure:
    number = BROKEN[name].number if name in BROKEN else None
    approxkl, clipped = (statistics.fmean(s["variants"][name][key] for s in seeds) for key in ("approxkl", "clipfrac"))
    gold, spread = told(seeds, name, "gold")
    return Figure(
        f"{name}{'' if number is None else f' (detail {number})'}", gold, spread,
        f"gold at KL 6 ± 1; last KL {told(seeds, name, 'last kl')[0]} nats; first updates: approxkl {approxkl:.2g}, "
        f"{clipped:.1%} of the tokens clipped",
    )  # fmt: skip


def _charts(seeds: Sequence[Seed]) -> list[Chart]:
    def line(name: str, figure: str) -> Series:
        curves = [s["variants"][name]["curve"] for s in seeds]
        return band(name, curves[0]["step"], [curve[figure] for curve in curves])

    shown = {
        "What changes the distribution": ["logits not divided by the temperature", "positions counted from the padding"],
        "Adam, whitening, value loss": [name for name, detail in BROKEN.items() if detail.number in (18, 19, 21)],
        "Ends and passes": [name for name, detail in BROKEN.items() if detail.number in (14, 16)],
        "The KL penalty": ["β fixed", "no KL penalty"],
    }
    return [
        Chart(
            title, "step", unit, [line(name, figure) for name in (WHOLE, *names) if name in seeds[0]["variants"]],
            "Mean, lowest and highest seed; of the step's own samples.", group=group,
        )
        for group, names in shown.items()
        for figure, title, unit in (("gold", "Gold", "utility"), ("kl", "KL to the policy before", "nats a sequence"))
    ]  # fmt: skip
