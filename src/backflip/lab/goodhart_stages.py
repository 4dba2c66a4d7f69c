"""The work of `goodhart`: each world enumerated, and best of n estimated from samples of it.

SEED/WORLD.json   estimates from one sample, kept
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from backflip.lab.goodhart_settings import Settings
from backflip.lab.stages import kept
from backflip.maths.overoptimisation import BON, RL, Enumerated, enumerate_world, fit
from backflip.maths.ratings import best_of_n, best_of_n_kl
from backflip.seeds import Seeds
from backflip.worlds.tails import TAILS

EARLIER: dict[str, dict[int, float]] = {
    "Gaussian": {30_000: 2.88},
    "Laplace": {64: 1.0},
    "Student t(3)": {20: 0.88, 30_000: 0.33},
    "Student t(2)": {13: 0.70, 30_000: 0.03},
    "rare hack": {48: 1.58, 1000: -1.03, 30_000: -2.37},
}
"""Gold of best of n as it was estimated once, from one sample of 2,000,000, before it was enumerated."""


def numbers(settings: Settings) -> list[int]:
    """The n of a curve: evenly spaced in log n from 1 to the largest, each once."""
    step = math.log(settings.most) / (settings.points - 1)
    return sorted({round(math.exp(step * i)) for i in range(settings.points)})


def sampled_at(settings: Settings) -> list[int]:
    """The n at which samples are asked too."""
    wanted = {2, 20, 300, settings.most} | {n for values in EARLIER.values() for n in values}
    return sorted(n for n in wanted if n <= settings.most)


def enumerated(settings: Settings) -> dict[str, dict[str, Any]]:
    """Of every world its curve, its peak, gold where samples are asked, and what Gao's forms make of it."""
    return {name: _one(enumerate_world(tail.parts, cells=settings.cells), settings) for name, tail in TAILS.items()}


def _one(world: Enumerated, settings: Settings) -> dict[str, Any]:
    ns = numbers(settings)
    gold = [world.best_of(n) for n in ns]
    distances = [math.sqrt(best_of_n_kl(n)) for n in ns]
    peak = max(range(1, min(1000, settings.most) + 1), key=world.best_of)
    if gold[-1] >= world.best_of(peak):
        peak = ns[-1]
    near = [i for i, n in enumerate(ns) if n <= settings.fitted]
    forms = {}
    for form in (BON, RL):
        whole, part = fit(form, distances, gold), fit(form, [distances[i] for i in near], [gold[i] for i in near])
        forms[form.name] = {
            "beta": whole.beta, "r2": whole.r2, "r2 fitted": part.r2, "alpha fitted": part.alpha, "beta fitted": part.beta,
            "miss": float(part.at(distances[-1])) - gold[-1],
        }  # fmt: skip
    return {
        "n": ns, "distance": distances, "gold": gold, "peak n": peak, "peak distance": math.sqrt(best_of_n_kl(peak)),
        "peak": world.best_of(peak), "at": {str(n): world.best_of(n) for n in sampled_at(settings)}, "forms": forms,
    }  # fmt: skip


def sampled(folder: Path, settings: Settings, seeds: Seeds) -> dict[str, dict[str, float]]:
    """Gold of best of n in every world by the unbiased estimator, from one sample of each."""
    return {name: kept(folder / f"{name}.json", partial(_estimates, name, settings, seeds)) for name in TAILS}


def _estimates(name: str, settings: Settings, seeds: Seeds) -> dict[str, float]:
    gold, proxy = TAILS[name].draw(settings.samples, seeds.child(name))
    return {str(n): best_of_n(proxy, gold, n) for n in sampled_at(settings)}


def errors(worlds: dict[str, dict[str, Any]], seeds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The standard deviation of such an estimate, over seeds, of each world and n."""
    found: dict[str, dict[str, float]] = {}
    for name, world in worlds.items():
        found[name] = {}
        for n, exact in world["at"].items():
            away = [(s["sampled"][name][n] - exact) ** 2 for s in seeds]
            found[name][n] = math.sqrt(sum(away) / len(away))
    return found
