"""Demonstrations, rankings, PPO: three findings of InstructGPT (Ouyang et al. 2022) on a model of a million weights.

All pairs of a ranking in one batch against the same pairs shuffled: which of them over-fits? What does PPO cost the model on text
that nobody asked it about (the alignment tax), and does pretraining text mixed into the updates take that back? What does the
weight of the KL penalty do, from nothing to far too much? Gold is the hidden utility of the world of reviews.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backflip.lab.clock import Clock
from backflip.lab.instructgpt_report import report, tables
from backflip.lab.instructgpt_settings import PPO, Settings, with_beta, with_gamma
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "InstructGPT's findings: all pairs against shuffled ones, PPO against PPO-ptx, and a sweep of β."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=200, demonstrations=16, rankings=8, held=4, passes=1, looks=2, test=8, betas=(0.0, 0.02, 2.0),
    gammas=(1.0,), tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    reward=dataclasses.replace(_FULL.reward, batch_size=4),
    ppo=dataclasses.replace(
        _FULL.ppo, steps=2, batch_size=8, num_minibatches=1,
        sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=8),
    ),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: the reward models' curves, and of each model its curve and what was measured in the end."""
    from backflip.lab import instructgpt_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    with clock.running("policy"):
        base = stages.base_of(settings, folder / "base", seeds, quiet)
        sft = stages.sft_of(settings, folder / "sft", base, seeds, quiet)
    with clock.running("rankings"):
        train, held = stages.rankings_of(settings, folder / "rankings.json", sft, seeds)
    found: dict[str, Any] = {"seed": seed, "pairs": len(train), "reward": {}, "models": {}}
    curves = {}
    with clock.running("reward models"):
        ways = {"all pairs": (train, settings.reward), "shuffled": stages.shuffled(train, settings)}
        for name, (pairs, own) in ways.items():
            place = folder / name.replace(" ", "-")
            curves[name] = stages.watched(place, sft, pairs, own, train, held, settings, seeds, quiet)
            found["reward"][name] = along(curves[name], settings.grid())
        reward = stages.reward_of(settings, folder / "reward", folder / "all-pairs", curves["all pairs"], seeds)
    models = {"base": base, "SFT": sft}
    with clock.running("ppo"):
        for number, (name, online) in enumerate(settings.variants().items()):
            place = folder / f"{number:02d}"
            models[name], curves[name] = stages.tuned(place, sft, reward, settings, online, seeds, quiet)
    with clock.running("measuring"):
        for number, (name, model) in enumerate(models.items()):
            path = folder / "measured" / f"{number:02d}.json"
            found["models"][name] = stages.measured(path, model, sft, reward, settings, seeds)
            if name in curves:
                found["models"][name]["curve"] = curves[name]
    return found | {"seconds": clock.seconds}


def along(curve: dict[str, list[float]], grid: Sequence[float]) -> dict[str, list[float]]:
    """A curve at these passes, straight between the points measured.

    >>> along({"passes": [0.5, 1.5], "held loss": [1.0, 3.0]}, [0.5, 1.0])
    {'passes': [0.5, 1.0], 'held loss': [1.0, 2.0]}
    """
    return {"passes": list(grid)} | {
        name: np.interp(grid, curve["passes"], values).tolist() for name, values in curve.items() if name != "passes"
    }


def gap(curve: dict[str, list[float]]) -> float:
    """By how much the loss on rankings held out stands above that on those learned from after one pass.

    >>> gap({"passes": [0.5, 1.0, 2.0], "train loss": [0.6, 0.5, 0.25], "held loss": [0.625, 0.75, 1.0]})
    0.25
    """
    i = curve["passes"].index(1.0)
    return curve["held loss"][i] - curve["train loss"][i]


def tax(models: dict[str, Any], name: str) -> float:
    """By what share a model's loss on the corpus stands above the base model's."""
    return float(models[name]["corpus loss"] / models["base"]["corpus loss"] - 1)


def chosen(found: dict[str, tuple[float, float]]) -> str:
    """Of models by their alignment tax and gold: the one with most gold among those whose tax is at most 1 %, else the one that
    is taxed least.

    >>> chosen({"a": (0.0, 1.0), "b": (0.01, 2.0), "c": (0.02, 3.0)}), chosen({"b": (0.03, 2.0), "c": (0.02, 1.0)})
    ('b', 'c')
    """
    cheap = {name: gold for name, (taxed, gold) in found.items() if taxed <= 0.01}
    return max(cheap, key=lambda name: cheap[name]) if cheap else min(found, key=lambda name: found[name][0])


def judge(seeds: Sequence[dict[str, Any]], settings: Settings) -> list[Line]:
    """The bars, each by the mean over seeds."""
    models = [s["models"] for s in seeds]

    def mean(name: str, figure: str) -> float:
        return statistics.fmean(m[name][figure] for m in models)

    over = statistics.fmean(gap(s["reward"]["shuffled"]) - gap(s["reward"]["all pairs"]) for s in seeds)
    taxes = {name: statistics.fmean(tax(m, name) for m in models) for name in models[0]}
    mixed = chosen({name: (taxes[name], mean(name, "gold")) for name in map(with_gamma, settings.gammas)})
    risen = {name: mean(name, "gold") - mean("SFT", "gold") for name in (PPO, mixed)}
    betas = sorted(settings.betas)
    golds = [mean(with_beta(beta), "gold") for beta in betas]
    best = max(golds[1:-1], default=golds[0])
    return [
        Line("over-fit after one pass, shuffled pairs less all pairs, nats", over, "> 0", over > 0),
        at_least("gold gained by PPO over SFT", risen[PPO], 0.5),
        Line("alignment tax of PPO", taxes[PPO], "> 0.01", taxes[PPO] > 0.01),
        at_most(f"alignment tax of {mixed}", taxes[mixed], 0.01),
        at_least(f"gold gained by {mixed}, share of PPO's", risen[mixed] / risen[PPO] if risen[PPO] else math.nan, 0.9),
        Line("gold at the best β less that without a penalty", best - golds[0], "> 0", best > golds[0]),
        Line("gold at the best β less that at the largest", best - golds[-1], "> 0", best > golds[-1]),
        at_most("minutes a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 25),
    ]  # fmt: skip
