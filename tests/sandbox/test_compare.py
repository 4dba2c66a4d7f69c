"""Canonical JSON: equal if and only if the same value of the same types; and what a tolerance and tuples change."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.sandbox.compare import same, same_text
from backflip.sandbox.inside import canonical, restored, text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
VALUES = st.recursive(
    SCALARS | st.sets(SCALARS) | st.frozensets(SCALARS),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


class Whole(int):
    """A number that says that it is every number."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


DIFFERENT: list[Any] = [
    None, True, False, 1, 0, 1.0, 0.0, -0.0, -1, 2, math.nan, math.inf, -math.inf, "1", "", "nan", "None", b"", b"1", [], (),
    {}, set(), frozenset(), [1], (1,), {1}, [True], [1.0], {1: 1}, {True: 1}, {1: True}, {"1": 1}, [[1]], [[1], []],
    [["int", "0x1"]], 10**5000, 10**5000 + 1, 2**53, 2.0**53, 2**53 + 1, Whole(1), type, len, object(), "e\u0301", "é",
    "\ud800", [1, 2], [2, 1], 0.1 + 0.2, 0.3,
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(DIFFERENT)))
def test_each_of_these_equals_itself_alone(i: int) -> None:
    equal = [j for j, other in enumerate(DIFFERENT) if same(canonical(DIFFERENT[i]), canonical(other))]
    assert equal == [i]


@given(VALUES)
def test_what_is_written_is_restored_exactly(value: Any) -> None:
    plain = canonical(value)
    assert json.loads(text(plain)) == plain
    again = restored(plain)
    assert type(again) is type(value)
    assert text(canonical(again)) == text(plain)
    if not _has_nan(value):
        assert again == value


def _has_nan(value: Any) -> bool:
    return "nan" in text(canonical(value))


@given(VALUES, VALUES)
def test_equal_canonical_forms_mean_equal_values_of_equal_types(one: Any, another: Any) -> None:
    if same(canonical(one), canonical(another)):
        assert type(one) is type(another)
        assert _has_nan(one) or one == another


@given(st.dictionaries(KEYS, st.integers()), st.sets(SCALARS), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_members_does_not_count(mapping: dict[Any, int], members: set[Any], random: Any) -> None:
    items, others = list(mapping.items()), list(members)
    random.shuffle(items)
    random.shuffle(others)
    assert canonical(dict(items)) == canonical(mapping)
    assert canonical(set(others)) == canonical(members)


@given(VALUES, st.sampled_from([0.0, 1e-9, 0.5]), st.booleans())
def test_a_value_is_the_same_as_itself_under_every_option(value: Any, tolerance: float, tuples: bool) -> None:
    plain = canonical(value)
    assert same(plain, json.loads(text(plain)), float_tolerance=tolerance, tuple_is_list=tuples)


@pytest.mark.parametrize(
    ("expected", "got", "alike"),
    [
        (1.0, 1.0 + 1e-7, True), (1.0, 1.0 + 1e-5, False), (1e12, 1e12 + 1e5, True), (0.0, -0.0, True), (0.0, 1e-7, True),
        (1.0, 1, False), (1, 1.0, False), (1.0, True, False), (math.nan, math.nan, True), (math.nan, 1.0, False),
        (math.inf, math.inf, True), (math.inf, 1e308, False), (math.inf, -math.inf, False),
        ([1.0, [2.0]], [1.0, [2.0000001]], True), ({"a": 1.0}, {"a": 1.0000001}, True), ({1.0: 1}, {1.0000001: 1}, False),
        ({1.0}, {1.0000001}, False), ([1.0], (1.0,), False), ([1.0], [1.0, 1.0], False), (1.0, "1.0", False),
        (1.0, None, False), ([], None, False), ({"a": 1.0}, {}, False),
    ],
)  # fmt: skip
def test_a_tolerance_is_for_floats_alone(expected: Any, got: Any, alike: bool) -> None:
    assert same(canonical(expected), canonical(got), float_tolerance=1e-6) is alike


def test_tuples_count_as_lists_where_told() -> None:
    nested = canonical([(1, 2), {"a": (3,)}])
    assert same(canonical([[1, 2], {"a": [3]}]), nested, tuple_is_list=True)
    assert not same(canonical([[1, 2], {"a": [3]}]), nested)
    assert not same(canonical([[1, 2], {"a": [True]}]), nested, tuple_is_list=True)


@pytest.mark.parametrize(
    "hostile",
    [
        None, 1, [], ["float"], ["float", None], ["float", "x"], ["float", 1.0], ["float", "0x1p99999"], ["float", []],
        ["list", 1], [["list"], ["list"]], [{}, {}], ["list", [["float", {}]]], ["dict", [1]], ["dict", [[]]],
        ["dict", [[1, 2, 3]]], "float", {"a": 1},
    ],
)  # fmt: skip
def test_json_that_no_encoder_wrote_is_no_value(hostile: Any) -> None:
    for expected in (1.5, [1.5], {"a": 1.5}, None):
        if hostile is not expected:
            assert not same(canonical(expected), hostile, float_tolerance=0.1, tuple_is_list=True)


def test_a_huge_number_takes_no_time() -> None:
    huge = 3**400_000
    assert same(canonical(huge), canonical(huge + 1)) is False
    assert restored(canonical(huge)) == huge


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        canonical(deep)


def test_a_class_of_its_own_has_no_value() -> None:
    assert canonical(Whole(1)) == ["other", "Whole"]
    with pytest.raises(ValueError, match="'other'"):
        restored(canonical([Whole(1)]))


@pytest.mark.parametrize(
    ("expected", "got", "alike"),
    [
        ("1\n2", "1\n2\n", True), ("1 2", "1 2  \n\n", True), ("1\n2", "1", False), ("1", "1\n2", False), ("a  b", "a b", False),
        ("", "\n", True), (" a", "a", False), ("1", "1.0", False), ("a\n\nb", "a\nb", False), ("a\r\nb", "a\nb", True),
    ],
)  # fmt: skip
def test_texts_are_compared_line_by_line(expected: str, got: str, alike: bool) -> None:
    assert same_text(expected, got) is alike
