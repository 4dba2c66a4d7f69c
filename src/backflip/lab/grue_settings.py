"""The settings of `grue`: the base models, and the algorithms that are compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.algorithms import ALGORITHMS
from backflip.config import nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Sampling, Tiny

TITLES = {
    "a2c": "A2C", "trpo": "TRPO", "ppo": "PPO", "nlpo": "NLPO", "ppo-free": "PPO without KL", "nlpo-free": "NLPO without KL",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Every algorithm draws as many samples from the same prompts."""

    seeds: int = setting(3, "Seeds 0, 1, … this many, each with base models of its own.", at_least=1)
    documents: int = setting(8000, "Documents that each base model reads.", at_least=32)
    steps: int = setting(40, "Steps of each algorithm.", at_least=1)
    batch_size: int = setting(64, "Episodes per step.", at_least=2)
    learning_rate: float = setting(3e-4, "Step size of all algorithms but TRPO, which finds its own.", above=0)
    beta: float = setting(0.02, "Weight of the KL penalty per token where there is one.", at_least=0)
    mask_top_p: float = setting(0.9, "Nucleus of NLPO's mask policy.", above=0, at_most=1)
    problems: int = setting(128, "Prompts on which every checkpoint is measured.", at_least=2)
    checkpoints: int = setting(4, "How often a run is measured on its way.", at_least=1)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)

    def runs(self, max_new_tokens: int) -> dict[str, Online]:
        """The algorithms by name; what ends in "-free" has no KL penalty."""

        def adapted(name: str, beta: float) -> Online:
            own = ALGORITHMS[name][0]
            return dataclasses.replace(
                own, steps=self.steps, batch_size=self.batch_size, ppo_epochs=own.ppo_epochs if name == "a2c" else 4,
                kl_controller="fixed", kl_coef=beta, trust_damping=0.01, trust_kl=0.02, missing_penalty=None,
                mask_after_truncation=True, mask_top_p=None if own.mask_top_p is None else self.mask_top_p, mask_keep=1,
                save_every=max(1, self.steps // self.checkpoints),
                sampling=Sampling(temperature=1.0, max_new_tokens=max_new_tokens, slots=256),
                optim=dataclasses.replace(PPO_OPTIM, learning_rate=self.learning_rate),
            )  # fmt: skip

        return {title: adapted(title.removesuffix("-free"), 0.0 if title.endswith("-free") else self.beta) for title in TITLES}


PPO_OPTIM = Optim(lr_schedule="constant", adam_eps=1e-8, adam_eps_convention="torch", max_grad_norm=1.0)
