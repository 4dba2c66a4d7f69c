"""The calculator: exact values, nothing but arithmetic, and a graded answer."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.envs.calculator import Calculator, calculate, written
from backflip.errors import DataError
from backflip.records import Prompt

TABLE = {
    "2+3*4": 14,
    "(2+3)*4": 20,
    "1/3+1/6": Fraction(1, 2),
    "0.1+0.2": Fraction(3, 10),
    "-7-(-2)": -5,
    "1,000 * 2": 2000,
    "6 × 7 ÷ 2 − 1": 20,
    "1e3/8": 125,
}


@pytest.mark.parametrize("expression", TABLE)
def test_values_are_exact(expression: str) -> None:
    assert calculate(expression) == TABLE[expression]


@pytest.mark.parametrize(
    "expression",
    [
        "", "x+1", "2**9**9", "__import__('os')", "1 if 1 else 2", "(1,2)[0]", "1//2", "5%3", "'a'*9", "1j", "True+1", "1+",
        "9" * 300, "(" * 150, "10000000000*10000000000*10000000000*10000000000", "1/0", "[1]", "print(1)", "1;2", "0x10", "1<2",
        "abs(1)",
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        calculate(expression)


NUMBERS = st.integers(0, 999)


@given(st.lists(st.tuples(st.sampled_from("+-*"), NUMBERS), max_size=6), NUMBERS)
def test_it_agrees_with_python_on_whole_numbers(steps: list[tuple[str, int]], first: int) -> None:
    expression = str(first) + "".join(f" {sign} {number}" for sign, number in steps)
    assert calculate(expression) == eval(expression)


@given(st.fractions(-1000, 1000, max_denominator=10_000))
def test_what_is_shown_is_within_half_of_its_last_place(value: Fraction) -> None:
    assert abs(Fraction(written(value)) - value) <= Fraction(1, 2 * 10**10)


def begun(answer: str = "408", **options: float) -> Calculator:
    calculator = Calculator(**options)  # type: ignore[arg-type]
    assert calculator.reset(Prompt("What is 12 times 34?", {"answer": answer})) == ""
    return calculator


def test_an_episode_by_hand() -> None:
    calculator = begun(cost=0.25)
    assert calculator.step("I need <calc>12*34</calc>") == ("<result>408</result>", -0.25, False)
    assert calculator.step("<calc>1/0</calc>") == ("<result>error: division by zero</result>", -0.25, False)
    assert calculator.step("no beginning</calc>") == ("<result>error: <calc> is missing</result>", -0.25, False)
    assert calculator.step("So it is 408.") == ("", 1.0, True)
    assert begun().step("So it is 409.").reward == 0.0
    assert begun().step("no number at all") == ("", 0.0, True)


def test_the_calls_run_out() -> None:
    calculator = begun(calls=2)
    assert [calculator.step("<calc>1</calc>").done for _ in range(2)] == [False, True]


@pytest.mark.parametrize("columns", [{}, {"answer": "none"}])
def test_a_prompt_without_a_right_answer_is_named(columns: dict[str, str]) -> None:
    with pytest.raises(DataError, match="12 times 34"):
        Calculator().reset(Prompt("What is 12 times 34?", columns))
