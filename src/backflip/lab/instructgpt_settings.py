"""The settings of `instructgpt`: texts, demonstrations, rankings, a reward model, and what is varied in PPO."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.algorithms import ALGORITHMS
from backflip.config import nested, setting
from backflip.settings import SFT, Online, Optim, Reward, Sampling, Tiny

PPO = "PPO"
SHARED = "the critic a head on the policy"
_ADAM = Optim(lr_schedule="cosine", warmup_steps=10, adam_betas=(0.9, 0.95), adam_eps=1e-8, adam_eps_convention="torch")


def with_beta(beta: float) -> str:
    """What PPO with another weight of the KL penalty is called."""
    return PPO if beta == 0.02 else f"β = {beta:g}"


def with_gamma(gamma: float) -> str:
    """What PPO with pretraining text mixed in at this weight is called."""
    return f"PPO-ptx, γ = {gamma:g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Every variant of PPO starts from the same policy and reward model and meets the same prompts."""

    seeds: int = setting(3, "Seeds 0, 1, … this many, each with models of its own.", at_least=1)
    documents: int = setting(12000, "Documents of every style that the base model is pretrained on.", at_least=32)
    demonstrations: int = setting(300, "Demonstrations that it is then fine-tuned on.", at_least=8)
    rankings: int = setting(600, "Prompts with a ranking of completions to learn the reward from …", at_least=4)
    held: int = setting(200, "… and as many more to measure the reward model on.", at_least=2)
    least: int = setting(4, "A ranking has at least this many completions …", at_least=2)
    most: int = setting(9, "… and at most this many.", at_least=2)
    noise: float = setting(1.0, "Annotators prefer A to B with probability σ((gold A − gold B) / this).", above=0)
    passes: int = setting(4, "Passes over the rankings for which over-fit is watched.", at_least=1)
    looks: int = setting(3, "How often a pass the reward model is measured.", at_least=1)
    test: int = setting(256, "Prompts kept for testing on which policies are measured.", at_least=2)
    betas: tuple[float, ...] = setting((0.0, 0.005, 0.02, 0.1, 0.5, 2.0), "Weights β of the KL penalty.")
    gammas: tuple[float, ...] = setting((0.1, 1.0, 10.0), "Weights γ of the loss on pretraining text.")
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=128, layers=4, heads=4, context=96)
    pretrain: SFT = nested(
        SFT, batch_size=32, max_length=64, loss_on_prompt=True, holdout=0.0, save_every=500, log_every=50,
        optim=dataclasses.replace(_ADAM, learning_rate=3e-3, warmup_steps=30),
    )  # fmt: skip
    sft: SFT = nested(
        SFT, epochs=4, batch_size=16, max_length=96, holdout=0.0, save_every=500,
        optim=dataclasses.replace(_ADAM, learning_rate=5e-4),
    )  # fmt: skip
    reward: Reward = nested(
        Reward, batch_size=16, max_length=96, holdout=0.0, optim=dataclasses.replace(_ADAM, learning_rate=5e-4)
    )
    ppo: Online = dataclasses.field(
        default=dataclasses.replace(
            ALGORITHMS["instructgpt"][0], steps=60, batch_size=128, num_minibatches=4, ptx_ratio=1.0, save_every=1000,
            sampling=Sampling(temperature=1.0, max_new_tokens=40, slots=256),
            optim=dataclasses.replace(_ADAM, learning_rate=3e-4, lr_schedule="constant"),
        )
    )  # fmt: skip

    def grid(self) -> list[float]:
        """The passes at which over-fit is told."""
        return [look / self.looks for look in range(1, self.passes * self.looks + 1)]

    def variants(self) -> dict[str, Online]:
        """PPO with every β, with every γ at the β of InstructGPT, and with another critic."""
        changed = {with_beta(beta): dataclasses.replace(self.ppo, kl_coef=beta) for beta in self.betas}
        whole = changed.setdefault(PPO, self.ppo)
        changed |= {with_gamma(gamma): dataclasses.replace(whole, ptx_coef=gamma) for gamma in self.gammas}
        return changed | {SHARED: dataclasses.replace(whole, critic="shared")}
