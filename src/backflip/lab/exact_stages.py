"""The work of `exact`, each piece done once and kept.

SEED/training/NAME/         one algorithm's run, with the exact figures in its log
SEED/gradients/NAME.json    its sampled gradient beside the exact one
SEED/enumerated.json        what needs no training: the credit of tokens
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backflip.lab.exact_enumeration import compare, credit, exact_gradient, levels
from backflip.lab.exact_limits import HAVE_ONE, point_of_rest
from backflip.lab.exact_methods import for_gradients, in_the_world, left, share
from backflip.lab.exact_sampled import displaced, gradients
from backflip.lab.exact_settings import Settings
from backflip.lab.exact_training import known, trained
from backflip.lab.stages import kept
from backflip.worlds.exact import ExactWorld

DISCOUNT = 0.9
LENGTHS = (1, 2, 3, 4, 5)


def values(settings: Settings, seed: int) -> dict[str, float]:
    """E[r], the mean over prompts, of the reference, of π* and of the best completions."""
    world = settings.world(seed)
    return {
        "reference": world.expected_reward(world.reference).mean().item(),
        "optimum": world.expected_reward(world.optimal(settings.beta).table).mean().item(),
        "best": world.rewards.max(dim=-1).values.mean().item(),
    }


def training(folder: Path, name: str, settings: Settings, seed: int) -> dict[str, Any]:
    """How an algorithm went and where it ended: KL(π‖π*), E[r] and, where its own point of rest is known, both of that."""
    curve = trained(folder, name, settings, seed)
    found: dict[str, Any] = {
        "curve": curve, "kl": curve["exact/kl_optimum"][-1], "reward": curve["exact/reward"][-1], "rest": None,
    }  # fmt: skip
    if name in HAVE_ONE:
        world = settings.world(seed)
        rest = known(world, point_of_rest(world, in_the_world(name, settings)), settings.beta)
        found["rest"] = {"kl": rest["exact/kl_optimum"], "reward": rest["exact/reward"]}
    return found


def gradient(path: Path, name: str, settings: Settings, seed: int) -> dict[str, Any]:
    """How an algorithm's sampled gradient compares with that of what it optimises, E[r] − β KL or E[r].

    The factor that averaging has is taken out; the one that comparing has is part of what an unbiased gradient is held against,
    and of `norm`.
    """

    def measure() -> dict[str, float]:
        world, online = settings.world(seed), for_gradients(name, settings)
        table = displaced(world, settings, seed)
        exact = exact_gradient(world, table, online.kl_coef)
        batches = gradients(name, world, table, settings, seed) / share(online)
        found = compare(batches, exact * left(online), rows=settings.gradient_batch)
        return found | {"norm": found["norm"] * left(online)}

    return kept(path, measure)


def enumerated(path: Path, settings: Settings, seed: int) -> dict[str, Any]:
    """The credit of tokens: ways to give it over the same samples, both levels, and a discount by length."""

    def measure() -> dict[str, Any]:
        world = settings.world(seed)
        table = displaced(world, settings, seed)
        found = credit(
            world, table, settings.beta, batches=settings.batches, rows=settings.gradient_batch,
            generator=settings.seed(seed).torch("credit"),
        )  # fmt: skip
        lengths = []
        for length in LENGTHS:
            longer = ExactWorld(settings.vocab, length, settings.prompts, seed)
            lengths.append({"length": length, **levels(longer, displaced(longer, settings, seed), settings.beta, DISCOUNT)})
        return {"credit": found, "levels": levels(world, table, settings.beta, DISCOUNT), "lengths": lengths}

    return kept(path, measure)
