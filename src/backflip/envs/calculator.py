"""A calculator as a tool: what stands between <calc> and </calc> is worked out, and the policy reads the result.

An action without a call is the final answer and ends the episode.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

from backflip.envs.text import Step
from backflip.errors import DataError
from backflip.records import Prompt
from backflip.rewards.numerals import last_number

LARGEST = 10**30
"""Numbers beyond this, in numerator or denominator, are refused."""

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> Fraction:
    """The exact value of + − * / over decimal numbers with parentheses.

    Nothing else is read, so nothing else can be run. Raises ValueError, saying what is wrong.

    >>> calculate("(1 + 2) * 0.5")
    Fraction(3, 2)
    """
    text = expression.strip().replace("×", "*").replace("÷", "/").replace("−", "-").replace(",", "")
    if not 0 < len(text) <= 200:
        raise ValueError("write a calculation of up to 200 characters")
    try:
        tree = ast.parse(text, mode="eval").body
        return _value(tree, text)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("this is not a calculation") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        # The digits as they were written: a float would have lost some.
        return _bounded(Fraction((ast.get_source_segment(text, node) or "").replace("_", "")))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _bounded(_BINARY[type(node.op)](_value(node.left, text), _value(node.right, text)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, text))
    raise ValueError("only numbers, + - * / and parentheses are understood")


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > LARGEST:
        raise ValueError("the number is too large")
    return value


def written(value: Fraction) -> str:
    """A number as a calculator shows it: whole where it is, else up to ten decimal places.

    >>> written(Fraction(7)), written(Fraction(1, 8)), written(Fraction(1, 3))
    ('7', '0.125', '0.3333333333')
    """
    if value.denominator == 1:
        return str(value.numerator)
    tenths = round(abs(value) * 10**10)
    digits = f"{tenths // 10**10}.{tenths % 10**10:010d}".rstrip("0").rstrip(".")
    return f"-{digits}" if value < 0 and tenths else digits


class Calculator:
    """Answers calculations and grades the final answer against the prompt's column "answer".

    The reward is 1 for an action without a call whose last number is the answer, less `cost` for every call; after `calls` of
    them the episode ends. Raises DataError for a prompt without an answer that is a number.
    """

    stops: tuple[str, ...] = ("</calc>",)

    def __init__(self, *, calls: int = 4, cost: float = 0.0) -> None:
        self.calls, self.cost = calls, cost
        self.answer = Fraction(0)

    def reset(self, prompt: Prompt) -> str:
        """Take up a problem."""
        given = prompt.columns.get("answer")
        answer = last_number(str(given)) if given is not None else None
        if answer is None:
            raise DataError(
                f"the calculator grades the column 'answer', and {prompt.plain[:60]!r} has {given!r} there; give it a number"
            )
        self.answer, self.left = answer, self.calls
        return ""

    def step(self, action: str) -> Step:
        """Work out a call, or grade the answer."""
        if not action.endswith("</calc>"):
            return Step("", float(last_number(action) == self.answer), done=True)
        self.left -= 1
        _, found, call = action.removesuffix("</calc>").rpartition("<calc>")
        try:
            result = written(calculate(call)) if found else "error: <calc> is missing"
        except ValueError as problem:
            result = f"error: {problem}"
        return Step(f"<result>{result}</result>", -self.cost, done=self.left <= 0)
