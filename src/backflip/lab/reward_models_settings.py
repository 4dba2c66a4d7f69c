"""The settings of `reward-models`: the base models, the people, and what is compared with what."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.settings import SFT, Members, Optim, Reward, Sampling, Tiny


@dataclass(frozen=True, kw_only=True)
class People:
    """Simulated people with tastes of their own, who err, tire of numbers and use a scale as they please."""

    number: int = setting(20, "How many there are.", at_least=1)
    taste_spread: float = setting(0.2, "How far tastes scatter around gold.", at_least=0)
    noise: float = setting(0.1, "Share of answers given blindly.", at_least=0, at_most=1)
    temperature: float = setting(0.4, "How unsure people are about small differences, in units of gold.", at_least=0)
    rating_offset: float = setting(1.5, "Standard deviation of where a person's ratings centre, in units of gold.", at_least=0)
    rating_scale: float = setting(0.5, "Standard deviation of the logarithm of how far a person spreads them.", at_least=0)
    rating_noise: float = setting(0.6, "Standard deviation of the error of a rating, in units of gold.", at_least=0)
    rating_step: float = setting(1.0, "Ratings are rounded to multiples of this.", above=0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run; everything but the members of ensembles is fitted once for each seed."""

    seeds: int = setting(7, "Seeds 0, 1, … this many, each with base models, texts and people of its own.", at_least=1)
    documents: int = setting(12_000, "Documents that each base model reads.", at_least=32)
    prompts: int = setting(1600, "Training prompts.", at_least=8)
    samples: int = setting(11, "Completions of each.", at_least=9)
    test_prompts: int = setting(1200, "Prompts on which reward models are measured, four completions each.", at_least=4)
    rankings: int = setting(120, "Rankings of four to nine completions, for the curves of over-fitting.", at_least=2)
    overfit_epochs: int = setting(6, "Passes over them.", at_least=2)
    overfit_size: str = setting("96x3", "Size of the model that over-fits; the smallest hardly can.")
    counts: tuple[float, ...] = setting((250, 500, 1000, 2000, 4000, 8000), "Numbers of comparisons to learn from.", at_least=8)
    sizes: tuple[str, ...] = setting(
        ("48x2", "96x3", "176x4"), "Sizes of reward models, width x layers; the first is the usual one."
    )
    size_comparisons: tuple[float, ...] = setting(
        (500, 2000, 8000), "Numbers of comparisons from which models of all sizes learn.", at_least=8
    )
    minutes: int = setting(
        2400, "Units of annotator time: a rating takes 1, a comparison 1.5, a ranking of four 4.5.", at_least=24
    )
    games: tuple[float, ...] = setting((1, 2, 4, 8), "Games a completion plays, four completions a prompt.", at_least=1)
    game_prompts: int = setting(400, "Prompts whose completions play.", at_least=2)
    proxy_comparisons: int = setting(500, "Comparisons from which each member of an ensemble learns.", at_least=8)
    members: int = setting(5, "Members of an ensemble.", at_least=2)
    label_noise: float = setting(0.25, "Share of labels that are turned round, where labels are noisy.", at_least=0, at_most=0.5)
    best_prompts: int = setting(48, "Prompts on which the best of n is chosen.", at_least=2)
    best_of: int = setting(512, "Largest n, and the completions of each of these prompts.", at_least=4)
    uncertainty: float = setting(0.5, "λ of the mean less λ times the variance.", at_least=0)
    people: People = nested(People)
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=40, slots=256)
    pretrain: SFT = nested(
        SFT, epochs=2.0, batch_size=32, max_length=72, holdout=0.02, save_every=1000, log_every=50,
        optim=Optim(
            learning_rate=4e-3, lr_schedule="cosine", warmup_steps=20, adam_betas=(0.9, 0.95), adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip
    reward: Reward = nested(
        Reward, batch_size=16, max_length=96, holdout=0.0, epochs=1.0, save_every=10_000, log_every=20,
        optim=Optim(learning_rate=1e-3, warmup_steps=5, adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip

    def tiny(self, size: str) -> Tiny:
        """The shape of a size such as "96x4"."""
        width, _, layers = size.partition("x")
        return Tiny(vocabulary=640, hidden_size=int(width), layers=int(layers), heads=4, context=128)

    def slower(self, size: str) -> Reward:
        """Reward models of a size learn the slower the wider they are: the step size falls as 1/width from the usual one's."""
        return dataclasses.replace(self.reward, optim=self._slowed(self.reward.optim, size, 1.0))

    def pretraining(self, size: str) -> SFT:
        """Base models too, as 1/√width: with one step size for all, the widest has the highest loss."""
        return dataclasses.replace(self.pretrain, optim=self._slowed(self.pretrain.optim, size, 0.5))

    def _slowed(self, optim: Optim, size: str, power: float) -> Optim:
        usual, width = (self.tiny(each).hidden_size for each in (self.sizes[0], size))
        return dataclasses.replace(optim, learning_rate=optim.learning_rate * (usual / width) ** power)

    def with_members(self) -> Reward:
        """The settings of an ensemble whose members all learn from the same comparisons."""
        return dataclasses.replace(self.reward, ensemble=Members(members=self.members))
