"""The tasks of `grue`: what a base model reads, what it is asked for, and a reward that can be gamed.

Both are small forms of what RL4LMs trains on (Ramamurthy et al. 2022, 2210.01241): its synthetic test, increasing numbers, and
positive sentiment of reviews by a judge that counts words and knows no grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backflip.records import Prompt
from backflip.rewards.protocol import RewardFunction
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews
from backflip.worlds.reviews.grammar import VALUE

NUMBERS = 50
SHORTEST = 20
"""Half of this is the shortest text that can earn everything (`min_tokens` of RL4LMs)."""
LONGEST = 24
_GRADED = sorted(VALUE, key=len, reverse=True)


@dataclass(frozen=True)
class Task:
    """One task. `corpus(n, seeds)` gives documents as prompt and completion, `prompts(n, seeds, test)` what is asked for."""

    name: str
    title: str
    corpus: Callable[[int, Seeds], list[tuple[Prompt, str]]]
    prompts: Callable[[int, Seeds, bool], list[Prompt]]
    reward: RewardFunction
    max_new_tokens: int


def increasing(text: str) -> float:
    """The length of the longest increasing beginning of a text of two-digit numbers over its length, which counts as at least
    half of `SHORTEST`.

    >>> increasing("01020304050607080910"), increasing("0102"), increasing("0501")
    (1.0, 0.2, 0.1)
    """
    numbers = [int(text[i : i + 2]) for i in range(0, len(text) - 1, 2)]
    run = 0
    while run < len(numbers) and (run == 0 or numbers[run] > numbers[run - 1]):
        run += 1
    return run / max(len(numbers), SHORTEST / 2)


def warmth(text: str) -> float:
    """What the words of judgement in a text add up to, over the most that a review says of them, at most 1 either way.

    >>> warmth("It is a superb film."), warmth("superb superb superb superb superb"), warmth("a weak plot")
    (0.25, 1.0, -0.125)
    """
    total, rest = 0.0, text
    for word in _GRADED:  # the longest first, and what was heard is taken out
        total += VALUE[word] * rest.count(word)
        rest = rest.replace(word, " ")
    return max(-1.0, min(1.0, total / 4))


def _each(value: Callable[[str], float]) -> RewardFunction:
    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [value(text) for text in completions]

    return reward


def _sequences(n: int, seeds: Seeds) -> list[tuple[Prompt, str]]:
    """Numbers that wander: each is within ten of the one before, and as often below as above it."""
    rng, found = seeds.numpy("numbers"), []
    for length in rng.integers(SHORTEST // 2, LONGEST, size=n).tolist():
        number, text = int(rng.integers(NUMBERS)), []
        for step in rng.integers(-10, 11, size=length).tolist():
            text.append(f"{number:02d}")
            number = min(NUMBERS - 1, max(0, number + step))
        found.append((Prompt(text[0]), "".join(text[1:])))
    return found


def _starts(n: int, seeds: Seeds, test: bool) -> list[Prompt]:
    """First numbers; there is nothing to keep apart, for every completion is a new one."""
    return [Prompt(f"{number:02d}") for number in seeds.numpy("starts", int(test)).integers(NUMBERS // 2, size=n).tolist()]


def _documents(n: int, seeds: Seeds) -> list[tuple[Prompt, str]]:
    return Reviews().demonstrations(n, seeds)


def _reviews(n: int, seeds: Seeds, test: bool) -> list[Prompt]:
    return Reviews().prompts(n, seeds, "test" if test else "train")


TASKS: Sequence[Task] = (
    Task("numbers", "Increasing numbers", _sequences, _starts, _each(increasing), LONGEST),
    Task("sentiment", "Warm reviews", _documents, _reviews, _each(warmth), 40),
)
