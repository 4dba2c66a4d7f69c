"""The base model that experiments in the world of arithmetic start from: its corpus, its size, and how it is pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backflip.config import nested, setting
from backflip.errors import ConfigError
from backflip.records import Prompt
from backflip.seeds import Seeds
from backflip.settings import SFT, Optim, Tiny
from backflip.worlds.arithmetic import WORDS, Arithmetic
from backflip.worlds.arithmetic.traces import ONE, Noise, Styles, Tongues


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model for each seed. The shares are those of the corpus it learns from."""

    seeds: int = setting(3, "Seeds 0, 1, … this many, each with a base model of its own.", at_least=1)
    documents: int = setting(180000, "Worked problems in the corpus.", at_least=32)
    copies: float = setting(0.2, "Share of the corpus that copies numbers, the control task.", at_least=0, at_most=0.9)
    drills: float = setting(0.5, "Share of the corpus that is a single column of a sum.", at_least=0, at_most=0.9)
    direct: float = setting(0.6, "Share of the corpus that answers directly.", at_least=0, at_most=1)
    short: float = setting(0.3, "Share with a short scratchpad; what is left has a full one.", at_least=0, at_most=1)
    slip: float = setting(0.03, "Share of a scratchpad's columns that are written wrong.", at_least=0, at_most=1)
    forget: float = setting(0.95, "Share of carries that are lost in the head, without a scratchpad.", at_least=0, at_most=1)
    forget_short: float = setting(0.6, "The same with a short scratchpad, which leaves them to the head.", at_least=0, at_most=1)
    wrong_copy: float = setting(0.3, "Share of copied numbers with a wrong digit, in every style alike.", at_least=0, at_most=1)
    bare: float = setting(0.2, "Share of the sums' texts that leave the tags out.", at_least=0, at_most=1)
    wait: float = setting(0.02, "Share of the texts in which a column is taken back and done again.", at_least=0, at_most=0.5)
    tiny: Tiny = nested(Tiny, hidden_size=128, layers=3, heads=4, context=128)
    pretrain: SFT = nested(
        SFT, epochs=1.0, batch_size=32, max_length=128, holdout=0.01, save_every=500, log_every=50,
        optim=Optim(
            learning_rate=3e-3, lr_schedule="cosine", warmup_steps=50, adam_betas=(0.9, 0.95), adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip

    def mixture(self) -> Styles:
        """The styles of the corpus."""
        return Styles(direct=self.direct, short=self.short, full=1 - self.direct - self.short)

    def world(self) -> Arithmetic:
        """The world it is about."""
        return Arithmetic()

    def tongues(self) -> Tongues:
        """The languages of its scratchpads."""
        return ONE

    def words(self) -> Sequence[str]:
        """Everything that is ever written in it."""
        return WORDS

    def noise(self) -> Noise:
        """What goes wrong in it."""
        return Noise(
            forget=self.forget, forget_short=self.forget_short, slip=self.slip, copied=self.wrong_copy, bare=self.bare,
            wait=self.wait,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Borrowed(Base):
    """A base model that may have been pretrained already, by `r1-zero` say."""

    base: str | None = setting(
        None, "Folder of an experiment whose base models are used, FOLDER/seedN/base/model; none: pretrain as the settings say."
    )


def pretrained_base(settings: Base, folder: Path, seeds: Seeds, quiet: bool, size: Tiny | None = None) -> Path:
    """Pretrain in `folder`, a model of the settings' size if no other is given; returns the folder of the model."""
    from backflip.lab.stages import pretrained

    def rows() -> list[tuple[Prompt, str]]:
        return settings.world().corpus(
            settings.documents, seeds, styles=settings.mixture(), noise=settings.noise(), copies=settings.copies,
            drills=settings.drills, tongues=settings.tongues(),
        )  # fmt: skip

    return pretrained(folder, size or settings.tiny, settings.words(), rows, settings.pretrain, seeds, quiet)


def base_of(settings: Borrowed, seed: int, folder: Path, quiet: bool) -> Path:
    """The folder of a seed's base model, in `folder`/base unless it is borrowed; ConfigError when there is none to borrow."""
    if settings.base is None:
        return pretrained_base(settings, folder / "base", Seeds(seed), quiet)
    model = Path(settings.base) / f"seed{seed}" / "base" / "model"
    if not model.exists():
        raise ConfigError(
            f"there is no base model in {model}; run `backflip lab run r1-zero --out {settings.base}` first, or leave --set "
            "base=… out to pretrain one"
        )
    return model
