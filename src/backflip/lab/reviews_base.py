"""What experiments in the world of reviews start from: base models, policies that write like demonstrations, comparisons."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

from backflip.lab.stages import kept
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt
from backflip.rollout.local import generate_samples
from backflip.rounds.stages import supervised, untrained
from backflip.seeds import Seeds
from backflip.settings import SFT, Sampling, Tiny
from backflip.train.sft import encode_demonstrations, encode_texts
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


def demonstrated(folder: Path, settings: Reading, seeds: Seeds, quiet: bool, size: Tiny | None = None) -> Path:
    """A small model, of `size` if one is given, that writes like the world's demonstrations; returns its folder."""
    rows = Reviews().demonstrations(settings.documents, seeds.child("demonstrations"))
    return supervised(
        folder, settings.pretrain, lambda: untrained(size or settings.tiny, rows, seeds),
        lambda policy: encode_demonstrations(policy, rows, settings.pretrain), seeds=seeds, quiet=quiet,
    )  # fmt: skip


def compared(path: Path, policy: Path, n: int, noise: float, sampling: Sampling, seeds: Seeds) -> list[Comparison]:
    """Two samples of each of n prompts, the better one by gold chosen, the share `noise` of the answers given blindly; kept in
    `path`."""

    def ask() -> dict[str, Any]:
        world, rng = Reviews(), random.Random(seeds.integer("answers"))
        prompts = world.prompts(n, seeds.child("questions"))
        pairs = generate_samples(load_policy(policy), prompts, n=2, seeds=seeds.child("pairs"), settings=sampling)
        rows = []
        for prompt, (left, right) in zip(prompts, pairs, strict=True):
            better = world.gold(prompt, left.text) > world.gold(prompt, right.text)
            said = rng.random() < 0.5 if rng.random() < noise else better
            rows.append([prompt.plain, left.text, right.text, float(said)])
        return {"prompt, left, right, p_left": rows}

    [rows] = kept(path, ask).values()
    return [Comparison(Prompt(prompt), left, right, p_left=p_left) for prompt, left, right, p_left in rows]
