"""Rewards step by step: any reward function at the ends of steps, and the calculations of a solution checked one by one.

A step is a line, or what another separator parts.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from backflip.errors import ConfigError
from backflip.rewards.calls import AnyReward, call
from backflip.rewards.spans import Process, Span

_EQUATION = re.compile(
    r"""
    (?<![0-9A-Za-z.+*/×÷$(-]) (?<![+*/×÷x-]\s)                    # the whole left side, not the end of a longer one
    (?P<left> [0-9(.$] [0-9().,$+*/×÷x\x20-]{0,80}? ) \s?=\s?\$?
    (?P<right> (?>-?[0-9][0-9,]{0,20}(?:\.[0-9]{1,20})?) )
    (?! [0-9%] | \.[0-9] | \s?[A-Z]\b | [A-Za-z] | \s?[+*/×÷^(-]\s?[0-9($] )      # the whole right side
    """,
    re.VERBOSE,
)
_TIMES = re.compile(r"(?<=[0-9)])\s?x\s?(?=[0-9(])")
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def step_ends(text: str, separator: str = "\n") -> list[tuple[int, int]]:
    """Where each step of a text starts and ends, the separator counted to the step before it; blank ones join the next.

    >>> step_ends("a\\n\\nb")
    [(0, 2), (2, 4)]
    """
    ends: list[tuple[int, int]] = []
    start = at = 0
    while at < len(text):
        cut = text.find(separator, at)
        at = len(text) if cut < 0 else cut + len(separator)
        if text[start:at].strip():
            ends.append((start, at))
            start = at
    return ends


class StepRewards:
    """Another reward function at the end of every step: a process reward model, or any judge of beginnings.

    Step k gets f(prompt, text up to its end); with `gain`, what it adds to the step before it, so that the steps sum to the
    score of the whole text (with f = 0 before the first): shaping by a potential (Ng et al. 1999) when γ = 1.
    """

    def __init__(self, function: AnyReward, *, separator: str = "\n", gain: bool = False) -> None:
        if not separator:
            raise ConfigError("steps need a separator between them, such as a line break")
        self.function, self.separator, self.gain = function, separator, gain

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[Process]:
        """The steps of each completion; an empty one has none."""
        ends = [step_ends(text, self.separator) for text in completions]
        rows = [row for row, steps in enumerate(ends) for _ in steps]
        if not rows:
            return [Process() for _ in completions]
        beginnings = [completions[row][:end] for row, steps in enumerate(ends) for _, end in steps]
        repeated = {name: [column[row] for row in rows] for name, column in columns.items()}
        found = call(self.function, "of steps", [prompts[row] for row in rows], beginnings, repeated)
        values = iter([0.0 if value is None else float(value) for value in found])
        return [Process(self._spans(steps, [next(values) for _ in steps])) for steps in ends]

    def _spans(self, steps: list[tuple[int, int]], values: list[float]) -> tuple[Span, ...]:
        before = [0.0, *values][: len(values)] if self.gain else [0.0] * len(values)
        return tuple(Span(start, end, value - b) for (start, end), value, b in zip(steps, values, before, strict=True))


class Calculations:
    """±1/n at the end of each of the n steps that state an equation of numbers: + where all of the step's are true.

    "48/2 = 24", "$5 * 3 = $15" and the annotations of GSM8K, "<<48/2=24>>24", are equations; both sides of a rounding may differ
    by half a unit of the right side's last place. Completions without any get 0. A process reward that needs no model: it
    says that the steps are calculated well, not that they are the right steps, so it goes beside an answer.
    """

    low, high = -1.0, 1.0

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[Process]:
        """The steps of each completion that state an equation."""
        return [self._process(text) for text in completions]

    def _process(self, text: str) -> Process:
        found = [(start, end, equations(text[start:end])) for start, end in step_ends(text)]
        stated = [(start, end, truths) for start, end, truths in found if truths]
        return Process(tuple(Span(a, b, (1 if all(t) else -1) / len(stated)) for a, b, t in stated))


def equations(text: str) -> list[bool]:
    """Whether each equation of numbers in a text is true; those that cannot be read are passed over.

    >>> equations("48/2 = 24 and 3 x 4 = 13")
    [True, False]
    """
    return [truth for match in _EQUATION.finditer(text) if (truth := _true(match["left"], match["right"])) is not None]


def _true(left: str, right: str) -> bool | None:
    for written, meant in (("$", ""), (",", ""), ("×", "*"), ("÷", "/")):
        left = left.replace(written, meant)
    left = _TIMES.sub("*", left)  # any other x is an unknown, which no calculation has
    if not any(sign in left for sign in "+*/-"):
        return None
    try:
        value = _evaluate(ast.parse(left.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    right = right.replace(",", "")
    places = len(right.partition(".")[2])
    return value == Fraction(right) or (bool(places) and 2 * abs(value - Fraction(right)) <= Fraction(1, 10**places))


def _evaluate(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    raise ValueError("not a calculation")
