"""The settings of `whack-a-mole`: a first policy, a reward model of few comparisons, and what is labelled after each hack."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from backflip.config import nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Sampling, Tiny, Watch

MINED, CONTROL = "mined", "control"
ARMS = {
    MINED: "after each round the texts with the highest proxy are labelled",
    CONTROL: "after each round as many other texts are labelled",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Both arms of a seed share the first round; every round starts from the first policy."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a policy and comparisons of its own.", at_least=1)
    documents: int = setting(4000, "Demonstrations that the first policy learns to write like.", at_least=32)
    comparisons: int = setting(200, "Comparisons that the first round's reward model learns from.", at_least=20)
    noise: float = setting(0.1, "Share of all answers that are given blindly.", at_least=0, at_most=1)
    rounds: int = setting(6, "How often a policy is improved until it games its reward.", at_least=2)
    labelled: int = setting(64, "Texts that are labelled after each round, each beside one of the first policy.", at_least=1)
    pool: int = setting(256, "Texts of the round's policy among which those are.", at_least=1)
    control: Literal["first", "hacked"] = setting(
        "first", "Whose texts the control labels, as they come: the first policy's, or those of the round's policy."
    )
    tolerance: float = setting(
        0.1, "Share of the peak's gain in gold that may be lost again before a fall is a hack.", at_least=0, at_most=1
    )
    sure: float = setting(2.0, "Standard errors by which the fall must be greater than that.", at_least=0)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(
        Reward, batch_size=32, max_length=96, epochs=4.0, normalization_samples=128, save_every=1000,
        optim=Optim(learning_rate=1e-3, warmup_steps=10),
    )  # fmt: skip
    ppo: Online = nested(
        Online, steps=40, batch_size=64, ppo_epochs=2, kl_coef=0.0, kl_controller="fixed", save_every=1000,
        mask_after_truncation=True, sampling=Sampling(temperature=0.7, max_new_tokens=36, slots=256),
        optim=Optim(learning_rate=3e-4, max_grad_norm=1.0),
    )  # fmt: skip
    watch: Watch = nested(Watch, every=2, prompts=64, vectors=False)
