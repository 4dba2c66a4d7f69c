"""Penalties on length and on repetition, between −1 and 0; their weights say what they cost.

Length is counted in tokens (the column `completion_ids`, which the training loop fills), words or characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from backflip.errors import ConfigError
from backflip.rewards.language import words

Unit = Literal["tokens", "words", "characters"]


class Overlong:
    """The soft overlong punishment of DAPO (2503.14476, eq. 13), L_max = `max_length`, L_cache = `cache`.

    0                                    |y| ≤ L_max − L_cache
    (L_max − L_cache − |y|) / L_cache    between
    −1                                   |y| > L_max
    """

    low, high = -1.0, 0.0

    def __init__(self, *, max_length: int, cache: int, unit: Unit = "tokens") -> None:
        if not 0 < cache <= max_length:
            raise ConfigError(f"the cache of overlong lies between 1 and max_length, {max_length}; it is {cache}")
        self.max_length, self.cache, self.unit = max_length, cache, _check(unit)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """One punishment per completion."""
        free = self.max_length - self.cache
        return [-min(1.0, max(0, n - free) / self.cache) for n in lengths(completions, self.unit, columns)]


class LengthPenalty:
    """−min(1, |y| / `limit`): every unit of length costs the same until the limit."""

    low, high = -1.0, 0.0

    def __init__(self, *, limit: int, unit: Unit = "tokens") -> None:
        if limit < 1:
            raise ConfigError(f"the limit of a length penalty is at least 1, not {limit}")
        self.limit, self.unit = limit, _check(unit)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """One penalty per completion."""
        return [-min(1.0, n / self.limit) for n in lengths(completions, self.unit, columns)]


class Repetition:
    """−(1 − distinct n-grams / n-grams) of the words, in lower case; 0 for a text of fewer than n words.

    The repetition penalty of Yeo et al. 2025 (2502.03373), as a share instead of a sum over the text.
    """

    low, high = -1.0, 0.0

    def __init__(self, *, n: int = 3) -> None:
        if n < 1:
            raise ConfigError(f"an n-gram has at least one word, not {n}")
        self.n = n

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """One penalty per completion."""
        return [self._penalty(text) for text in completions]

    def _penalty(self, text: str) -> float:
        said = [part for run in text.lower().split() for part in (words(run) or [run])]
        grams = list(zip(*(said[i:] for i in range(self.n)), strict=False))
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0


def lengths(completions: Sequence[str], unit: Unit, columns: dict[str, list[Any]]) -> list[int]:
    """The length of each completion. Raises ConfigError when tokens are to be counted and there are none.

    >>> lengths(["two words"], "words", {})
    [2]
    """
    if unit == "tokens":
        if "completion_ids" not in columns:
            raise ConfigError(
                "a length in tokens needs the column completion_ids, which a training loop fills; "
                "elsewhere set unit to words or characters"
            )
        return [len(ids) for ids in columns["completion_ids"]]
    return [len(text) if unit == "characters" else len(text.split()) for text in completions]


def _check(unit: Unit) -> Unit:
    if unit not in get_args(Unit):
        raise ConfigError(f"lengths are counted in {', '.join(get_args(Unit))}, not {unit!r}")
    return unit
