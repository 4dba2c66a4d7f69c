"""The settings of `exploration`: one GRPO run, and four ways to keep it exploring."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.algorithms import GRPO
from backflip.config import setting
from backflip.lab.arithmetic_base import Borrowed
from backflip.settings import Online, Sampling

NAMES = {
    "plain": "GRPO alone",
    "entropy": "entropy bonus",
    "clip-higher": "clip-higher",
    "hotter": "higher temperature",
    "kl": "KL penalty",
}
"""The runs, as people call them."""


@dataclass(frozen=True, kw_only=True)
class Settings(Borrowed):
    """What is run. Every run starts from the same base model and meets the same problems; GRPO alone is also measured at each of
    its checkpoints."""

    problems: int = setting(96, "Test problems on which every model is measured.", at_least=2)
    tries: int = setting(64, "Completions of each: the largest k of pass@k.", at_least=2)
    entropy_coef: float = setting(0.03, "Weight of the entropy bonus.", above=0)
    cliprange_high: float = setting(0.28, "Clip-higher: how far the ratio may rise above 1 (DAPO's number).", above=0)
    temperature: float = setting(1.2, "The higher sampling temperature.", above=0)
    kl_coef: float = setting(0.04, "Weight of the KL penalty (DeepSeekMath's number).", above=0)
    grpo: Online = dataclasses.field(
        default=dataclasses.replace(
            GRPO, steps=28, batch_size=256, num_generations=16, num_minibatches=4, kl_coef=0.0, missing_penalty=None,
            save_every=7, sampling=Sampling(temperature=1.0, max_new_tokens=80, slots=256),
            optim=dataclasses.replace(GRPO.optim, learning_rate=3e-4),
        )
    )  # fmt: skip

    def arms(self) -> dict[str, Online]:
        """The runs by name: each differs from the plain one in one thing."""
        hot = dataclasses.replace(self.grpo.sampling, temperature=self.temperature)
        return {
            "plain": self.grpo,
            "entropy": dataclasses.replace(self.grpo, entropy_coef=self.entropy_coef),
            "clip-higher": dataclasses.replace(self.grpo, cliprange_high=self.cliprange_high),
            "hotter": dataclasses.replace(self.grpo, sampling=hot),
            "kl": dataclasses.replace(self.grpo, kl_coef=self.kl_coef),
        }
