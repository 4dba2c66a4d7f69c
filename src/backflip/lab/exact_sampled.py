"""The gradient that the real loop takes, step after step from a policy that stays as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from backflip.lab.exact_methods import for_gradients
from backflip.lab.exact_settings import Settings
from backflip.lab.exact_training import Watched, exact_policy, texts
from backflip.seeds import Seeds
from backflip.settings import Online
from backflip.train.examples import Example
from backflip.train.online import improve
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import gold_of, prompts_of


def gradients_of(
    world: ExactWorld, table: Tensor, online: Online, *, seeds: Seeds, pretraining: Sequence[Example] = ()
) -> Tensor:
    """The gradient of each step of `improve` from the policy `table`, against the world's reference: (n, P, N, V), uphill.

    Settings must make one update a step, with a step size of 0. A critic says 0 everywhere, as at the start of a run.
    """
    policy, seen = exact_policy(world, table), []

    def look() -> dict[str, float]:
        seen.append(-policy.model.table.grad)
        return {}

    with tempfile.TemporaryDirectory() as folder, Watched.open(folder, kind="exact", settings=online, quiet=True) as run:
        assert isinstance(run, Watched)
        run.look = look
        improve(
            policy, prompts_of(world), gold_of(world), online, run, seeds=seeds, reference=exact_policy(world),
            pretraining=pretraining,
        )  # fmt: skip
    return torch.stack(seen)


def gradients(name: str, world: ExactWorld, table: Tensor, settings: Settings, seed: int) -> Tensor:
    """Those of an algorithm."""
    online = for_gradients(name, settings)
    text = texts(world, settings, seed) if online.ptx_coef else ()
    return gradients_of(world, table, online, seeds=settings.seed(seed, "gradients"), pretraining=text)


def displaced(world: ExactWorld, settings: Settings, seed: int) -> Tensor:
    """The policy whose gradients are taken: the reference with something random added, so that the penalty pulls."""
    generator = settings.seed(seed).torch("displaced")
    return world.reference + settings.displaced * torch.randn(world.reference.shape, generator=generator, dtype=torch.float64)
