"""How the world writes: problems, and completions in DeepSeek-R1-Zero's template (DeepSeek-AI 2025, table 1), and reading them.

    problem             d4c8b2a1+D9C3B7A5=                copyd4c8b2a1=
    direct              <think></think><answer>e1d4c1b9a6</answer>
    short scratchpad    a06b09c11d13                      d4c8b2a1
    full scratchpad     a1A506b2B709c8C311d4D914          d4c8b2a1=d4c8b2a1

A digit stands behind the name of its place, a for the units, in capitals in the second number ("index hints", Zhou et al. 2023,
section 5.2): a small model finds a place by its name and need not count. A scratchpad stands between the think tags. A sum's goes
column by column from the units: the short one writes down what the two digits add up to and leaves the carries to the head; the
full one writes down both digits and what they and the carry add up to. `wait` takes the column before it back and does it again.
Every tag, `wait`, `copy` and each character is one token (`WORDS`), so a length in tokens is a length in symbols.

A column may be written in a second language, in which every place, every digit and `wait` has another name (`ABROAD`), each one
token too (`BOTH`). Problems and answers are always written in the first.

    c8C311wait    丙八寅三一一等
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
PLACES = "abcdefg"
SECOND = PLACES[:-1].upper()
WORDS = (*TAGS, WAIT, COPY, *"0123456789+=", *PLACES, *SECOND)
"""Everything that is ever written, each one token of the policy's vocabulary."""

ABROAD = dict(zip((WAIT, *PLACES, *SECOND, *"0123456789"), "等甲乙丙丁戊己庚子丑寅卯辰巳零一二三四五六七八九", strict=True))
"""What a scratchpad is made of, as the second language says it."""
HOME = {theirs: ours for ours, theirs in ABROAD.items()}
BOTH = (*WORDS, *HOME)
"""Everything that is written where both languages are."""
_TO_HOME = str.maketrans(HOME)
_TO_ABROAD = str.maketrans({ours: theirs for ours, theirs in ABROAD.items() if ours != WAIT})


def abroad(text: str) -> str:
    """A piece of a scratchpad in the second language.

    >>> abroad("c8C311")
    '丙八寅三一一'
    """
    return text.replace(WAIT, ABROAD[WAIT]).translate(_TO_ABROAD)


def at_home(text: str) -> str:
    """A piece of a scratchpad in the first language, whichever it was in.

    >>> at_home("b2B709丙八寅三一一")
    'b2B709c8C311'
    """
    return text.translate(_TO_HOME)


def named(number: int, places: str = PLACES) -> str:
    """A number with its places.

    >>> named(4821)
    'd4c8b2a1'
    """
    digits = str(number)
    return "".join(places[len(digits) - 1 - i] + digit for i, digit in enumerate(digits))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked: the task and its numbers, of equally many digits. A number to copy may stand in `capitals`.

    >>> Problem("add", (4821, 9375)).text, Problem("add", (4821, 9375)).answer
    ('d4c8b2a1+D9C3B7A5=', 'e1d4c1b9a6')
    >>> Problem("copy", (4821,)).text, Problem("copy", (4821,), capitals=True).text
    ('copyd4c8b2a1=', 'copyD4C8B2A1=')
    """

    task: Task
    numbers: tuple[int, ...]
    capitals: bool = False

    @property
    def text(self) -> str:
        """The prompt."""
        if self.task == "copy":
            return f"{COPY}{self.answer}="
        return f"{named(self.numbers[0])}+{named(self.numbers[1], SECOND)}="

    @property
    def answer(self) -> str:
        """The right answer."""
        return named(sum(self.numbers), SECOND if self.capitals else PLACES)

    def columns(self) -> list[tuple[int, int]]:
        """The digits of a sum that stand under each other, from the units up."""
        first, second = (map(int, reversed(str(n))) for n in self.numbers)
        return list(zip(first, second, strict=True))


_PROBLEM = re.compile(r"copy(?P<only>(\w\d)+)=|(?P<first>([a-f]\d)+)\+(?P<second>([A-F]\d)+)=")


@lru_cache(maxsize=65536)
def read_problem(text: str) -> Problem | None:
    """The problem a prompt states; None when it is not one of this world."""
    match = _PROBLEM.fullmatch(text)
    if match is None:
        return None
    numbers = tuple(int(match[part][1::2]) for part in ("only", "first", "second") if match[part])
    problem = Problem("copy" if match["only"] else "add", numbers, capitals=(match["only"] or "").isupper())
    same = problem.task == "copy" or len(match["first"]) == len(match["second"])
    return problem if same and problem.text == text else None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a completion says. `well_formed`: it keeps to the template and holds nothing else. `answer` is what stands between
    the answer tags, None without them. `first` is what a sum's columns said before anything was taken back; `reflections`
    counts the `wait`s."""

    well_formed: bool
    answer: str | None
    style: Style
    first: tuple[int, ...]
    reflections: int

    def draft_is_right(self, problem: Problem) -> bool:
        """Whether every column of a sum was right when it was first written; False without a scratchpad."""
        return bool(self.first) and self.first == truth(problem, self.style)


