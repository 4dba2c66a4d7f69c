"""An algorithm trained in an exact world, with what enumeration knows of the policy in the run's own log after every step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backflip.lab.exact_methods import in_the_world
from backflip.lab.exact_settings import Settings
from backflip.policies.language import LanguagePolicy
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.train.examples import Example
from backflip.train.online import improve
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import Digits, ExactModel, gold_of, prompts_of


def exact_policy(world: ExactWorld, table: Tensor | None = None) -> LanguagePolicy:
    """The policy of a world, at its reference unless a table is given."""
    model = ExactModel(world, table)
    return LanguagePolicy(model, Digits(model), name="exact")


class Watched(Run):
    """A run that asks `look` after every step and logs what it says beside the metrics."""

    look: Callable[[], Mapping[str, float]] = staticmethod(dict)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add a line of metrics."""
        super().log(step, {**metrics, **self.look()})


def known(world: ExactWorld, table: Tensor, beta: float) -> dict[str, float]:
    """KL(π‖π*) and KL(π‖ρ) in nats per completion, of the prompt where it is largest, and E[r], the mean over prompts."""
    return {
        "exact/kl_optimum": world.kl(table, world.optimal(beta).table).max().item(),
        "exact/kl_reference": world.kl(table, world.reference).max().item(),
        "exact/reward": world.expected_reward(table).mean().item(),
    }


def trained(folder: Path, name: str, settings: Settings, seed: int) -> dict[str, list[float]]:
    """An algorithm's figures by step, those of the reference first.

    A finished run is only read; one that was cut off begins again, which costs seconds.
    """
    world, online = settings.world(seed), in_the_world(name, settings)
    policy = exact_policy(world)
    if folder.exists() and not (folder / "result.json").exists():
        shutil.rmtree(folder)
    with Watched.open(folder, kind="exact", settings=online, quiet=True) as run:
        if not run.finished:
            assert isinstance(run, Watched)
            run.look = lambda: known(world, policy.model.table.detach(), settings.beta)
            result = improve(
                policy, prompts_of(world), gold_of(world), online, run, seeds=settings.seed(seed, "training"),
                pretraining=texts(world, settings, seed) if online.ptx_coef else (),
            )  # fmt: skip
            run.finish(result)
    start = known(world, world.reference, settings.beta)
    rows = read_lines(folder / "metrics.jsonl")
    curve = {figure: [value, *(row[figure] for row in rows)] for figure, value in start.items()}
    return {"step": [0, *(row["step"] for row in rows)]} | curve


def texts(world: ExactWorld, settings: Settings, seed: int) -> list[Example]:
    """Pretraining text: completions that the reference wrote."""
    prompts = torch.arange(settings.texts) % world.prompts
    drawn = world.sample(world.reference, prompts, settings.seed(seed).torch("texts"))
    end = world.vocab + world.prompts
    return [
        Example([world.vocab + prompt], [*tokens, end])
        for prompt, tokens in zip(prompts.tolist(), drawn.tokens.tolist(), strict=True)
    ]
