"""Comparisons that cost no label: a text against what is left of it after it was spoilt.

Reward models of a policy's own texts have never seen a degenerate one, and judges fitted to alike texts are fooled alike. That a
text is better than the same text with a word said five times is known without asking anybody, so a judge can learn it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from backflip.records import Comparison, Prompt
from backflip.seeds import Seeds

Spoil = Callable[[list[str], random.Random], list[str]]
"""The words of a text and a generator → the words of the spoilt one."""


def _one_word(words: list[str], rng: random.Random) -> list[str]:
    """One of its words again and again, in the place of the others from somewhere on."""
    start = rng.randrange(len(words))
    return words[:start] + [rng.choice(words)] * (len(words) - start)


def _again(words: list[str], rng: random.Random) -> list[str]:
    """A part of it twice or three times over."""
    start = rng.randrange(len(words))
    end = rng.randrange(start, len(words)) + 1
    return words[:end] + words[start:end] * rng.randint(1, 2) + words[end:]


def _shuffled(words: list[str], rng: random.Random) -> list[str]:
    """Its words in another order."""
    return rng.sample(words, len(words))


def _gaps(words: list[str], rng: random.Random) -> list[str]:
    """Without some of its words."""
    return [word for word in words if rng.random() < 0.6] or words[:1]


def _salad(words: list[str], rng: random.Random) -> list[str]:
    """As many words, drawn from it with replacement."""
    return rng.choices(words, k=len(words))


SPOILS: dict[str, Spoil] = {
    "one word": _one_word, "again": _again, "shuffled": _shuffled, "gaps": _gaps, "salad": _salad,
}  # fmt: skip
"""The ways to spoil a text, by name."""


def spoilt_pairs(prompts: Sequence[Prompt], texts: Sequence[str], seeds: Seeds) -> list[Comparison]:
    """One comparison for each text of two words or more that spoiling changes: the text is preferred to what is left of it.

    The ways take turns; the side is drawn. `annotator` is "spoilt: WAY". Row i is the same whatever the others are.
    """
    made = []
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        rng = random.Random(seeds.integer("spoilt", i))
        words, (way, spoil) = text.split(), list(SPOILS.items())[i % len(SPOILS)]
        if len(words) < 2:
            continue
        lead = text[: len(text) - len(text.lstrip())]
        bad = lead + " ".join(spoil(words, rng))
        if bad.split() == words:
            continue
        left, right, p_left = (text, bad, 1.0) if rng.random() < 0.5 else (bad, text, 0.0)
        made.append(
            Comparison(prompt, left, right, p_left=p_left, annotator=f"spoilt: {way}", query_id=f"{prompt.id}-spoilt-{i}")
        )
    return made
