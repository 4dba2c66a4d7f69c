"""The layout of an answer: thoughts in their tags, the answer in its own, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from backflip.errors import ConfigError

TAGS = ("think", "answer")


class TagFormat:
    """The format reward of DeepSeek-R1-Zero (2501.12948, section 2.2.2 and Table 1).

    1.0 where a completion is `<think>…</think><answer>…</answer>`: every tag once, in order, something inside each pair, only
    white space around and between; else 0.0. `soft` gives each tag that stands once and behind those before it 1/(2n) of the
    reward, n pairs of tags. `opened`: the prompt ends with the first tag, so the completion begins inside it.
    """

    low, high = 0.0, 1.0

    def __init__(self, *, tags: Sequence[str] = TAGS, soft: bool = False, opened: bool = False) -> None:
        bad = [tag for tag in tags if re.fullmatch(r"[A-Za-z][\w-]*", tag) is None]
        if bad or not tags or len(set(tags)) < len(tags):
            raise ConfigError(
                f"tags are different words such as {', '.join(TAGS)}, not {', '.join(map(repr, bad or tags)) or 'none'}"
            )
        self.tags = tuple(tags)
        self.soft = soft
        self.opened = opened
        self._expected = [mark for tag in self.tags for mark in (f"<{tag}>", f"</{tag}>")]
        self._mark = re.compile("|".join(map(re.escape, self._expected)))

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """One reward per completion."""
        grade = self._softly if self.soft else self._strictly
        return [grade(self._expected[0] + text if self.opened else text) for text in completions]

    def _strictly(self, text: str) -> float:
        marks = list(self._mark.finditer(text))
        if [mark[0] for mark in marks] != self._expected:
            return 0.0
        edges = [0, *(edge for mark in marks for edge in mark.span()), len(text)]
        pieces = [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]  # before, inside, between, …, after
        return float(all(bool(piece) == (i % 2 == 1) for i, piece in enumerate(pieces)))

    def _softly(self, text: str) -> float:
        marks = [mark[0] for mark in self._mark.finditer(text)]
        place, good = -1, 0
        for mark in self._expected:
            if marks.count(mark) == 1 and marks.index(mark) > place:
                place = marks.index(mark)
                good += 1
        return good / len(self._expected)
