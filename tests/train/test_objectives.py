"""What the losses of a reward model are given: rankings found in their pairs, ratings, Elo; and that each can be learned."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny

from backflip.errors import ConfigError, DataError
from backflip.maths.preference import bradley_terry
from backflip.maths.ratings import elo_update
from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Optim, Reward
from backflip.train.comparisons import sound, split_questions
from backflip.train.objectives import loss_of, units
from backflip.train.rankings import elo_targets, rankings, rating_targets, scales
from backflip.train.reward import fit_reward

torch.set_num_threads(1)

PROMPT = Prompt("the film")


def pair(left: str, right: str, p_left: float = 1.0, **more: Any) -> Comparison:
    return Comparison(PROMPT, left, right, p_left, **more)


def ranked(groups: tuple[tuple[int, ...], ...], texts: tuple[str, ...], annotator: str = "ann") -> list[Comparison]:
    query = Query(PROMPT, texts)
    return Verdict(query.id, annotator, "ranking", groups).comparisons(query)


def rated(scores: tuple[float, ...], texts: tuple[str, ...], annotator: str = "ann") -> list[Comparison]:
    query = Query(PROMPT, texts)
    return Verdict(query.id, annotator, "rating", scores=scores).comparisons(query)


def texts_of(found: Any) -> list[list[str]]:
    return [sorted(text for _, text in group) for group in found.groups]


# ------------------------------------------------------------------------------------------------------- rankings


@given(st.integers(2, 6).flatmap(lambda k: st.tuples(*[st.integers(0, k - 1)] * k)), st.randoms(use_true_random=False))
def test_a_ranking_is_found_again_in_its_pairs(places: tuple[int, ...], rng: random.Random) -> None:
    names = tuple("abcdef"[: len(places)])
    groups = tuple(tuple(i for i, p in enumerate(places) if p == place) for place in sorted(set(places)))
    pairs = [c.swap() if rng.random() < 0.5 else c for c in ranked(groups, names)]
    rng.shuffle(pairs)
    [found] = rankings(pairs, whole=True)
    assert texts_of(found) == [[names[i] for i in group] for group in groups]
    assert found.weight == pytest.approx(1)


def test_two_annotators_of_one_question_have_a_ranking_each() -> None:
    pairs = ranked(((0,), (1,), (2,)), ("a", "b", "c"), "ann") + ranked(((2,), (0, 1)), ("a", "b", "c"), "bob")
    assert [texts_of(r) for r in rankings(pairs, whole=True)] == [[["a"], ["b"], ["c"]], [["c"], ["a", "b"]]]


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([pair("a", "b", 0.7)], "a belief of 0.7 places neither text above the other"),
        ([pair("a", "b"), pair("b", "c")], "3 texts need 3 different pairs, not 2"),
        ([pair("a", "b"), pair("b", "c"), pair("c", "a")], "its answers go round in a circle"),
        ([pair("a", "b"), pair("b", "a")], "2 texts need 1 different pairs, not 2"),
    ],
)
def test_what_is_no_ranking_is_said_with_what_to_do(pairs: list[Comparison], why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        rankings(pairs, whole=True)
    assert "use the loss bradley-terry" in str(caught.value)


def test_the_best_needs_no_pairs_among_the_others() -> None:
    [found] = rankings([pair("a", "b", weight=0.5), pair("c", "a", 0.0, weight=0.5)], whole=False)
    assert texts_of(found) == [["a"], ["b", "c"]]
    with pytest.raises(DataError, match="every text is beaten by another one"):
        rankings([pair("a", "b"), pair("b", "c"), pair("c", "a")], whole=False)


# --------------------------------------------------------------------------------------------------- ratings, Elo


def test_ratings_are_targets_raw_or_on_each_annotators_scale() -> None:
    mild, wild = rated((1.0, 2.0, 3.0), ("a", "b", "c"), "mild"), rated((-10.0, 10.0), ("a", "b"), "wild")
    raw = {(t.completion[1], t.value) for t in rating_targets(mild + wild, {})}
    assert raw == {("a", 1.0), ("b", 2.0), ("c", 3.0), ("a", -10.0), ("b", 10.0)}
    known = scales(mild + wild)
    assert known["mild"] == (2.0, pytest.approx(math.sqrt(2 / 3)))
    own = [t.value for t in rating_targets(mild + wild, known)]
    assert own == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5), -1.0, 1.0])
    assert scales(rated((4.0, 4.0), ("a", "b"), "flat"))["flat"] is None, "somebody who says one thing has no scale"
    assert rating_targets(rated((4.0, 4.0), ("a", "b"), "flat"), {"flat": None}) == []
    assert rating_targets([pair("a", "b")], {}) == []


def test_elo_by_hand_and_in_leagues_of_its_own() -> None:
    games = [pair("a", "b"), Comparison(Prompt("other"), "x", "y", 0.0)]
    found = elo_targets(games, Seeds(0), k=32.0)
    won = elo_update(1000, 1000, 1.0, k=32.0).a
    assert won == 1016
    assert {text: value for (_, text), value in found.items()} == pytest.approx({"a": 1, "b": -1, "x": -1, "y": 1})
    three = elo_targets([pair("a", "b"), pair("b", "c"), pair("a", "c")], Seeds(0))
    values = {text: value for (_, text), value in three.items()}
    assert values["a"] > values["b"] > values["c"]
    assert sum(values.values()) == pytest.approx(0, abs=1e-12)
    assert math.fsum(v * v for v in values.values()) / 3 == pytest.approx(1)
    assert elo_targets([pair("a", "b", 0.5)], Seeds(0)) == {(PROMPT.id, "a"): 0.0, (PROMPT.id, "b"): 0.0}


# ------------------------------------------------------------------------------------------------- units and losses


def loss(comparisons: list[Comparison], scores: dict[str, float], parts: int = 1, **settings: Any) -> float:
    """The loss of comparisons when the texts have these scores, worked out in so many micro-batches."""
    made = Reward(**settings)
    ready = units(split_questions(comparisons, 0.0, Seeds(0))[0], made, Seeds(0))
    weight, total = sum(u.weight for u in ready), 0.0
    for chunk in [ready[i::parts] for i in range(parts)]:
        keys = list(dict.fromkeys(key for u in chunk for key in u.texts))
        table = torch.tensor([scores[text] for _, text in keys], dtype=torch.float64)
        total += loss_of(chunk, {key: i for i, key in enumerate(keys)}, table, made, weight).item()
    return total


SCORES = {"a": 1.0, "b": 0.2, "c": -0.5, "d": 2.0}
MIXED = [*ranked(((0,), (1,), (2,)), ("a", "b", "c")), *ranked(((1,), (0,)), ("a", "d"), "bob"), *ranked(((0, 1),), ("b", "d"))]


@pytest.mark.parametrize(
    "settings",
    [{}, {"ties": "drop"}, {"ties": "davidson"}, {"ties": "rao-kupper", "error_rate": 0.1}, {"batching": "pair"},
     {"loss": "plackett-luce"}, {"loss": "best-of-k", "ties": "drop"}, {"loss": "elo"}, {"error_rate": 0.2}],
)  # fmt: skip
def test_micro_batches_change_no_loss(settings: dict[str, Any]) -> None:
    assert loss(MIXED, SCORES, parts=2, **settings) == pytest.approx(loss(MIXED, SCORES, **settings), abs=1e-12)


def test_pairs_alone_and_pairs_of_questions_add_up_to_the_same() -> None:
    assert loss(MIXED, SCORES, batching="pair") == pytest.approx(loss(MIXED, SCORES), abs=1e-12)
    by_hand = [bradley_terry(*(torch.tensor([SCORES[t]]).double() for t in ts)).loss.item() for ts in ("ab", "ac", "bc", "da")]
    tie = bradley_terry(*(torch.tensor([SCORES[t]]).double() for t in "bd"), torch.tensor([0.5])).loss.item()
    assert loss(MIXED, SCORES) == pytest.approx((sum(by_hand[:3]) / 3 + by_hand[3] + tie) / 3)
    assert loss(MIXED, SCORES, ties="drop") == pytest.approx((sum(by_hand[:3]) / 3 + by_hand[3]) / 2)


def test_stated_strength_and_margin_ask_for_more() -> None:
    mild, strong = pair("a", "b", strength=1), pair("b", "a", strength=4, margin=0.5)
    for c, asked in ((mild, 0.5), (strong, 3.5)):
        gap = SCORES[c.left] - SCORES[c.right]
        found = loss([c], SCORES, strength_margins=(0.5, 1.0, 3.0))
        assert found == pytest.approx(math.log1p(math.exp(asked - gap)))
        assert loss([c.swap()], SCORES, strength_margins=(0.5, 1.0, 3.0)) == pytest.approx(found)
        assert loss([c], SCORES) == pytest.approx(math.log1p(math.exp(c.margin - gap)))


def test_regression_is_on_ratings_and_skips_what_has_none() -> None:
    some = [*rated((1.0, 3.0), ("a", "b")), pair("c", "d")]
    assert loss(some, SCORES, loss="regression") == pytest.approx(((1 - 1) ** 2 + (0.2 - 3) ** 2) / 2)
    own = [*some, *rated((5.0, 5.0), ("c", "d"), "flat")]
    assert loss(own, SCORES, loss="regression", ratings="annotator") == pytest.approx(((1 + 1) ** 2 + (0.2 - 1) ** 2) / 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "plackett-luce", "ties": "davidson"}, "ties 'davidson' is a model of pairs"),
        ({"loss": "elo", "error_rate": 0.1}, "error_rate is about pairs"),
        ({"loss": "regression", "strength_margins": (1.0,)}, "strength_margins are for the loss bradley-terry"),
        ({"ties": "rao-kupper", "strength_margins": (1.0,)}, "strength_margins are for the loss bradley-terry"),
        ({"loss": "best-of-k", "batching": "pair"}, "needs whole questions in a batch"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        units([[pair("a", "b")]], Reward(**settings), Seeds(0))


def test_questions_that_say_nothing_to_a_loss() -> None:
    with pytest.raises(DataError, match="the loss regression needs ratings that differ"):
        units([[pair("a", "b")]], Reward(loss="regression"), Seeds(0))
    with pytest.raises(DataError, match="all 1 are ties, which ties 'drop' leaves out"):
        units([[pair("a", "b", 0.5)]], Reward(ties="drop"), Seeds(0))


def test_what_teaches_nothing_is_left_out_and_counted() -> None:
    said: list[str] = []
    found = sound([pair("a", "a"), pair("a", "b"), pair("b", "c", weight=0.0), pair("b", "b", 0.5)], said.append)
    assert found.kept == [pair("a", "b")]
    assert found.left_out == {"of a text with itself": 2, "of weight 0": 1}
    assert said == ["left out: 2 of a text with itself, 1 of weight 0, of 4 comparisons"]
    assert sound([pair("a", "b")], said.append).left_out == {}
    assert len(said) == 1
    with pytest.raises(DataError, match="left out were 1 of a text with itself"):
        sound([pair("a", "a")])
    with pytest.raises(DataError, match="all 2 comparisons are ties"):
        sound([pair("a", "b", 0.5), pair("b", "c", 0.5)])


# ------------------------------------------------------------------------------------------------------- learning


def opinions(n: int, k: int = 4) -> list[Comparison]:
    """Somebody who ranks, and rates, by the number of z's."""
    draw, made = random.Random(0), []
    for i in range(n):
        texts = tuple("".join(draw.choice("aez") for _ in range(6)) for _ in range(k))
        if len(set(texts)) < k:
            continue
        query = Query(Prompt(f"the film {i}"), texts)
        made += Verdict(query.id, "ann", "rating", scores=tuple(float(t.count("z")) for t in texts)).comparisons(query)
    return made


