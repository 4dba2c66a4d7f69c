"""The settings of `overoptimisation`, and what it shares with `stiennon`: a policy, its proxies, and PPO against them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Members, Online, Optim, Reward, Sampling, Tiny, Watch

BANDS = (0.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Where the bands of KL begin in which it is counted how often a proxy is right, in nats a sequence; the last one has no end."""


@dataclass(frozen=True, kw_only=True)
class Optimised:
    """A policy, many samples of it, and what is optimised."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a policy and proxies of its own.", at_least=1)
    documents: int = setting(4000, "Demonstrations that the policy learns to write like.", at_least=32)
    noise: float = setting(0.0, "Share of the comparisons that are answered blindly.", at_least=0, at_most=1)
    prompts: int = setting(32, "Prompts on which everything is measured; nobody learns from them.", at_least=2)
    samples: int = setting(1024, "Samples of the first policy for each of them: the largest n.", at_least=16)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(
        Reward, batch_size=32, max_length=96, epochs=2.0, save_every=1000, optim=Optim(learning_rate=1e-3, warmup_steps=10)
    )
    ppo: Online = nested(
        Online, steps=60, batch_size=64, ppo_epochs=2, missing_penalty=None, kl_coef=0.0, kl_controller="fixed", save_every=30,
        sampling=Sampling(temperature=1.0, max_new_tokens=36, ignore_eos=True, slots=256),
        optim=Optim(learning_rate=3e-4, max_grad_norm=None),
    )  # fmt: skip
    watch: Watch = nested(Watch, every=3, prompts=384, vectors=False)

    def proxy(self, width: int) -> Tiny:
        """The size of a reward model of that width; wide ones are deeper."""
        return dataclasses.replace(self.tiny, hidden_size=width, layers=1 if width < 64 else 2, heads=2)

    def penalised(self, beta: float) -> Online:
        """PPO with a KL penalty of β."""
        return dataclasses.replace(self.ppo, kl_coef=beta)


@dataclass(frozen=True, kw_only=True)
class Settings(Optimised):
    """What is run. The comparisons of a smaller number are the first ones of a larger."""

    sizes: tuple[int, ...] = setting((16, 48, 128), "Widths of the proxies, the smallest first.", at_least=8)
    counts: tuple[int, ...] = setting((150, 600, 2400), "Numbers of comparisons to learn from, the smallest first.", at_least=20)
    repeats: int = setting(
        4, "Proxies of each kind for best of n, each of comparisons that no other saw, as far as these reach; their mean counts.",
        at_least=1,
    )  # fmt: skip
    betas: tuple[float, ...] = setting(
        (0.02, 0.06, 0.2), "Weights of the KL penalty, besides 0, against the middle size.", above=0
    )
    fitted: int = setting(100, "Gao's form is fitted up to this n and asked for the largest.", at_least=4)
    far: float = setting(
        50.0, "KL up to which the form of reinforcement is fitted, in nats: further on gold lies on its floor.", above=0
    )
    members: int = setting(5, "Members of the ensemble, of the smallest size.", at_least=2)
    uncertainty: float = setting(0.5, "λ of the ensemble's mean less λ times the variance.", at_least=0)
    texts: int = setting(5, "Texts that are shown of the last policy's, those with the highest proxy.", at_least=1)

    @property
    def middle(self) -> int:
        """The middle number of comparisons, at which sizes are compared."""
        return self.counts[len(self.counts) // 2]

    @property
    def middle_size(self) -> int:
        """The middle width, against which the KL penalty is varied."""
        return self.sizes[len(self.sizes) // 2]

    def independent(self, n: int) -> int:
        """How many proxies of n comparisons there are, none of which has seen another's."""
        return max(1, min(self.repeats, max(self.counts) // n))

    def runs(self) -> list[tuple[int, float]]:
        """Widths and β of the runs: every size without a penalty, and the middle one with each."""
        return [(width, 0.0) for width in self.sizes] + [(self.middle_size, beta) for beta in self.betas]

    def with_members(self) -> Reward:
        """The settings of an ensemble whose members all learn from the same comparisons."""
        return dataclasses.replace(self.reward, ensemble=Members(members=self.members))
