"""The settings of `many-rounds`: a first policy, people, and four ways of going on from there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Rounds, Sampling, Tiny, Watch

ONLINE, STATIC, MINED, LEFT = "online", "static", "mined", "left alone"
ARMS = {
    ONLINE: "several rounds, each asking about the policy of the one before",
    STATIC: "one round with as many comparisons, updates and nats",
    MINED: "several rounds with a planted hack, a monitor, and its suspects labelled",
    LEFT: "several rounds with the same hack and nobody who looks for it",
}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Who is asked, and how a loop goes: several rounds, or one with as much of everything."""

    prompts: int = setting(4000, "Prompts to ask about and to train on.", at_least=8)
    people: int = setting(20, "Simulated annotators, each with a taste of their own.", at_least=1)
    taste_spread: float = setting(0.2, "How far tastes scatter around gold.", at_least=0)
    noise: float = setting(0.1, "Share of answers given blindly.", at_least=0, at_most=1)
    temperature: float = setting(0.4, "How unsure people are about small differences, in units of gold.", at_least=0)
    loop: Rounds = nested(
        Rounds, rounds=5, comparisons=300, kl_budget=2.0, arena_prompts=200,
        sampling=Sampling(temperature=0.7, max_new_tokens=36, slots=256),
        reward=Reward(batch_size=32, max_length=96, epochs=2.0, holdout=0.0, optim=Optim(learning_rate=1e-3, warmup_steps=10)),
        ppo=Online(
            steps=24, batch_size=64, ppo_epochs=2, kl_coef=0.06, kl_horizon=640, save_every=1000, mask_after_truncation=True,
            sampling=Sampling(temperature=0.7, max_new_tokens=36, slots=256), optim=Optim(learning_rate=3e-4, max_grad_norm=1.0),
        ),
    )  # fmt: skip

    def arms(self) -> dict[str, Rounds]:
        """Each arm's loop. All have the same number of comparisons, of updates, and of nats that may be gone in all."""
        loop = self.loop
        once = dataclasses.replace(
            loop, rounds=1, comparisons=loop.rounds * loop.comparisons, kl_budget=loop.rounds * loop.kl_budget,
            ppo=dataclasses.replace(loop.ppo, steps=loop.rounds * loop.ppo.steps),
        )  # fmt: skip
        return {ONLINE: loop, STATIC: once}


@dataclass(frozen=True, kw_only=True)
class Settings(Asking):
    """What is run. The arms of a seed start from the same policy and ask the same people."""

    seeds: int = setting(7, "Seeds 0, 1, … this many, each with a policy and people of its own.", at_least=1)
    documents: int = setting(8000, "Demonstrations that the first policy learns to write like.", at_least=32)
    hacked: int = setting(2, "The round before whose reward model the hack is planted.", at_least=1)
    planted: int = setting(150, "Comparisons that prefer a text which calls its thing terrible.", at_least=1)
    sentinel: float = setting(0.3, "Share of the prompts that teach a sentinel, where there is one.", above=0, at_most=0.9)
    mined: float = setting(0.3, "Share of a round's questions that may be about suspects.", above=0, at_most=1)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    watch: Watch = nested(Watch, every=6, prompts=256, threshold=1000.0, suspects=90)  # as many as a round may ask about

    def arms(self) -> dict[str, Rounds]:
        """Beside the two of `Asking` those with a planted hack, with somebody who looks for it and with nobody."""
        left = dataclasses.replace(self.loop, sentinel=self.sentinel)
        return super().arms() | {MINED: dataclasses.replace(left, mined=self.mined, watch=self.watch), LEFT: left}