FIT = Reward(
    batch_size=8, epochs=3.0, holdout=0.2, max_length=48, normalization_samples=60,
    optim=Optim(learning_rate=5e-3, adam_eps=1e-8, adam_eps_convention="torch"),
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{"loss": "plackett-luce"}, {"loss": "best-of-k", "epochs": 6.0}, {"loss": "regression"}, {"loss": "elo"},
     {"ties": "davidson"}, {"ties": "rao-kupper"}, {"error_rate": 0.1}, {"batching": "pair", "batch_size": 32}],
    ids=lambda s: "-".join(map(str, itertools.chain(*s.items()))),
)  # fmt: skip
def test_every_loss_finds_the_taste(settings: dict[str, Any], tmp_path: Path) -> None:
    made = dataclasses.replace(FIT, **settings)
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=48)
    with Run.open(tmp_path / "run", kind="reward", settings=made, quiet=True) as run:
        report = fit_reward(model, opinions(80), made, run, seeds=Seeds(0))
    assert report.accuracy > 0.8


def test_demonstrations_end_at_zero(tmp_path: Path) -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=48)
    shown = [(Prompt("the film"), "zzz"), (Prompt("a cat"), "zaz")]
    made = dataclasses.replace(FIT, epochs=1.0)
    with Run.open(tmp_path / "run", kind="reward", settings=made, quiet=True) as run:
        fit_reward(model, opinions(24), made, run, seeds=Seeds(0), demonstrations=shown)
    assert sum(model([p for p, _ in shown], [t for _, t in shown])) == pytest.approx(0, abs=1e-5)
