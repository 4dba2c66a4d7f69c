"""Queries from groups of samples: which are asked, and what they depend on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import UserError
from backflip.feedback.queries import k_wise_queries, pair_queries
from backflip.records import Prompt, Sample
from backflip.seeds import Seeds


def group(prompt: str, *texts: str) -> list[Sample]:
    return [Sample(Prompt(prompt), text, policy=f"policy of {text}") for text in texts]


def test_one_pair_of_different_texts_for_each_prompt() -> None:
    (query,) = pair_queries([group("p", "a", "a", "b")], seeds=Seeds(0))
    assert sorted(query.completions) == ["a", "b"]
    assert query.policies == tuple(f"policy of {text}" for text in query.completions)
    assert (query.prompt, query.purpose) == (Prompt("p"), "train")


def test_prompts_with_nothing_to_compare_are_left_out() -> None:
    queries = pair_queries([group("p", "a", "a"), group("q", "a", "b"), [], group("r", "a")], seeds=Seeds(0))
    assert [query.prompt.text for query in queries] == ["q"]


def test_the_draw_does_not_depend_on_the_other_prompts() -> None:
    groups = [group(f"p{i}", *"abcdef") for i in range(6)]
    together = pair_queries(groups, seeds=Seeds(3))
    alone = [query for one in reversed(groups) for query in pair_queries([one], seeds=Seeds(3))]
    assert together == alone[::-1]
    assert together != pair_queries(groups, seeds=Seeds(4))
    assert [q.completions for q in together] != [q.completions for q in pair_queries(groups, seeds=Seeds(3), purpose="x")]


def test_every_pair_and_side_is_drawn_about_equally_often() -> None:
    groups = [group(f"p{i}", "a", "b", "c") for i in range(1200)]
    counts = Counter(query.completions for query in pair_queries(groups, seeds=Seeds(0)))
    assert len(counts) == 6
    assert all(abs(n - 200) < 60 for n in counts.values())  # 4.6 standard deviations


def test_k_wise_takes_k_or_all_there_are() -> None:
    queries = k_wise_queries([group("p", *"abcde"), group("q", "a", "b", "b")], 4, seeds=Seeds(0))
    assert [len(query.completions) for query in queries] == [4, 2]
    assert set(queries[0].completions) < set("abcde")


def test_mixed_prompts_and_a_k_of_one_are_refused() -> None:
    with pytest.raises(UserError, match="answer one prompt"):
        pair_queries([group("p", "a") + group("q", "b")], seeds=Seeds(0))
    with pytest.raises(UserError, match="at least two completions, not 1"):
        k_wise_queries([], 1, seeds=Seeds(0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=6), st.integers(2, 5), st.integers(0, 99))
def test_completions_are_different_and_were_sampled(texts: list[str], k: int, seed: int) -> None:
    queries = k_wise_queries([group("p", *texts)], k, seeds=Seeds(seed))
    assert len(queries) == (len(set(texts)) >= 2)
    for query in queries:
        assert len(set(query.completions)) == len(query.completions) == min(k, len(set(texts)))
        assert set(query.completions) <= set(texts)
