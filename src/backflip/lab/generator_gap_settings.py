"""The settings of `generator-gap`: what people spend their time on, and how a model learns from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from backflip.config import nested, setting
from backflip.lab.reviews_settings import JUDGING, READ
from backflip.settings import SFT, Optim, Reward, Sampling, Tiny


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Everything is measured on prompts that nobody trained on."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a base model of its own.", at_least=1)
    documents: int = setting(8000, "Documents that the base model reads.", at_least=32)
    comparisons: int = setting(2000, "Comparisons that people have the time for.", at_least=8)
    cost: float = setting(5.0, "As many comparisons take as long as writing one demonstration.", above=0)
    noises: tuple[float, ...] = setting((0.0, 0.2, 0.4, 0.8), "Shares of comparisons answered blindly.", at_least=0, at_most=1)
    choice_temperature: float = setting(0.4, "How unsure judges are about small differences, in units of gold.", at_least=0)
    learned_prompts: int = setting(400, "Prompts for which the base model learns what was picked.", at_least=4)
    problems: int = setting(300, "Test prompts.", at_least=4)
    tries: int = setting(16, "Samples of a prompt among which one is picked.", at_least=2)
    good: float = setting(1.0, "Gold from which a text counts as good.", at_least=-10, at_most=10)
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=40, slots=256)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=64, layers=2, heads=2, context=128)
    pretrain: SFT = field(default=READ)
    finetune: SFT = nested(
        SFT, batch_size=16, epochs=3.0, max_length=128, holdout=0.0, save_every=1000, log_every=50,
        optim=Optim(learning_rate=1e-3, lr_schedule="cosine", adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip
    reward: Reward = field(default=JUDGING)
