"""How somebody of this world works a problem out: in which style, with which slips, and now and then with a `wait`."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from backflip.worlds.arithmetic.notation import (
    ANSWER,
    CLOSE,
    END_ANSWER,
    OPEN,
    PLACES,
    SECOND,
    WAIT,
    Problem,
    Style,
    abroad,
    named,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Styles:
    """Shares of the three styles, which add up to 1."""

    direct: float = 0.6
    short: float = 0.3
    full: float = 0.1

    def draw(self, rng: random.Random) -> Style:
        """A style."""
        point = rng.random()
        return "direct" if point < self.direct else "short" if point < self.direct + self.short else "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What goes wrong, as independent probabilities.

    `forget`: a carry that is kept in the head is lost, in direct style, `forget_short` with a short scratchpad, so that what is
    likeliest to be written is not what is right. `slip`: a column of a scratchpad is written wrong, and the rest follows from it.
    `copied`: one digit of a copied number is another than it should be, which does not depend on the style. `bare`: the tags
    around a sum are missing. `wait`: the share of all texts in which one column is taken back and done again, `needless` of
    these although it was right.
    """

    forget: float = 0.95
    forget_short: float = 0.6
    slip: float = 0.03
    copied: float = 0.3
    bare: float = 0.2
    wait: float = 0.02
    needless: float = 0.25


FAULTLESS = Noise(forget=0, forget_short=0, slip=0, copied=0, bare=0, wait=0)
"""Nothing goes wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tongues:
    """In which language the columns of a sum's scratchpad are written.

    `abroad`: how often a column is in the second language, from the units up; those beyond the last one are like it. Columns are
    independent of each other: whoever says some of them in one language and some in the other mixes. Where it is empty nothing
    is drawn, so that a world of one language stays as it is.
    """

    abroad: tuple[float, ...] = ()

    def spoken(self, columns: Iterable[int], rng: random.Random) -> list[bool]:
        """Whether each of some columns, numbered from the units up, is written in the second language."""
        if not self.abroad:
            return [False for _ in columns]
        return [rng.random() < self.abroad[min(column, len(self.abroad) - 1)] for column in columns]


ONE = Tongues()
"""The first language alone."""


def write(
    problem: Problem, style: Style, noise: Noise, rng: random.Random, *, reflect: bool = False, tongues: Tongues = ONE
) -> str:
    """One completion for a problem; with `reflect`, one of its columns is done twice."""
    thought, answer = work(problem, style, noise, rng, reflect=reflect, tongues=tongues)
    if problem.task == "copy" and rng.random() < noise.copied:
        answer = _another_digit(answer, rng)
    if problem.task == "add" and rng.random() < noise.bare:
        return thought + answer
    return f"{OPEN}{thought}{CLOSE}{ANSWER}{answer}{END_ANSWER}"


def work(
    problem: Problem, style: Style, noise: Noise, rng: random.Random, *, reflect: bool, tongues: Tongues = ONE
) -> tuple[str, str]:
    """A scratchpad, empty in direct style, and the answer that follows from it."""
    if problem.task == "copy":
        return "" if style == "direct" else problem.answer + f"={problem.answer}" * (style == "full"), problem.answer
    columns = problem.columns()
    doubted = rng.randrange(len(columns)) if reflect else -1
    forget = {"direct": noise.forget, "short": noise.forget_short}.get(style, 0.0)
    spoken = tongues.spoken(range(len(columns)), rng) if style != "direct" else []
    written, total, carry = "", 0, 0
    for i, (a, b) in enumerate(columns):
        digits = PLACES[i] if style == "short" else f"{PLACES[i]}{a}{SECOND[i]}{b}"
        said = right = a + b + (carry if style == "full" else 0)
        if style != "direct":
            column = ""
            if i == doubted:
                first = right if rng.random() < noise.needless else _another_sum(right, rng)
                column = f"{digits}{first:02d}{WAIT}"
            if rng.random() < noise.slip:
                said = _another_sum(right, rng)
            column += f"{digits}{said:02d}"
            written += abroad(column) if spoken[i] else column
        if carry and rng.random() < forget:
            carry = 0
        carry, digit = divmod(said if style == "full" else said + carry, 10)
        total += digit * 10**i
    return written, named(total + carry * 10 ** len(columns))


def _another_sum(right: int, rng: random.Random) -> int:
    return rng.choice([total for total in range(20) if total != right])


def _another_digit(answer: str, rng: random.Random) -> str:
    place = 1 + 2 * rng.randrange(len(answer) // 2)
    digit = rng.choice([d for d in "0123456789" if d != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]
