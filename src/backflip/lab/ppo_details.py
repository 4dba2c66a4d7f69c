"""What does each detail of PPO do? Ziegler et al. 2019 and "The N Implementation Details of RLHF with PPO", one at a time broken.

A small policy that writes reviews, a reward model of comparisons of its samples, and PPO whose KL to the first policy is held at
6 nats a sequence. Gold is read off where the KL is 6 ± 1, so that nothing wins by going further; beside it stands how large the
first updates are, where PyTorch's and TensorFlow's Adam part at the same ε.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.ppo_details_report import report
from backflip.lab.ppo_details_settings import WHOLE, Settings
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "PPO's details, one broken at a time: gold at KL 6 ± 1, and the first updates under two kinds of Adam."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=100, comparisons=40, kl_low=0.0, first=1,
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    reward=dataclasses.replace(_FULL.reward, normalization_samples=16),
    ppo=dataclasses.replace(
        _FULL.ppo, steps=2, batch_size=8, sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=8)
    ),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report)


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: the reward model's, and of each variant its curve and what is read off it."""
    from backflip.lab import ppo_details_stages as stages
    from backflip.lab.reviews_base import compared, demonstrated

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    with clock.running("policy"):
        policy = demonstrated(folder / "policy", settings, seeds, quiet)
    with clock.running("reward model"):
        comparisons = compared(
            folder / "comparisons.json", policy, settings.comparisons, settings.noise, settings.ppo.sampling, seeds
        )
        reward, fitted = stages.reward_of(settings, folder / "reward", policy, comparisons, seeds, quiet)
    found: dict[str, Any] = {"seed": seed, "reward": {"accuracy": fitted["accuracy"]}, "variants": {}}
    for number, (name, online) in enumerate(settings.variants().items()):
        with clock.running("ppo"):
            curve = stages.tuned(folder / f"{number:02d}", policy, reward, online, seeds, quiet)
        found["variants"][name] = read_off(curve, settings) | {"curve": curve}
    return found | {"seconds": clock.seconds}


def read_off(curve: dict[str, list[float]], settings: Settings) -> dict[str, float | None]:
    """Gold and proxy over the steps whose KL is in the band, None where there are none; the start, the end, the first updates."""
    inside = [i for i, kl in enumerate(curve["kl"]) if settings.kl_low <= kl <= settings.kl_high]

    def mean(name: str, places: Sequence[int]) -> float | None:
        return statistics.fmean(curve[name][i] for i in places) if places else None

    first = range(min(settings.first, len(curve["kl"])))
    return {
        "gold": mean("gold", inside), "proxy": mean("proxy", inside), "steps inside": float(len(inside)),
        "first gold": curve["gold"][0], "last gold": curve["gold"][-1], "last kl": curve["kl"][-1],
        "approxkl": mean("approxkl", first), "clipfrac": mean("clipfrac", first),
        "ratio": max(curve["ratio"][i] for i in first),
    }  # fmt: skip


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed or by the mean, as it says."""
    whole = [s["variants"][WHOLE] for s in seeds]
    rises = [w["gold"] - w["first gold"] if w["gold"] is not None else float("-inf") for w in whole]
    placed = [v["gold"] is not None for s in seeds for v in s["variants"].values()]
    pytorch = [s["variants"]["Adam's ε as PyTorch has it"]["approxkl"] / s["variants"][WHOLE]["approxkl"] for s in seeds]
    larger = statistics.fmean(pytorch)
    free = [s["variants"]["no KL penalty"]["last kl"] - s["variants"][WHOLE]["last kl"] for s in seeds]
    return [
        at_least("gold gained by PPO with every detail at KL 6 ± 1, worst seed", min(rises), 0.5),
        at_least("share of the variants and seeds that come to KL 6 ± 1", sum(placed) / len(placed), 0.8),
        Line("first updates under PyTorch's ε over TensorFlow's, approxkl, mean", larger, "> 1", larger > 1),
        Line("nats further without a KL penalty, worst seed", min(free), "> 0", min(free) > 0),
        at_least("reward model right on comparisons held out, worst seed", min(s["reward"]["accuracy"] for s in seeds), 0.65),
        at_most("minutes a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 30),
    ]  # fmt: skip
