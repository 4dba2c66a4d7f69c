"""Does every algorithm do what its equations say? In a world of 27 completions a prompt everything can be enumerated.

Each algorithm of the library is trained there on a policy that can be any distribution. Where its optimum is the KL-regularised
one, π* ∝ ρ·exp(r/β), it must end there; where it is another, how far from π* it ends is measured, and how much reward it earns.
The gradient that the training loop takes is averaged over many batches and held against the exact one: without bias up to chance,
or with the bias that is known. And the credit of tokens: token and sequence level have one gradient at γ = 1, which baselines
and a critic make less noisy and λ < 1 biases as far as the critic is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.algorithms import ALGORITHMS
from backflip.lab.clock import Clock
from backflip.lab.exact_methods import GOALS, UNBIASED
from backflip.lab.exact_report import report, tables
from backflip.lab.exact_settings import Settings
from backflip.lab.outcome import Line, at_most
from backflip.lab.seeds import told

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Every algorithm against enumeration: where it ends, and the bias and the noise of its gradient."

QUICK = Settings(seeds=1, steps=8, batch_size=32, batches=6, gradient_batch=16)
"""Everything once, in seconds: it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = [one(seed, settings, folder / f"seed{seed}", quiet) for seed in range(settings.seeds)]
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import exact_stages as stages

    clock = Clock(folder / "clock.json", time.process_time)
    found: dict[str, Any] = {"seed": seed, "world": stages.values(settings, seed), "training": {}, "gradients": {}}
    for name in ALGORITHMS:
        with clock.running("training"):
            found["training"][name] = stages.training(folder / "training" / name, name, settings, seed)
        with clock.running("gradients"):
            found["gradients"][name] = stages.gradient(folder / "gradients" / f"{name}.json", name, settings, seed)
        if not quiet:
            print(f"seed {seed}: {name} ends {found['training'][name]['kl']:.3f} nats from π*", file=sys.stderr, flush=True)
    with clock.running("enumeration"):
        found |= stages.enumerated(folder / "enumerated.json", settings, seed)
    return found | {"seconds": clock.seconds}


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed."""
    unbiased = [s["gradients"][name] for s in seeds for name in UNBIASED]
    ends = [s["training"][name]["kl"] for s in seeds for name, goal in GOALS.items() if goal == "π*"]
    along, spread = max(abs(g["along"]) for g in unbiased), max(g["spread"] for g in unbiased)
    difference = max(s["levels"]["difference"] for s in seeds)
    minutes = sum(sum(s["seconds"].values()) for s in seeds) / 60
    return [
        at_most("unbiased gradients: error along the exact one, in standard errors", along, 3),
        at_most("unbiased gradients: error of all logits, in standard errors (1 by chance)", spread, 1.5),
        at_most("KL(π‖π*) where that is the optimum, nats", max(ends), 0.05),
        at_most("token level less sequence level at γ = 1, largest difference", difference, 1e-12),
        at_most("core-minutes, all seeds", minutes, 5),
    ]
