"""A base model of reviews: what several experiments start from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from backflip.records import Prompt
from backflip.rounds.stages import supervised, untrained
from backflip.seeds import Seeds
from backflip.settings import SFT, Tiny
from backflip.train.sft import encode_texts
from backflip.worlds.reviews import Reviews


class Reading(Protocol):
    """Settings that say what a base model reads and how large it is."""

    @property
    def documents(self) -> int:
        """How many reviews it reads."""

    @property
    def tiny(self) -> Tiny:
        """Its size."""

    @property
    def pretrain(self) -> SFT:
        """How it is trained."""


def reviews_base(folder: Path, settings: Reading, seeds: Seeds, quiet: bool) -> Path:
    """Pretrain in `folder` on raw reviews of every style; returns the folder of the model."""
    texts = Reviews().corpus(settings.documents, seeds)
    return supervised(
        folder, settings.pretrain, lambda: untrained(settings.tiny, [(Prompt(""), text) for text in texts], seeds),
        lambda policy: encode_texts(policy, texts, settings.pretrain), seeds=seeds, quiet=quiet,
    )  # fmt: skip
