"""`reward-models`: its questions and people by hand, its figures, its bars, and the whole of it at a very small size."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backflip.lab import reward_models
from backflip.lab.reward_models_data import Crowd, Pool, games, pairs, rankings, spoilt, truth
from backflip.lab.reward_models_figures import doubling, fall, interval, last, overfit
from backflip.lab.reward_models_settings import People, Settings
from backflip.records import Comparison, Prompt, Query
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews

POOLS = [Pool(Prompt(f"p{i}"), [f"{i}{letter}" for letter in "abcdefghi"]) for i in range(5)]


def test_pairs_go_round_the_prompts_and_use_no_completion_twice() -> None:
    found = pairs(POOLS, 12)
    assert [q.prompt.text for q in found[:6]] == ["p0", "p1", "p2", "p3", "p4", "p0"]
    texts = [text for q in found for text in q.completions]
    assert len(texts) == len(set(texts)) == 24
    assert len(pairs(POOLS, 100)) == 20, "nine completions are four pairs"


def test_rankings_have_four_to_nine_completions() -> None:
    sizes = [len(q.completions) for q in rankings(POOLS * 20, 60, Seeds(0))]
    assert len(sizes) == 60
    assert set(sizes) == {4, 5, 6, 7, 8, 9}
    assert {len(q.completions) for q in rankings(POOLS, 5, Seeds(0), sizes=(4,))} == {4}


@pytest.mark.parametrize("each", [1, 3])
def test_every_completion_plays_as_many_games(each: int) -> None:
    found = games(POOLS, each, Seeds(0))
    played: dict[str, int] = {}
    for query in found:
        for text in query.completions:
            played[text] = played.get(text, 0) + 1
    assert set(played.values()) == {each}
    assert len(played) == 20
    assert len({q.id for q in found}) == len(found), "meeting again is another question"


def test_a_share_of_labels_is_turned_round() -> None:
    told = [Comparison(Prompt("p"), "a", "b", 1.0)] * 2000
    turned = sum(c.p_left == 0.0 for c in spoilt(told, 0.25, Seeds(0))) / 2000
    assert turned == pytest.approx(0.25, abs=0.04)
    assert spoilt(told, 0.0, Seeds(0)) == told


def test_truth_is_golds() -> None:
    value = {"0a": 1.0, "0b": 3.0, "0c": 2.0, "0d": 2.0}
    found = truth([Pool(Prompt("p"), list(value))], lambda prompt, text: value[text])
    assert [(c.left, c.right, c.p_left) for c in found] == [("0a", "0b", 0.0)]


def test_people_rate_on_scales_of_their_own_that_comparing_does_not_know() -> None:
    world = Reviews()
    people = People(number=3, taste_spread=0.0, noise=0.0, temperature=0.0, rating_noise=0.0, rating_step=1e-6)
    crowd = Crowd(world, people, Seeds(0))
    demos = world.demonstrations(240, Seeds(1))
    asked = [Query(p, (text, "Nothing.")) for p, text in demos]
    by_person: dict[str, list[tuple[float, float]]] = {}
    for c in crowd.rate(asked):
        by_person.setdefault(c.annotator, []).append((world.gold(c.prompt, c.left), c.left_rating))  # type: ignore[arg-type]
    lines = {name: np.polyfit(*zip(*rows, strict=True), 1) for name, rows in by_person.items()}
    assert len(lines) == 3
    assert all(slope > 0 for slope, _ in lines.values())
    assert len({round(float(slope), 3) for slope, _ in lines.values()}) == 3
    assert len({round(float(offset), 3) for _, offset in lines.values()}) == 3
    for c in crowd.compare(asked):
        assert c.p_left == float(world.gold(c.prompt, c.left) > world.gold(c.prompt, c.right))
    coarse = Crowd(world, People(rating_step=1.0), Seeds(0)).rate(asked[:9])
    assert all(c.left_rating == round(c.left_rating) for c in coarse)  # type: ignore[arg-type]


def test_figures_by_hand() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.303 / math.sqrt(3)))
    assert mean - low == pytest.approx(high - mean)
    seed = result(0)
    assert overfit(seed) == pytest.approx(0.2)
    assert fall(seed, "as labelled", "single") == pytest.approx(0.5)
    assert last(seed, "as labelled", "worst") == 2.0
    assert doubling(seed["scaling"]["counts"], "comparisons") == pytest.approx(0.1)


def result(seed: int) -> dict[str, Any]:
    """Figures of a seed that meets every bar."""

    def told(accuracy: float, **more: Any) -> dict[str, Any]:
        return {"accuracy": accuracy + seed / 1000, "log loss": 0.5, "n": 100, **more}

    gold = {"single": [0.0, 2.0, 1.5], "mean": [0.0, 1.5, 1.9], "worst": [0.0, 1.5, 2.0], "uncertainty": [0.0, 1.5, 2.0]}
    kinds = ("comparisons", "rankings of four", "raw ratings", "ratings on each person's scale")
    return {
        "seed": seed,
        "overfitting": {
            "rankings": 4, "pairs": 40,
            "question": {"epochs": [0.5, 1.0], "figures": [told(0.6), told(0.7)]},
            "pair": {"epochs": [0.5, 1.0], "figures": [told(0.6), told(0.6) | {"log loss": 0.7}]},
        },
        "scaling": {
            "counts": [told(0.6, comparisons=250, parameters=9), told(0.7, comparisons=500, parameters=9)],
            "sizes": [told(0.6, comparisons=9, parameters=100_000), told(0.7, comparisons=9, parameters=400_000)],
        },
        "feedback": {
            "equal time": {name: told(0.7 - 0.02 * i, comparisons=9) for i, name in enumerate(kinds)},
            "elo": [{"games": g, "bradley-terry": told(0.7), "elo": told(0.6)} for g in (1, 2, 4)],
        },
        "ensembles": {name: {"n": [1, 2, 4], "gold": dict(gold)} for name in ("as labelled", "with label noise")},
        "seconds": {"base models": 60.0},
    }  # fmt: skip


def test_good_seeds_meet_every_bar() -> None:
    assert all(line.passed for line in reward_models.judge([result(0)]))
    assert all(line.passed for line in reward_models.judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("path", "value", "missed"),
    [
        (("overfitting", "pair", "figures", 1, "log loss"), 0.4, "shuffled pairs less all pairs together"),
        (("scaling", "counts", 1, "accuracy"), 0.5, "a doubling of comparisons"),
        (("scaling", "sizes", 1, "accuracy"), 0.5, "a doubling of parameters"),
        (("feedback", "equal time", "raw ratings", "accuracy"), 0.9, "comparisons less raw ratings"),
        (("feedback", "elo", 0, "elo", "accuracy"), 0.9, "less Elo at 1 games"),
        (("ensembles", "as labelled", "gold", "worst"), [0.0, 2.0, 1.0], "lost past its peak by worst, as labelled"),
        (("ensembles", "with label noise", "gold", "single"), [0.0, 1.0, 2.5], "loses past its peak, with label noise"),
        (("seconds", "base models"), 4000.0, "processor minutes"),
    ],
)  # fmt: skip
def test_a_seed_that_is_spoilt_misses_its_bar(path: tuple[Any, ...], value: Any, missed: str) -> None:
    bad = copy.deepcopy(result(0))
    place: Any = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    lines = reward_models.judge([bad])
    assert any(missed in line.name and not line.passed for line in lines)
    assert sum(not line.passed for line in lines) <= 3


def test_settings_name_their_sizes() -> None:
    shape = Settings().tiny("96x3")
    assert (shape.hidden_size, shape.layers) == (96, 3)
    assert Settings().with_members().ensemble.members == 5
    assert Settings().slower("48x2") == Settings().reward
    assert Settings().slower("96x3").optim.learning_rate == pytest.approx(5e-4)
    assert Settings().pretraining("48x2") == Settings().pretrain
    assert Settings().pretraining("176x4").optim.learning_rate == pytest.approx(4e-3 * (48 / 176) ** 0.5)


@pytest.mark.slow
def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    reward_models.run(reward_models.QUICK, tmp_path, True)
    found = json.loads((tmp_path / "result.json").read_text())
    [seed] = found["figures"]["seeds"]
    assert [row["comparisons"] for row in seed["scaling"]["counts"]] == [8, 16]
    assert seed["scaling"]["sizes"][1]["parameters"] > seed["scaling"]["sizes"][0]["parameters"]
    assert set(seed["feedback"]["equal time"]) == {
        "comparisons", "rankings of four", "raw ratings", "ratings on each person's scale",
    }  # fmt: skip
    assert seed["overfitting"]["pair"]["epochs"][-1] <= 2.0
    for gold in seed["ensembles"].values():
        assert gold["n"] == [1, 2, 4, 8]
        assert all(rows[0] == pytest.approx(gold["gold"]["single"][0]) for rows in gold["gold"].values()), (
            "of one there is no best"
        )
    assert "Gold, with label noise" in (tmp_path / "report.html").read_text()
    assert "| games a text |" in (tmp_path / "tables.md").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    reward_models.run(reward_models.QUICK, tmp_path, True)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before
    [again] = json.loads((tmp_path / "result.json").read_text())["figures"]["seeds"]
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in seed.items() if k != "seconds"}
