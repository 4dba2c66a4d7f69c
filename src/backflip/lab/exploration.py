"""Does reinforcement find anything new, or only what the base model would have found in more tries?

GRPO from one base model, five times: alone, with an entropy bonus, with clip-higher, at a higher sampling temperature, with a KL
penalty. For every model pass@k on the same unseen sums for k = 1 … 64, and the entropy of its next-token distribution before,
during and after. The claim to look for (Yue et al. 2025 and others): pass@1 rises while pass@64 stalls or falls, so that the
curves of before and after cross. It is stated whichever way it comes out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.arithmetic_base import base_of
from backflip.lab.clock import Clock
from backflip.lab.exploration_figures import compared, passes
from backflip.lab.exploration_report import report, tables
from backflip.lab.exploration_settings import NAMES, Settings
from backflip.lab.many_tries import as_curve, doublings
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Sampling, Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Exploration under GRPO: pass@1 against pass@k and entropy, with five ways of going about it."

_FULL = Settings()
QUICK = Settings(
    seeds=1, documents=2000, problems=8, tries=16, tiny=Tiny(hidden_size=32, layers=1, heads=2, context=128),
    grpo=dataclasses.replace(
        _FULL.grpo, steps=3, save_every=1, batch_size=32, num_generations=8,
        sampling=Sampling(temperature=1.0, max_new_tokens=48, slots=256),
    ),
)  # fmt: skip
"""Everything once, in a minute: it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import exploration_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json", time.process_time)
    with clock.running("pretraining"):
        base = base_of(settings, seed, folder, quiet)

    def measured(name: str, model: Path) -> dict[str, Any]:
        with clock.running("measuring"):
            return stages.measured(folder / "measured" / f"{name}.json", model, settings, seeds)

    before = measured("before", base)
    found: dict[str, Any] = {
        "seed": seed, "before": before | {"curve": as_curve(doublings(before["tries"]), passes(before))}, "arms": {},
    }  # fmt: skip
    for name, online in settings.arms().items():
        with clock.running(name):
            model = stages.reinforce(folder / name, base, online, seeds, quiet)
        after = measured(name, model)
        found["arms"][name] = (
            after
            | compared(before, after)
            | {
                "training": stages.curve(folder / name),
                "over plain": compared(found["arms"].get("plain", after), after)["gain"],
            }
        )
    found["between"] = {
        step: compared(before, measured(f"plain-{step}", model))
        for step, model in stages.between(folder / "plain", settings.grpo).items()
    }
    return found | {"seconds": clock.seconds}


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed, and for every run whether its curve crosses that of the base model."""
    plain = [s["arms"]["plain"] for s in seeds]
    most = 2 ** (len(plain[0]["gain"]["value"]) - 1)
    minutes = max(sum(t for part, t in s["seconds"].items() if part != "pretraining") for s in seeds) / 60
    told = [
        Line(
            f"seeds in which pass@k of {NAMES[name]} falls below the base model's for some k ≤ {most}, of all",
            sum(s["arms"][name]["crossing"] is not None for s in seeds) / len(seeds), "told either way", True,
        )
        for name in NAMES
    ]  # fmt: skip
    return [
        at_least("pass@1 gained by GRPO alone, worst seed", min(a["gain"]["value"][0] for a in plain), 0.1),
        at_most("entropy after GRPO alone over before, highest seed",
                max(a["entropy"] / s["before"]["entropy"] for a, s in zip(plain, seeds, strict=True)), 1.0),
        *told,
        at_most("core-minutes a seed without pretraining, slowest", minutes, 6),
    ]  # fmt: skip