def truth(problem: Problem, style: Style) -> tuple[int, ...]:
    """What the columns of a faultless scratchpad of a sum say.

    >>> truth(Problem("add", (4829, 9375)), "short"), truth(Problem("add", (4829, 9375)), "full")
    ((14, 9, 11, 13), (14, 10, 12, 14))
    """
    sums, carry = [], 0
    for a, b in problem.columns():
        sums.append(a + b + (carry if style == "full" else 0))
        carry = sums[-1] // 10
    return tuple(sums)


_COMPLETION = re.compile(rf"{OPEN}(?P<thought>((?!<).)*){CLOSE}{ANSWER}(?P<answer>((?!<).)*){END_ANSWER}")
_COLUMN: dict[Style, re.Pattern[str]] = {
    "short": re.compile(r"[a-f](\d\d)"),
    "full": re.compile(r"[a-f]\d[A-F]\d(\d\d)"),
}
_COPIED: dict[Style, re.Pattern[str]] = {
    "short": re.compile(r"([a-fA-F]\d)+"),
    "full": re.compile(r"([a-fA-F]\d)+=([a-fA-F]\d)+"),
}


def read(text: str, task: Task = "add") -> Reading:
    """What a completion says; any text can be read, and a scratchpad in whichever language its columns are.

    >>> read("<think>a06b09waitb08</think><answer>b8a6</answer>").first
    (6, 9)
    """
    match = _COMPLETION.fullmatch(text)
    if match is None:
        return Reading(False, None, "other", (), at_home(text).count(WAIT))
    thought, answer = at_home(match["thought"]), match["answer"]
    waits = thought.count(WAIT)
    if not thought:
        return Reading(True, answer, "direct", (), 0)
    if task == "copy":
        copied: Style = next((style for style, pattern in _COPIED.items() if pattern.fullmatch(thought)), "other")
        return Reading(True, answer, copied, (), waits)
    for style, pattern in _COLUMN.items():
        first, end = _columns(thought, pattern)
        if end == len(thought):
            return Reading(True, answer, style, first, waits)
    return Reading(True, answer, "other", (), waits)


def _columns(thought: str, column: re.Pattern[str]) -> tuple[tuple[int, ...], int]:
    """What the columns said at first, and up to where the thought is made of columns and `wait`s."""
    first: list[int] = []
    place, again = 0, False
    while True:
        if thought.startswith(WAIT, place) and first and not again:
            place, again = place + len(WAIT), True
            continue
        match = column.match(thought, place)
        if match is None:
            return tuple(first), place
        if not again:
            first.append(int(match[1]))
        place, again = match.end(), False
