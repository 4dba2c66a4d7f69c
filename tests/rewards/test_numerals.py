"""Numbers as they are written: by hand, against lists of guesses, and in linear time."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.rewards.numerals import last_number, only_number

EIGHTEEN = [
    "18", "18.", "18.0", "18.00", "018", "+18", "$18", "\\$18", "$18$", "$ 18", "US$18", "€18", "18%", "18\\%", "18 %", "18 eggs",
    "18kg", "18 m^2", "18 m²", "18 km/h", "**18**", "(18)", "[18]", "about 18.", "x = 18", "20 - 2 = 18", "17 = 18", "18\n",
    "18 \\text{ eggs}", "18\\text{ m}^2", "1.8e1", "１８", "١٨", "१८", "18!",
    "-(-18) = 18",
]  # fmt: skip
NOT_EIGHTEEN = [
    "", "eighteen", "17", "-18", "17 or 18", "18 or 19", "18, 19", "18,19", "18 19", "18^2", "18²", "18**2", "18.1.2", "18/0",
    "x18", "x_18", "x^18", "18/5/2020", "18.5", "18 = 17", "180", "1 8", "18-18", "#", "½", "XVIII", "1,8", "18,0000",
    "x + 18", "18 + x", "1**8", "36/2", "\\frac{36}{2}", "9 + 9", "2 * 9",
    "2x * 18", "10**18",
]  # fmt: skip


@pytest.mark.parametrize("text", EIGHTEEN)
def test_ways_to_write_eighteen(text: str) -> None:
    assert only_number(text) == 18


@pytest.mark.parametrize("text", NOT_EIGHTEEN)
def test_what_is_not_eighteen(text: str) -> None:
    assert only_number(text) != 18


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", 1000),
        ("1,234,567.50", Fraction("1234567.5")),
        ("1{,}000", 1000),
        ("1\\,000", 1000),
        ("1\u202f000", 1000),
        ("-5", -5),
        ("−5", -5),
        ("- 5", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("x = -5", -5),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("1 3/4", Fraction(7, 4)),
        ("-1 3/4", Fraction(-7, 4)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("-\\frac{1}{2}", Fraction(-1, 2)),
        (".5", Fraction(1, 2)),
        ("0.5/2", Fraction(1, 4)),
        ("1.5e-3", Fraction(3, 2000)),
        ("1" + "0" * 400, 10**400),
        ("1,2345", None),
        ("1/0", None),
        ("9" * 1001, None),
        ("1e9999", None),
        ("20-2", None),
    ],
)
def test_values_by_hand(text: str, value: Fraction | None) -> None:
    assert only_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 + 6 = 18", 18),
        ("she has 18 eggs, of which none is bad.", 18),
        ("20 - 2 is 18.", 18),
        ("17 eggs, then 18", 18),
        ("= 13\n18", 18),
        ("18 18", 18),
        ("16, 17, 18", None),
        ("16 17 18", None),
        ("16 or 18", None),
        ("16, 17, or 18", None),
        ("16/17, 18", None),
        ("16; 18", None),
        ("16\n17\n18", None),
        ("- 16\n- 18", None),
        ("* 16\n* 18", None),
        ("no numbers", None),
        ("", None),
    ],
)
def test_the_last_number_unless_it_ends_a_list_of_guesses(text: str, value: int | None) -> None:
    assert last_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "1" + ",111" * 25000 + "^",
        "9" * 100000 + "^",
        "1/" * 50000,
        "1.1" * 30000,
        "-" * 100000,
        "$" * 100000,
        "1 " * 50000,
        "1 1/" * 30000,
        "\\frac{1" * 20000,
        " " * 100000 + "-",
        "1e" * 50000,
        "1\u00a0" * 30000,
    ],
    ids=lambda text: text[:8],
)
def test_tricky_numbers_take_no_time(text: str) -> None:
    start = time.process_time()
    last_number(text)
    only_number(text)
    assert time.process_time() - start < 3


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    for value in (only_number(text), last_number(text)):
        assert value is None or isinstance(value, Fraction)


@given(st.fractions(max_denominator=999, min_value=-(10**6), max_value=10**6))
def test_a_fraction_is_read_as_it_is_written(value: Fraction) -> None:
    assert only_number(str(value)) == value
    assert only_number(f"it costs ${value} each.") == value


@given(st.integers(min_value=-(10**12), max_value=10**12), st.integers(min_value=0, max_value=3))
def test_thousands_and_zeros_change_nothing(value: int, zeros: int) -> None:
    written = f"{value:,}" + ("." + "0" * zeros if zeros else "")
    assert only_number(written) == last_number(f"so\n{written}.") == value


@given(
    st.lists(st.integers(min_value=0, max_value=99), min_size=2, max_size=6, unique=True),
    st.sampled_from([", ", " ", " or ", "; "]),
)
def test_listing_guesses_is_no_answer(guesses: list[int], between: str) -> None:
    text = between.join(map(str, guesses))
    assert only_number(text) is None
    assert last_number(text) is None
