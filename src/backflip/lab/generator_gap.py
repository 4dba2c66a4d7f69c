"""Is it easier to pick than to write? Karpathy's reason why RLHF helps, measured in the world of reviews.

People spend the same time either writing demonstrations or comparing what a base model writes. A reward model of the comparisons
picks the best of several samples, and the base model learns from what was picked; or it learns from the demonstrations. Told for
typical writers and for experts, and for judges who answer blindly more and more often: where people write as well as they judge,
or judge no better than they write, there is no gap and nothing to gain by comparing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.generator_gap_report import report, tables
from backflip.lab.generator_gap_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Sampling, Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Easier to pick than to write: the same time spent on demonstrations or on comparisons."

QUICK = dataclasses.replace(
    Settings(), seeds=1, documents=200, comparisons=40, cost=4.0, learned_prompts=16, problems=8, tries=4,
    noises=(0.0, 0.8), tiny=Tiny(vocabulary=320, hidden_size=16, layers=1, heads=2, context=128),
    sampling=Sampling(temperature=1.0, max_new_tokens=24, slots=64),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import generator_gap_stages as stages
    from backflip.lab.reviews_base import reviews_base

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    with clock.running("pretraining"):
        base = reviews_base(folder / "base", settings, seeds.child("base"), quiet)
    with clock.running("comparing"):
        judges = {
            f"{noise:g}": stages.judge_of(folder, base, noise, settings, seeds, seed, quiet) for noise in sorted(settings.noises)
        }
    with clock.running("measuring the gap"):
        found: dict[str, Any] = {"seed": seed, "gap": stages.gap(folder / "gap.json", base, judges, settings, seeds)}
    with clock.running("learning"):
        policies = {"base": base}
        for writer in stages.WRITERS:
            policies[f"demonstrations, {writer}"] = stages.imitate(folder, base, writer, settings, seeds, seed, quiet)
        for noise, model in judges.items():
            policies[f"comparisons, noise {noise}"] = stages.distil(folder, base, noise, model, settings, seeds, seed, quiet)
    with clock.running("measuring"):
        found["policies"] = {
            name: stages.measured(folder / "measured" / f"{name}.json", policy, settings, seeds)
            for name, policy in policies.items()
        }
    found["seconds"] = clock.seconds
    return found


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars. Gains are of gold per text; noise is of the careful judge (the first) and of the blindest (the last)."""
    noises = list(seeds[0]["gap"]["judges"])
    careful, blind = f"comparisons, noise {noises[0]}", f"comparisons, noise {noises[-1]}"
    most = list(seeds[0]["gap"]["judges"][noises[0]]["tries"])[-1]
    gaps = [s["gap"]["judges"][noises[0]]["tries"][most]["picked"] - s["gap"]["good"] for s in seeds]

    def less(first: str, second: str) -> list[float]:
        return [s["policies"][first]["gold"] - s["policies"][second]["gold"] for s in seeds]

    typical, expert = less(careful, "demonstrations, typical"), less("demonstrations, expert", careful)
    noise = less(careful, blind)
    return [
        Line(f"a good one picked of {most} less how often one is written, worst seed", min(gaps), "> 0", min(gaps) > 0),
        Line("gold of comparisons less that of typical demonstrations, worst seed", min(typical), "> 0", min(typical) > 0),
        Line("gold of expert demonstrations less that of comparisons, worst seed", min(expert), "> 0", min(expert) > 0),
        Line("gold of careful judges' comparisons less that of the blindest, worst seed", min(noise), "> 0", min(noise) > 0),
    ]
