"""How the world writes: problems, and completions in DeepSeek-R1-Zero's template (DeepSeek-AI 2025, table 1), and reading them.

    problem                 4821+9375=                      copy4821=
    direct                  <think></think><answer>14196</answer>
    short scratchpad        06,09,11,13,                    4,8,2,1,
    full scratchpad         1+5+0=06,2+7+0=09,8+3+0=11,4+9+1=14,        4=4,8=8,2=2,1=1,

A scratchpad stands between the think tags. A sum's goes column by column from the units: the short one writes down what the two
digits add up to and leaves the carries to the head, the full one carries. `wait` takes the column before it back and does it
again. Every tag, `wait`, `copy` and each character is one token (`WORDS`), so a length in tokens is a length in symbols.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Task = Literal["add", "copy"]
Style = Literal["direct", "short", "full", "other"]

OPEN, CLOSE, ANSWER, END_ANSWER = TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WAIT, COPY = "wait", "copy"
WORDS = (*TAGS, WAIT, COPY, *"0123456789+=,")
"""Everything that is ever written, each one token of the policy's vocabulary."""

_COMPLETION = re.compile(rf"{OPEN}(?P<thought>((?!<).)*){CLOSE}{ANSWER}(?P<answer>((?!<).)*){END_ANSWER}")
_COLUMN = {"short": re.compile(r"(\d\d),"), "full": re.compile(r"\d\+\d\+\d=(\d\d),")}
_COPIED = {"short": re.compile(r"(\d),"), "full": re.compile(r"\d=(\d),")}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked: the task and its numbers, of equally many digits.

    >>> Problem("add", (4821, 9375)).text, Problem("add", (4821, 9375)).answer
    ('4821+9375=', '14196')
    >>> Problem("copy", (4821,)).text
    'copy4821='
    """

    task: Task
    numbers: tuple[int, ...]

    @property
    def text(self) -> str:
        """The prompt."""
        return f"{COPY if self.task == 'copy' else ''}{'+'.join(map(str, self.numbers))}="

    @property
    def answer(self) -> str:
        """The right answer."""
        return str(sum(self.numbers))

    def columns(self) -> list[tuple[int, ...]]:
        """The digits that stand under each other: of a sum from the units up, of a number to copy from the left."""
        rows = [map(int, str(n)) for n in self.numbers]
        columns = list(zip(*rows, strict=True))
        return columns[::-1] if self.task == "add" else columns


_PROBLEM = re.compile(r"copy(\d+)=|(\d+)\+(\d+)=")


@lru_cache(maxsize=65536)
def read_problem(text: str) -> Problem | None:
    """The problem a prompt states; None when it is not one of this world."""
    match = _PROBLEM.fullmatch(text)
    if match is None or (match[2] and len(match[2]) != len(match[3])):
        return None
    return Problem("copy", (int(match[1]),)) if match[1] else Problem("add", (int(match[2]), int(match[3])))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a completion says. `well_formed`: it keeps to the template and holds nothing else. `answer` is what stands between
    the answer tags, None without them. `first` is what its columns said before anything was taken back; `reflections` counts
    the `wait`s."""

    well_formed: bool
    answer: str | None
    style: Style
    first: tuple[int, ...]
    reflections: int

    def draft_is_right(self, problem: Problem) -> bool:
        """Whether every column was right when it was first written; False for a completion without a scratchpad."""
        return self.style in ("short", "full") and self.first == truth(problem, self.style)


def truth(problem: Problem, style: Style) -> tuple[int, ...]:
    """What the columns of a faultless scratchpad say."""
    if problem.task == "copy":
        return tuple(digit for (digit,) in problem.columns())
    sums, carry = [], 0
    for column in problem.columns():
        sums.append(sum(column) + (carry if style == "full" else 0))
        carry = sums[-1] // 10
    return tuple(sums)


def read(text: str, task: Task = "add") -> Reading:
    """What a completion says; any text can be read.

    >>> read("<think>06,09,wait08,</think><answer>14</answer>").first
    (6, 9)
    """
    match = _COMPLETION.fullmatch(text)
    if match is None:
        return Reading(False, None, "other", (), text.count(WAIT))
    thought, columns = match["thought"], _COLUMN if task == "add" else _COPIED
    if not thought:
        return Reading(True, match["answer"], "direct", (), 0)
    for style in ("short", "full"):
        first, end = _columns(thought, columns[style])
        if end == len(thought):
            return Reading(True, match["answer"], style, first, thought.count(WAIT))
    return Reading(True, match["answer"], "other", (), thought.count(WAIT))


def _columns(thought: str, column: re.Pattern[str]) -> tuple[tuple[int, ...], int]:
    """What the columns said at first, and up to where the thought is made of columns and `wait`s."""
    first: list[int] = []
    place, again = 0, False
    while True:
        if thought.startswith(WAIT, place) and first:
            place, again = place + len(WAIT), True
            continue
        match = column.match(thought, place)
        if match is None:
            return tuple(first), place
        if not again:
            first.append(int(match[1]))
        place, again = match.end(), False
