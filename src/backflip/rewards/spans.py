"""Rewards for parts of a completion: at the end of a step, of a segment, of a token.

A reward function may return a `Process` instead of a number. Placed on the tokens, its spans make the dense reward of process
supervision (DeepSeekMath, 2402.03300, section 4.1.3; Lightman et al., 2305.20050).

Legend: B rows, T response columns.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """A reward for the characters [`start`, `end`) of a completion; it falls on the token that completes them.

    >>> Span(0, 12, 1.0).scaled(0.5)
    Span(start=0, end=12, reward=0.5)
    """

    start: int
    end: int
    reward: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span goes from 0 or later to its end or earlier, not from {self.start} to {self.end}")

    def scaled(self, weight: float) -> Span:
        """The same span with `weight` times the reward."""
        return Span(self.start, self.end, weight * self.reward)


@dataclass(frozen=True, slots=True)
class Process:
    """The reward of one completion, part by part: `spans` where they end, `outcome` on the last token.

    As a number it is the sum of all, so whoever wants one number per completion gets it.

    >>> float(Process((Span(0, 3, 0.5), Span(3, 9, -0.25)), outcome=1.0))
    1.25
    """

    spans: tuple[Span, ...] = ()
    outcome: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", tuple(self.spans))

    def __float__(self) -> float:
        return float(self.outcome) + sum(float(span.reward) for span in self.spans)


class PrefixLengths(Sequence[int]):
    """How many characters of `text` the first k + 1 tokens complete, k = 0, 1, …; never falling.

    The prefix is decoded when it is asked for, so that finding a place costs log T of them. Bytes of a character that is not
    whole yet complete nothing. `decode` turns ids into text as the completion was made.

    >>> list(PrefixLengths([72, 105], "Hi", lambda ids: bytes(ids).decode()))
    [1, 2]
    """

    def __init__(self, tokens: Sequence[int], text: str, decode: Callable[[list[int]], str]) -> None:
        self.tokens = list(tokens)
        self.text = text
        self.decode = decode

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _common(self.decode(self.tokens[: index % len(self) + 1]), self.text)


def ending_token(lengths: Sequence[int], end: int, n_tokens: int) -> int:
    """The number, from 0, of the token that completes the first `end` characters of a row of `n_tokens` tokens.

    `lengths` says how many characters each prefix of tokens completes. What reaches the end of the text falls on the last token,
    the end-of-text token if there is one, as the score of a whole completion does.

    >>> ending_token([2, 5, 5], 3, 3), ending_token([2, 5, 5], 5, 3)
    (1, 2)
    """
    if not len(lengths) or end >= lengths[-1]:
        return n_tokens - 1
    return min(bisect.bisect_left(lengths, end), n_tokens - 1)


def place_spans(spans_B: Iterable[Sequence[Span]], lengths_B: Iterable[Sequence[int]], mask_BT: Tensor) -> Tensor:
    """Rewards per token, (B, T): each span's on the unmasked token of its row that completes it, 0 elsewhere.

    `lengths_B` holds, for each row, the characters that its first k + 1 unmasked tokens complete: plain numbers or
    `PrefixLengths`. Spans that end on one token add up. A single span over the whole text is the sequence-level reward of
    `maths.returns.place_scores`. Raises ValueError for a row with spans and without tokens, or another number of rows.
    """
    rows = list(zip(spans_B, lengths_B, strict=True))
    if len(rows) != len(mask_BT):
        raise ValueError(f"{len(rows)} rows of spans do not fit a mask of shape {tuple(mask_BT.shape)}")
    placed_BT = torch.zeros(mask_BT.shape, dtype=torch.float32)
    for row, (spans, lengths) in enumerate(rows):
        if not spans:
            continue
        columns = mask_BT[row].nonzero().flatten().tolist()
        if not columns:
            raise ValueError(f"row {row} has no response token to carry its spans")
        for span in spans:
            placed_BT[row, columns[ending_token(lengths, span.end, len(columns))]] += span.reward
    return placed_BT.to(mask_BT.device)


def _common(one: str, other: str) -> int:
    """How many characters two texts share from the beginning, by halving: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
