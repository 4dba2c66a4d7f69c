"""Answers to mathematics, graded: 1 for right, 0 for wrong or absent.

`NumberAnswer` compares exact fractions and needs nothing but Python; `MathAnswer` compares expressions with math-verify.
Both read the answer as `answers` says and take one answer from a completion, so listing candidates is no better than guessing.
No completion makes them raise.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from backflip.errors import DataError
from backflip.rewards import numerals, verifier
from backflip.rewards.answers import FORMS, Form, after_thinking, check_forms, explicit, phrased

MAX_ANSWER = 1000  # characters; an answer longer than that is wrong
_SIMPLE = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")
_UNITS = re.compile(rf"({_SIMPLE.pattern})(?: (?!(?:hundred|thousand|million|billion|trillion|dozen|pi)s?\b)[A-Za-z]{{2,}})+")
# What is still to be worked out; powers of ten in scientific notation and units such as m^2 are not.
_HARMLESS = re.compile(
    r"\\(?:text|mathrm|mbox)\s?\{[^{}]{0,100}\}(?:\s?\^\s?\{?[0-9]\}?)?|\\(?:times|cdot)\s?10\s?\^\s?(?:\{\s?-?[0-9]{1,3}\s?\}|[0-9])"
)
_UNDONE = re.compile(
    r"""
    [0-9)}\]]\s?(?: [+*!×÷] | -\s?[0-9({\\] | \\(?:cdot|times|div|ast|pm|mp)\b | \^(?!\s?\{?\s?\\circ) | \(\s?[0-9] )
  | \\(?:max|min|sup|inf|sum|prod|int|lim|log|ln|lg|exp|sin|cos|tan|d?binom|sqrt|lfloor|lceil|gcd|lcm)(?![a-z])
  | \b(?:max|min|sum|abs|sqrt|floor|ceil|round|gcd|lcm)\s?\(
    """,
    re.VERBOSE,
)
_UNDIVIDED = re.compile(r"[0-9)}]\s?(?:/|\\div)\s?[0-9({]|\\[cdt]?frac(?![a-z])")


class NumberAnswer:
    """1.0 where the answer is the number in the column `column`, which may be a whole solution, as in GSM8K; else 0.0.

    Rows whose column is None get None: the reward does not apply to them. `forms` limits where an answer may stand. Raises
    DataError for a reference that is not one number.
    """

    low, high = 0.0, 1.0

    def __init__(self, *, column: str = "answer", forms: Sequence[Form] | Form = FORMS) -> None:
        self.column = column
        self.forms = check_forms(forms)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float | None]:
        """One grade per completion."""
        golds = references(columns, self.column, len(completions))
        return [None if gold is None else self._grade(gold, text) for gold, text in zip(golds, completions, strict=True)]

    def _grade(self, gold: str, text: str) -> float:
        value = _gold_number(gold)
        if value is None:
            raise DataError(
                f"the reference {gold[-60:]!r} in column {self.column!r} is not one number; use the reward `math` for it"
            )
        return float(value == number_in(text, self.forms))


class MathAnswer:
    r"""1.0 where the answer equals the one in the column `column` as mathematics, by math-verify; else 0.0.

    1/2, 0.5 and \frac{1}{2} are equal, so are (x+1)^2 and x^2+2x+1, and {1,2} and {2,1}; 0.333333 is 1/3, for a decimal against
    an expression agrees in six places, and two decimals agree exactly. Units after a number are dropped. Where the reference is
    a plain number, an expression that is still to be worked out (9 + 9, 36/2) is wrong. The reference may be a whole solution
    with `\boxed{…}` or `####`; rows whose reference is None get None. What cannot be decided in a few seconds is wrong. Raises
    ConfigError where math-verify is not installed.
    """

    low, high = 0.0, 1.0

    def __init__(self, *, column: str = "answer", forms: Sequence[Form] | Form = FORMS) -> None:
        verifier.require()
        self.column = column
        self.forms = check_forms(forms)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float | None]:
        """One grade per completion."""
        golds = references(columns, self.column, len(completions))
        return [
            None if gold is None else float(self._right(reference_answer(gold), text))
            for gold, text in zip(golds, completions, strict=True)
        ]

    def _right(self, gold: str, text: str) -> bool:
        text = after_thinking(text)
        answer = explicit(text, self.forms)
        if answer is None:
            answer = phrased(text, self.forms)
        if answer is not None:
            return same(gold, answer)
        number = numerals.last_number(text) if "number" in self.forms else None
        return number is not None and same(gold, str(number))


def number_in(text: str, forms: Sequence[Form] = FORMS) -> Fraction | None:
    """The number a completion gives as its answer; None where there is none or it is not one number.

    An explicit answer decides, whatever it says. A phrase that announces no number is passed over.
    """
    text = after_thinking(text)
    answer = explicit(text, forms)
    if answer is not None:
        return numerals.only_number(answer)
    answer = phrased(text, forms)
    announced = numerals.only_number(answer) if answer is not None else None
    if announced is not None or "number" not in forms:
        return announced
    return numerals.last_number(text)


def same(gold: str, answer: str) -> bool:
    """Whether two answers are equal as mathematics; what cannot be decided is not.

    Where the gold answer is a plain number the other must be one too, worked out: who is asked for 12 · 34 and answers
    "12 * 34" is not right, or a policy learns to repeat the question.

    >>> same("1,000", "$1000.00$"), same("17", "17 18"), same("18", "9 + 9")
    (True, False, False)
    """
    gold, answer = _bare(gold), _bare(answer)
    if not answer or len(answer) > MAX_ANSWER:
        return False
    if gold == answer:
        return True
    gold, answer = (_UNITS.sub(r"\1", text) if _UNITS.fullmatch(text) else text for text in (gold, answer))
    if _SIMPLE.fullmatch(gold):
        number = numerals.only_number(gold)
        if _SIMPLE.fullmatch(answer):
            return number is not None and number == numerals.only_number(answer)
        if not _worked_out(answer, whole=number is not None and number.denominator == 1):
            return False
    return _verified(gold, answer)


def references(columns: dict[str, list[Any]], name: str, n: int) -> list[str | None]:
    """The references of n rows as text. Raises DataError when no prompt has the column."""
    if name not in columns:
        found = ", ".join(repr(column) for column in sorted(columns)) or "none"
        raise DataError(f"the prompts have no column {name!r} with the right answers; their columns are {found}")
    if len(columns[name]) != n:
        raise DataError(f"column {name!r} has {len(columns[name])} rows for {n} completions")
    return [None if value is None else str(value) for value in columns[name]]


def reference_answer(reference: str) -> str:
    """The answer in a reference: what an explicit form or a line "A: …" gives, or the whole of it.

    >>> reference_answer("12 + 6 = 18 #### 18")
    '18'
    """
    answer = explicit(reference)
    if answer is None and "\n" in reference:
        answer = phrased(reference)
    return reference.strip() if answer is None else answer


def _worked_out(answer: str, *, whole: bool) -> bool:
    """Whether an answer that should be a number is one, not the sum, product or, for a whole number, quotient that it equals."""
    stated = _HARMLESS.sub("", answer.rpartition("=")[2])
    return _UNDONE.search(stated) is None and not (whole and _UNDIVIDED.search(stated))


def _bare(answer: str) -> str:
    """An answer without a full stop, the dollars around a formula, or those that are money."""
    answer = " ".join(answer.replace("\\$", "").split()).removesuffix(".").strip()
    while len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer.replace("$", "").strip() if answer.count("$") == 1 else answer


@functools.lru_cache(maxsize=1 << 16)
def _gold_number(reference: str) -> Fraction | None:
    return numerals.only_number(reference_answer(reference))


@functools.lru_cache(maxsize=1 << 14)
def _verified(gold: str, answer: str) -> bool:
    return verifier.shared().decide(gold, answer) is True
