"""The settings of `test-time`: the base model, the verifier and how much is tried."""

from __future__ import annotations

from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.lab.arithmetic_base import Borrowed
from backflip.settings import Optim, Reward, Sampling


@dataclass(frozen=True, kw_only=True)
class Settings(Borrowed):
    """What is run."""

    problems: int = setting(192, "Test problems.", at_least=2)
    tries: int = setting(128, "Completions of each: estimates for k tries are without bias up to this many.", at_least=2)
    most: int = setting(64, "Largest number of tries that accuracy is told for.", at_least=2)
    draws: int = setting(200, "Orders of the tries over which the vote of k is averaged.", at_least=1)
    verifier_problems: int = setting(4000, "Training problems whose completions the verifier learns from.", at_least=2)
    verifier_tries: int = setting(16, "Completions of each of them.", at_least=2)
    pairs: int = setting(8, "Most pairs of a right and a wrong completion of one problem.", at_least=1)
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=80, slots=256)
    verifier: Reward = nested(
        Reward, epochs=2.0, batch_size=16, max_length=128, save_every=200, log_every=10,
        optim=Optim(learning_rate=5e-4, lr_schedule="cosine", warmup_steps=10, adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip
