"""The settings of `ppo-details`: a policy, its reward model, PPO with every detail, and what is broken in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backflip.config import from_dict, nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Sampling, Tiny

WHOLE = "every detail"


class Detail(NamedTuple):
    """What is broken: its number among the 21 details of "The N Implementation Details of RLHF with PPO", where it has one, and
    the settings that break it."""

    number: int | None
    change: Mapping[str, Any]


BROKEN: dict[str, Detail] = {
    "logits not divided by the temperature": Detail(10, {"scale_logits": False}),
    "Adam's ε as PyTorch has it": Detail(21, {"optim": {"adam_eps_convention": "torch"}}),
    "rewards not whitened": Detail(18, {"whiten_rewards": False}),
    "advantages not whitened": Detail(18, {"whiten_advantages": False}),
    "variance divided by n−1": Detail(18, {"unbiased_variance": True}),
    "value loss not clipped": Detail(19, {"cliprange_value": None}),
    "no penalty for a missing end": Detail(14, {"missing_penalty": None}),
    "positions counted from the padding": Detail(3, {"position_ids": "absolute"}),
    "one pass over the episodes": Detail(16, {"ppo_epochs": 1}),
    "loss masked after the end": Detail(14, {"mask_after_truncation": True}),
    "β fixed": Detail(20, {"kl_controller": "fixed"}),
    "no KL penalty": Detail(None, {"kl_controller": "fixed", "kl_coef": 0.0}),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Every variant starts from the same policy and reward model and meets the same prompts."""

    seeds: int = setting(3, "Seeds 0, 1, … this many, each with a policy and a reward model of its own.", at_least=1)
    documents: int = setting(8000, "Demonstrations that the policy learns to write like.", at_least=32)
    comparisons: int = setting(2000, "Comparisons that the reward model learns from.", at_least=20)
    noise: float = setting(0.1, "Share of the comparisons that are answered blindly.", at_least=0, at_most=1)
    kl_low: float = setting(5.0, "Gold is read off the steps whose KL is at least this, in nats per sequence …", at_least=0)
    kl_high: float = setting(7.0, "… and at most this.", above=0)
    first: int = setting(10, "Steps over which the size of the first updates is averaged.", at_least=1)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=128, layers=4, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(Reward, batch_size=32, max_length=96, optim=Optim(learning_rate=1e-3, warmup_steps=10))
    ppo: Online = nested(
        Online, steps=80, batch_size=64, kl_coef=0.06, kl_horizon=1280, save_every=1000,
        sampling=Sampling(temperature=0.7, max_new_tokens=36, ignore_eos=True, slots=256),
        optim=Optim(learning_rate=3e-4, max_grad_norm=None),
    )  # fmt: skip

    def variants(self) -> dict[str, Online]:
        """PPO with every detail, and once without each."""
        return {WHOLE: self.ppo} | {name: from_dict(Online, detail.change, base=self.ppo) for name, detail in BROKEN.items()}
