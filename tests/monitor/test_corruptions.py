"""Spoilt texts: what each way leaves, and that the text itself always wins."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.monitor.corruptions import SPOILS, spoilt_pairs
from backflip.records import Prompt
from backflip.seeds import Seeds

words = st.lists(st.sampled_from(["good", "dull", "the", "plot", "was", "cold."]), min_size=2, max_size=12)


@given(words, st.integers(0, 1000))
def test_what_each_way_leaves(text: list[str], seed: int) -> None:
    found = {way: spoil(list(text), random.Random(seed)) for way, spoil in SPOILS.items()}
    assert all(set(left) <= set(text) and left for left in found.values())
    assert len(found["one word"]) == len(found["shuffled"]) == len(found["salad"]) == len(text)
    assert sorted(found["shuffled"]) == sorted(text)
    assert len(found["again"]) > len(text)
    assert len(found["gaps"]) <= len(text)
    assert len(set(found["one word"][-1:])) == 1


def test_the_text_itself_is_preferred_on_either_side() -> None:
    prompts = [Prompt(f"p{i}") for i in range(200)]
    texts = [f" the plot {i} was good and the end was cold" for i in range(200)]
    pairs = spoilt_pairs(prompts, texts, Seeds(0))
    assert len(pairs) > 190
    chosen = dict(zip([p.id for p in prompts], texts, strict=True))
    assert all(pair.chosen == chosen[pair.prompt.id] for pair in pairs)
    assert 60 < sum(pair.p_left == 1.0 for pair in pairs) < 140
    assert {pair.annotator for pair in pairs} == {f"spoilt: {way}" for way in SPOILS}
    assert all(pair.rejected.startswith(" ") for pair in pairs), "what stands before the first word stays"
    assert len({pair.query_id for pair in pairs}) == len(pairs)


def test_a_row_does_not_depend_on_the_others_and_hopeless_ones_are_left_out() -> None:
    prompts, texts = [Prompt("a"), Prompt("b"), Prompt("c")], ["one two three four", "alone", "same same"]
    pairs = {pair.prompt.plain: pair for pair in spoilt_pairs(prompts, texts, Seeds(1))}
    assert "b" not in pairs
    assert pairs["a"] == spoilt_pairs(prompts[:1], texts[:1], Seeds(1))[0]
    assert spoilt_pairs(prompts, texts, Seeds(1)) == spoilt_pairs(prompts, texts, Seeds(1))


@pytest.mark.parametrize("way", SPOILS)
def test_ways_differ_with_the_generator(way: str) -> None:
    text = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
    assert len({tuple(SPOILS[way](text, random.Random(seed))) for seed in range(20)}) > 5
