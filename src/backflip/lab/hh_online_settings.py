"""The settings of `hh-online`: policies of several sizes, preference models of two halves, and two ways of asking people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.lab.many_rounds_settings import Asking
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Sampling, Tiny, Watch

_FULL = Asking()
SMALL_LOOP = dataclasses.replace(
    _FULL.loop, rounds=3, comparisons=300, arena_prompts=200,
    ppo=dataclasses.replace(_FULL.loop.ppo, steps=16),
)  # fmt: skip
SAMPLING = Sampling(temperature=0.7, max_new_tokens=36, slots=256)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. The policies of a seed differ in size alone; its preference models learn from one set of comparisons."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with policies, preference models and people of its own.", at_least=1)
    documents: int = setting(4000, "Demonstrations that every policy learns to write like.", at_least=32)
    comparisons: int = setting(600, "Comparisons that each preference model learns from; train and test share none.", at_least=10)
    noise: float = setting(0.1, "Share of these that are answered blindly.", at_least=0, at_most=1)
    sizes: tuple[int, ...] = setting((48, 72, 96), "Widths of the policies; the last one goes on to the rounds.", at_least=16)
    models: tuple[int, ...] = setting((16, 96), "Widths of the preference models, two of each: train and test.", at_least=8)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(Reward, batch_size=32, max_length=96, epochs=2.0, optim=Optim(learning_rate=1e-3, warmup_steps=10))
    ppo: Online = nested(
        Online, steps=50, batch_size=64, ppo_epochs=2, kl_coef=0.0, kl_controller="fixed", save_every=1000, sampling=SAMPLING,
        mask_after_truncation=True, optim=Optim(learning_rate=2e-4, max_grad_norm=1.0),
    )  # fmt: skip
    watch: Watch = nested(Watch, every=4, prompts=128, vectors=False)
    asking: Asking = nested(Asking, loop=SMALL_LOOP)

    def policy(self, width: int) -> Tiny:
        """The size of a policy of that width."""
        return dataclasses.replace(self.tiny, hidden_size=width)

    def model(self, width: int) -> Tiny:
        """The size of a preference model of that width; wide ones are deeper."""
        return dataclasses.replace(self.tiny, hidden_size=width, layers=1 if width < 64 else 2, heads=2)
