"""How somebody of this world works a problem out: in which style, with which slips, and now and then with a `wait`."""

from __future__ import annotations

import random
from dataclasses import dataclass

from backflip.worlds.arithmetic.notation import ANSWER, CLOSE, END_ANSWER, OPEN, WAIT, Problem, Style


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

    `slip`: a column of a sum is written wrong, and the rest follows from it. `answer`: one digit of the answer is another than
    it should be; of a copied number `copied`, which does not depend on the style. `bare`: the tags around a sum are missing.
    `wait`: the share of all texts in which one column is taken back and done again, `needless` of these although it was right.
    """

    slip: float = 0.03
    answer: float = 0.05
    copied: float = 0.3
    bare: float = 0.2
    wait: float = 0.02
    needless: float = 0.25


def write(problem: Problem, style: Style, noise: Noise, rng: random.Random, *, reflect: bool = False) -> str:
    """One completion for a problem; with `reflect`, one of its columns is done twice."""
    thought, answer = work(problem, style, noise, rng, reflect=reflect)
    if rng.random() < (noise.copied if problem.task == "copy" else noise.answer):
        answer = _another_digit(answer, rng)
    if problem.task == "add" and rng.random() < noise.bare:
        return thought + answer
    return f"{OPEN}{thought}{CLOSE}{ANSWER}{answer}{END_ANSWER}"


def work(problem: Problem, style: Style, noise: Noise, rng: random.Random, *, reflect: bool) -> tuple[str, str]:
    """A scratchpad, empty in direct style, and the answer that follows from it."""
    if style == "direct":
        return "", problem.answer
    if problem.task == "copy":
        return "".join(f"{d}," if style == "short" else f"{d}={d}," for (d,) in problem.columns()), problem.answer
    columns = problem.columns()
    doubted = rng.randrange(len(columns)) if reflect else -1
    written, digits, carry = "", "", 0
    for i, (a, b) in enumerate(columns):
        right = a + b + (carry if style == "full" else 0)
        if i == doubted:
            first = right if rng.random() < noise.needless else _another_sum(right, rng)
            written += _column(a, b, carry, first, style) + WAIT
        said = _another_sum(right, rng) if rng.random() < noise.slip else right
        written += _column(a, b, carry, said, style)
        carry, digit = divmod(said if style == "full" else said + carry, 10)
        digits = f"{digit}{digits}"
    return written, f"{carry}{digits}" if carry else digits


def _column(a: int, b: int, carry: int, total: int, style: Style) -> str:
    return f"{total:02d}," if style == "short" else f"{a}+{b}+{carry}={total:02d},"


def _another_sum(right: int, rng: random.Random) -> int:
    return rng.choice([total for total in range(20) if total != right])


def _another_digit(answer: str, rng: random.Random) -> str:
    place = rng.randrange(len(answer))
    digit = rng.choice([d for d in "0123456789" if d != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]
