"""The settings of `r1`: two languages, two sizes of base model, and the stages of the pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from backflip.algorithms import GRPO
from backflip.config import nested, setting
from backflip.lab.arithmetic_base import Base
from backflip.settings import SFT, Online, Optim, Sampling, Tiny
from backflip.worlds.arithmetic import BOTH, Arithmetic, Tongues

_ADAM = Optim(
    learning_rate=1e-3, lr_schedule="cosine", warmup_steps=5, adam_betas=(0.9, 0.95), adam_eps=1e-8, adam_eps_convention="torch"
)


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    """What is run."""

    documents: int = setting(120000, "Worked problems in the corpus.", at_least=32)
    copies: float = setting(0.0, "Share of the corpus that copies numbers.", at_least=0, at_most=0.9)
    slip: float = setting(0.2, "Share of a scratchpad's columns that are written wrong.", at_least=0, at_most=1)
    direct: float = setting(0.4, "Share of the corpus that answers directly.", at_least=0, at_most=1)
    digits: tuple[int, ...] = setting((3, 4), "Digits of the numbers that are added, one of these a problem.")
    abroad: tuple[float, ...] = setting(
        (0.6, 0.6, 0.4, 0.4), "How often a scratchpad's columns are in the second language, from the units up."
    )
    language: float = setting(1.0, "Weight of the reward for one language, where there is one; accuracy has 1.", above=0)
    demonstrations: int = setting(
        500, "Faultless full scratchpads of the cold start, in both languages as in the corpus.", at_least=2
    )
    problems: int = setting(1024, "Test problems on which a model is measured, one completion each.", at_least=2)
    groups: int = setting(48, "Test problems that are tried several times, to count dead groups.", at_least=1)
    small: Tiny = nested(Tiny, hidden_size=64, layers=2, heads=2, context=96)
    tiny: Tiny = nested(Tiny, hidden_size=128, layers=3, heads=4, context=96)
    cold: SFT = nested(SFT, epochs=1.0, batch_size=32, max_length=96, holdout=0.0, save_every=500, log_every=10, optim=_ADAM)
    imitation: SFT = nested(SFT, epochs=2.0, batch_size=64, max_length=96, holdout=0.0, save_every=500, log_every=20, optim=_ADAM)
    grpo: Online = dataclasses.field(
        default=dataclasses.replace(
            GRPO, steps=64, batch_size=256, num_generations=16, num_minibatches=4, kl_coef=0.001, missing_penalty=0.0,
            save_every=16, sampling=Sampling(temperature=1.0, max_new_tokens=56, slots=256),
            optim=dataclasses.replace(GRPO.optim, learning_rate=3e-4),
        )
    )  # fmt: skip

    def world(self) -> Arithmetic:
        """Shorter sums than those of `r1-zero`."""
        return Arithmetic(digits=self.digits)

    def tongues(self) -> Tongues:
        """Both languages, mixed inside a scratchpad."""
        return Tongues(abroad=self.abroad)

    def words(self) -> Sequence[str]:
        """Everything that is ever written, in both languages."""
        return BOTH

    def drawn(self) -> int:
        """Completions that a run of reinforcement draws, and every other way to learn from as many."""
        return self.grpo.steps * self.grpo.batch_size
