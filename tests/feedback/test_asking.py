"""What to ask next: each rule by hand, and what holds of every choice whatever the rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import UserError
from backflip.feedback.asking import RULES, Candidate, choose, newness, pair_key, text_features, values
from backflip.seeds import Seeds

# Two members, three pairs: both sure and of one mind, both sure and at odds, both of the mind that it is a tie.
GAP = np.array([[4.0, 4.0, 0.1], [4.0, -4.0, -0.1]])
ZERO = np.zeros_like(GAP)


def p(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def h(q: float) -> float:
    return -q * math.log(q) - (1 - q) * math.log(1 - q)


def test_each_rule_by_hand() -> None:
    assert values("random", GAP, ZERO).tolist() == [0, 0, 0]
    spread = ((p(4) - p(-4)) / 2) ** 2
    assert values("disagreement", GAP, ZERO) == pytest.approx([0, spread, ((p(0.1) - p(-0.1)) / 2) ** 2])
    assert values("information", GAP, ZERO) == pytest.approx([0, math.log(2) - h(p(4)), math.log(2) - h(p(0.1))], abs=1e-12)
    assert values("near-tie", GAP, ZERO) == pytest.approx([-4, 0, 0])
    assert values("explore", GAP, ZERO, newness_C=[3, 1, 2]).tolist() == [3, 1, 2]


def test_information_is_not_fooled_by_a_tie_and_nearness_is() -> None:
    assert values("information", GAP, ZERO)[1] > 100 * values("information", GAP, ZERO)[2]
    assert values("near-tie", GAP, ZERO)[1] == values("near-tie", GAP, ZERO)[2]


@given(st.lists(st.lists(st.floats(-800, 800), min_size=4, max_size=4), min_size=2, max_size=5))
def test_information_lies_between_nothing_and_one_bit_and_sides_do_not_matter(gap: list[list[float]]) -> None:
    left = np.array(gap)
    for rule in ("disagreement", "information", "near-tie"):
        there, back = values(rule, left, 0 * left), values(rule, 0 * left, left)
        assert there == pytest.approx(back, abs=1e-9)
        assert np.isfinite(there).all()
    information = values("information", left, 0 * left)
    assert np.all((information >= 0) & (information <= math.log(2) + 1e-12))


def test_what_is_far_from_everything_asked_is_new() -> None:
    candidates = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    assert newness(candidates, np.array([[0.0, 0.0]])).argmax() == 2
    assert newness(candidates, candidates) == pytest.approx([0, 0, 0], abs=1e-6)
    assert newness(candidates, np.zeros((0, 2))).argmax() == 2, "with nothing asked yet it is what is unlike the rest"
    # A column that does not vary says nothing, and the unit of one that does is its own.
    assert newness(candidates * [1000, 1], np.array([[0.0, 0.0]])) == pytest.approx(newness(candidates, np.array([[0.0, 0.0]])))


def test_texts_of_other_words_are_new() -> None:
    features = text_features(["a warm film", "a warm film", "the cold cold hotel", ""])
    assert features[0].tolist() == features[1].tolist()
    assert np.linalg.norm(features, axis=1) == pytest.approx([1, 1, 1, 0])
    assert newness(features, features[:1]).argmax() in (2, 3)


def pairs(n: int, prompts: int) -> list[Candidate]:
    return [Candidate(f"prompt {i % prompts}", f"a{i}", f"b{i}") for i in range(n)]


def test_the_highest_values_are_asked_and_the_random_share_is_drawn_from_all() -> None:
    value = np.arange(100.0)
    asked, left = choose(pairs(100, 100), value, budget=20, seeds=Seeds(0), random_share=0.25)
    chosen = [each for each in asked if not each.random]
    assert len(asked) == 20
    assert sum(each.random for each in asked) == 5
    at_random = {each.index for each in asked if each.random}
    best = [i for i in range(99, -1, -1) if i not in at_random][:15]
    assert sorted(each.index for each in chosen) == sorted(best)
    assert left == (0, 0, 0)
    drawn = [
        each.index
        for seed in range(60)
        for each in choose(pairs(100, 100), value, budget=20, seeds=Seeds(seed), random_share=0.25)[0]
        if each.random
    ]
    assert np.mean(drawn) == pytest.approx(49.5, abs=5)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 5), st.floats(-3, 3)), max_size=40),
    st.integers(1, 20), st.floats(0, 1), st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 9),
)  # fmt: skip
def test_what_holds_of_every_choice(rows: list[Any], budget: int, share: float, most: int | None, seed: int) -> None:
    candidates = [Candidate(group, a, b) for group, a, b, _ in rows]
    before = frozenset({pair_key(Candidate(0, 1, 2))})
    options: dict[str, Any] = {"budget": budget, "random_share": share, "per_group": most, "before": before}
    asked, left = choose(candidates, [v for *_, v in rows], seeds=Seeds(seed), **options)
    keys = [pair_key(candidates[each.index]) for each in asked]
    assert len(set(keys)) == len(keys), "no pair twice, in either order"
    assert not before & set(keys)
    assert all(candidates[each.index].left != candidates[each.index].right for each in asked)
    open_to = {pair_key(c) for c in candidates if c.left != c.right} - before
    room = sum(min(sum(k[0] == g for k in open_to), most or 99) for g in {k[0] for k in open_to})
    assert len(asked) == min(budget, room), "the budget is met exactly, or everything there is is asked"
    wanted = math.ceil(share * budget - 1e-9)
    assert sum(each.random for each in asked) == min(wanted, room)
    if most is not None:
        groups = [k[0] for k in keys]
        assert all(groups.count(g) <= most for g in groups)
    for random in (True, False):
        swaps = [each.swap for each in asked if each.random is random]
        assert abs(2 * sum(swaps) - len(swaps)) <= 1, "half of each kind have their sides exchanged"
    assert len(candidates) - sum(left) == len(open_to)
    assert choose(candidates, [v for *_, v in rows], seeds=Seeds(seed), **options)[0] == asked


def test_another_seed_chooses_others_where_values_are_equal() -> None:
    chosen = [{each.index for each in choose(pairs(50, 50), np.zeros(50), budget=10, seeds=Seeds(s))[0]} for s in (0, 1)]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "at least 1"),
        ({"random_share": 1.5}, "between 0 and 1"),
        ({"per_group": 0}, "at least 1"),
        ({"value_C": [0.0]}, "2 candidates but values"),
        ({"value_C": [0.0, math.nan]}, "not all of them finite"),
    ],
)
def test_what_cannot_be_chosen_is_a_sentence(options: dict[str, Any], message: str) -> None:
    given_ = {"value_C": [0.0, 1.0], "budget": 1, "seeds": Seeds(0)} | options
    with pytest.raises(UserError, match=message):
        choose(pairs(2, 2), **given_)


def test_a_rule_that_lacks_what_it_needs_is_a_sentence() -> None:
    one = GAP[:1]
    for rule in ("disagreement", "information"):
        with pytest.raises(UserError, match="two reward models"):
            values(rule, one, 0 * one)
    with pytest.raises(UserError, match="how new"):
        values("explore", GAP, ZERO)
    with pytest.raises(UserError, match="needs the scores"):
        values("near-tie", GAP[:0], ZERO[:0])
    with pytest.raises(UserError, match="finite numbers"):
        values("near-tie", GAP * math.nan, ZERO)
    with pytest.raises(UserError, match="unknown rule"):
        values("guess", GAP, ZERO)  # type: ignore[arg-type]
    assert len(RULES) == 5
