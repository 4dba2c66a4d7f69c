"""The settings of `active-loop`: a first policy, people, and arms that differ in when and about whom they ask."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from backflip.config import nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Rounds, Sampling, Tiny

ONCE = "once"
"""The arm that asks everything about the first policy."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """In how many portions an arm asks, about the policy of how many portions ago, and by which rule."""

    portions: int
    delay: int = 0
    ask: Literal["random", "near-tie"] = "random"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. All arms of a seed start from the same policy and have as many comparisons and updates."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a policy and people of its own.", at_least=1)
    documents: int = setting(4000, "Demonstrations that the first policy learns to write like.", at_least=32)
    comparisons: int = setting(480, "Comparisons that each arm asks for in all.", at_least=20)
    noise: float = setting(0.1, "Share of the answers that are given blindly.", at_least=0, at_most=1)
    portions: tuple[int, ...] = setting(
        (1, 2, 4, 8),
        "In how many portions arms ask; the largest is the number of legs that every arm's training has.",
        at_least=1,
    )
    delays: tuple[int, ...] = setting(
        (1, 2), "In further arms with the most portions: how many portions ago the policy wrote that is asked about.", at_least=1
    )
    candidates: int = setting(4, "Pairs that are drawn for each question where a rule chooses among them.", at_least=2)
    tested: int = setting(192, "Prompts, never trained on, that every last policy answers twice.", at_least=2)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(
        Reward, batch_size=32, max_length=96, epochs=2.0, normalization_samples=64, save_every=1000,
        optim=Optim(learning_rate=1e-3, warmup_steps=10),
    )  # fmt: skip
    ppo: Online = nested(
        Online, steps=4, batch_size=64, num_generations=4, ppo_epochs=2, advantage_estimator="rloo", critic="none",
        whiten_rewards=False, kl_coef=0.06, kl_target=8.0, kl_horizon=256, save_every=1000, mask_after_truncation=True,
        sampling=Sampling(temperature=0.7, max_new_tokens=36, slots=256), optim=Optim(learning_rate=2e-4, max_grad_norm=1.0),
    )  # fmt: skip

    @property
    def legs(self) -> int:
        """Into how many parts every arm's training falls; a part is `ppo.steps` steps."""
        return max(self.portions)

    @property
    def freshest(self) -> str:
        """The arm that asks most often, about the policy as it is."""
        return name_of(self.legs)

    def arms(self) -> dict[str, Arm]:
        """Every arm by name, those first that ask at random and without delay."""
        found = {name_of(n): Arm(portions=n) for n in sorted(self.portions)}
        found |= {f"{self.freshest}, {d} late": Arm(portions=self.legs, delay=d) for d in self.delays}
        return found | {f"{self.freshest}, near ties": Arm(portions=self.legs, ask="near-tie")}

    def asking(self, arm: Arm) -> Rounds:
        """How one portion of an arm is asked for."""
        return Rounds(
            comparisons=self.comparisons // arm.portions, ask=arm.ask, candidates=self.candidates if arm.ask != "random" else 1,
            sampling=self.ppo.sampling, reward=self.reward, ppo=self.ppo,
        )  # fmt: skip


def name_of(portions: int) -> str:
    """What an arm is called."""
    return ONCE if portions == 1 else f"{portions} portions"
