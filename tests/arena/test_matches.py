"""Who meets whom, blind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from backflip.arena import add_matches, match_queries
from backflip.arena.matches import SAME_TEXT
from backflip.errors import ConfigError, DataError, UserError
from backflip.records import Prompt, Sample
from backflip.seeds import Seeds
from backflip.store import Store

SEEDS = Seeds(0)


def answers(policy: str, texts: list[str]) -> list[Sample]:
    return [Sample(Prompt(f"prompt {i}"), text, policy=policy) for i, text in enumerate(texts)]


def three(n: int = 200) -> dict[str, list[Sample]]:
    return {name: answers(name, [f"{name} says {i}" for i in range(n)]) for name in ("a", "b", "c")}


def test_one_query_per_prompt_and_pair_with_each_text_beside_its_author() -> None:
    queries = match_queries(three(), seeds=SEEDS)
    assert len(queries) == len({q.id for q in queries}) == 200 * 3
    assert all(text.startswith(f"{name} says") for q in queries for text, name in zip(q.completions, q.policies, strict=True))
    assert {q.purpose for q in queries} == {"arena"}
    met = [(q.prompt.text, *sorted(q.policies)) for q in queries]
    assert set(met) == {(f"prompt {i}", *pair) for i in range(200) for pair in itertools.combinations(("a", "b", "c"), 2)}


def test_sides_are_random() -> None:
    left = [q.policies[0] for q in match_queries(three(), seeds=SEEDS, pairs=[("a", "b")])]
    assert 70 <= left.count("a") <= 130  # 100 ± 4 standard errors
    assert left != [q.policies[0] for q in match_queries(three(), seeds=Seeds(1), pairs=[("a", "b")])]


def test_sides_do_not_depend_on_the_order_of_policies_prompts_or_pairs() -> None:
    samples = three(20)
    backwards = {name: list(reversed(samples[name])) for name in ("c", "b", "a")}
    expected = {q.id for q in match_queries(samples, seeds=SEEDS)}
    assert {q.id for q in match_queries(backwards, seeds=SEEDS)} == expected
    pairs = [("c", "a"), ("b", "a"), ("c", "b"), ("a", "b")]
    assert {q.id for q in match_queries(samples, seeds=SEEDS, pairs=pairs)} == expected


def test_identical_texts_are_never_asked_but_filed_as_ties(tmp_path: Path) -> None:
    samples = {"a": answers("a", ["same", "x"]), "b": answers("b", ["same", "y"])}
    asked = match_queries(samples, seeds=SEEDS)
    assert [sorted(q.completions) for q in asked] == [["x", "y"]]
    with Store(tmp_path / "feedback.db") as store:
        added = add_matches(store, samples, seeds=SEEDS)
        again = add_matches(store, samples, seeds=SEEDS)
        assert added == again
        assert (added.queries, added.same_text) == (asked, 1)
        assert store.unanswered("ann", purpose="arena") == store.unanswered() == asked
        ((verdict,), (tied,)) = store.verdicts(), store.queries("arena-same-text")
        assert (verdict.annotator, verdict.choice, verdict.query_id) == (SAME_TEXT, "tie", tied.id)
        assert tied.completions == ("same", "same")


def test_who_cannot_be_matched() -> None:
    with pytest.raises(UserError, match="only 'a'"):
        match_queries({"a": answers("a", ["x"])}, seeds=SEEDS)
    with pytest.raises(UserError, match="none was given"):
        match_queries({}, seeds=SEEDS)
    with pytest.raises(UserError, match="with itself"):
        match_queries(three(1), seeds=SEEDS, pairs=[("a", "a")])
    with pytest.raises(ConfigError, match="unknown policy 'd'"):
        match_queries(three(1), seeds=SEEDS, pairs=[("a", "d")])


def test_prompts_must_be_the_same_in_the_same_order() -> None:
    with pytest.raises(DataError, match="'b' brings 1 samples and 'a' brings 2"):
        match_queries({"a": answers("a", ["x", "y"]), "b": answers("b", ["x"])}, seeds=SEEDS)
    swapped = list(reversed(answers("b", ["x", "y"])))
    with pytest.raises(DataError, match="row 0: 'a' answered 'prompt 0' but 'b' answered 'prompt 1'"):
        match_queries({"a": answers("a", ["x", "y"]), "b": swapped}, seeds=SEEDS)
    with pytest.raises(DataError, match="no prompts"):
        match_queries({"a": [], "b": []}, seeds=SEEDS)
