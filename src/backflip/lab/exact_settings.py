"""The settings of `exact`: the worlds, the training runs and the batches of which gradients are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backflip.config import setting
from backflip.seeds import Seeds

if TYPE_CHECKING:
    from backflip.worlds.exact import ExactWorld


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. The same numbers for every algorithm, so that all draw as many samples."""

    seeds: int = setting(3, "Worlds 0, 1, … this many, each with a reference and rewards of its own.", at_least=1)
    vocab: int = setting(3, "Tokens of a world.", at_least=2, at_most=8)
    length: int = setting(3, "Tokens of a completion.", at_least=1, at_most=5)
    prompts: int = setting(2, "Prompts of a world.", at_least=1, at_most=26)
    beta: float = setting(0.5, "β of every algorithm that has a KL penalty.", above=0)
    steps: int = setting(60, "Steps of each run.", at_least=1)
    batch_size: int = setting(512, "Completions per step.", at_least=16)
    num_generations: int = setting(8, "Completions per prompt of the algorithms that compare them.", at_least=2)
    num_minibatches: int = setting(4, "Most updates per pass; algorithms published with fewer keep their own.", at_least=1)
    ppo_epochs: int = setting(2, "Most passes over a step's completions, likewise.", at_least=1)
    learning_rate: float = setting(0.1, "Peak step size of Adam; it falls linearly to 0.", above=0)
    trust_kl: float = setting(0.003, "TRPO's trust region, in nats per token.", above=0)
    ptx_coef: float = setting(0.5, "Weight of the pretraining text that PPO-ptx mixes in.", at_least=0)
    texts: int = setting(256, "Completions by the reference that are its pretraining text.", at_least=1)
    displaced: float = setting(
        0.4, "Where gradients are taken: standard deviation of what is added to the reference's logits.", at_least=0
    )
    batches: int = setting(400, "Batches over which the gradient of each algorithm is averaged.", at_least=2)
    gradient_batch: int = setting(64, "Completions in each of them.", at_least=16)

    def world(self, seed: int) -> ExactWorld:
        """The world of a seed."""
        from backflip.worlds.exact import ExactWorld

        return ExactWorld(self.vocab, self.length, self.prompts, seed)

    def seed(self, seed: int, *purpose: str | int) -> Seeds:
        """The random numbers of a seed for one purpose, independent of the world's own."""
        return Seeds(seed).child("exact lab", *purpose)
