"""`overoptimisation`: what is read off runs by hand, its bars, and the whole of it at a very small size."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import before_and_again

from backflip.lab import overoptimisation
from backflip.lab.guard_recorder import Seen
from backflip.lab.overoptimisation_figures import (
    Unit,
    adversarial,
    at_equal_distance,
    beside,
    best_of,
    by_distance,
    in_own_units,
    looked,
    reinforced,
    told_apart,
    told_by_form,
    under_rules,
)
from backflip.lab.overoptimisation_settings import BANDS, Settings
from backflip.maths.overoptimisation import BON, RL
from backflip.runs.watching import Look

NONE = Unit(0.0, 1.0)


def seen(step: int, prompts: str, gold: list[float], proxy: list[float], kl: float = 0.0) -> Seen:
    """A look of one-letter prompts, each text named after its place."""
    n = len(gold)
    look = Look(
        step=step, prompts=list(prompts), completions=[f"text {i}" for i in range(n)], proxy=proxy, kl=[kl] * n, entropy=1.0,
        lengths=[2] * n, finished=[True] * n,
    )  # fmt: skip
    return Seen(look, gold)


def test_best_of_two_by_hand() -> None:
    # Of the pairs of 1, 2, 3, 4 by proxy the larger is 4 in three of six, 3 in two, 2 in one.
    proxy, gold = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 6.0, 3.0, -6.0]])
    curve = best_of(proxy, gold)
    assert curve["n"] == [1.0, 2.0, 4.0]
    assert curve["gold"] == pytest.approx([0.75, (3 * -6 + 2 * 3 + 6) / 6, -6.0])
    assert curve["proxy"] == pytest.approx([2.5, (12 + 6 + 2) / 6, 4.0])
    assert curve["distance"] == pytest.approx([0.0, math.sqrt(math.log(2) - 0.5), math.sqrt(math.log(4) - 0.75)])


def test_a_form_is_found_again_and_what_it_promises_too_much() -> None:
    d = [math.sqrt(math.log(n) - (n - 1) / n) for n in (1, 2, 4, 8, 16)]
    curve = {"n": [1.0, 2.0, 4.0, 8.0, 16.0], "distance": d, "gold": BON(d, 1.0, 0.25).tolist()}
    whole = told_by_form(curve, 8)
    assert (whole["alpha"], whole["beta"], whole["r2"], whole["miss"]) == pytest.approx((1.0, 0.25, 1.0, 0.0))
    curve["gold"][-1] -= 0.5
    cliff = told_by_form(curve, 8)
    assert (cliff["alpha near"], cliff["beta near"], cliff["miss"]) == pytest.approx((1.0, 0.25, 0.5))
    assert cliff["r2"] < 1


def test_an_ensemble_sees_what_one_member_is_fooled_by() -> None:
    gold = np.array([[0.0, 1.0, 2.0, -9.0]])
    members = np.array([[[0.0, 1.0, 2.0, 9.0]], [[0.0, 1.0, 2.0, -9.0]]])
    found = under_rules(members, gold, 1.0)
    assert found["worst"][-1] == 2.0
    assert found["uncertainty"][-1] == 2.0
    assert found["one member"][-1] == pytest.approx((-9 + 2) / 2)
    assert found["mean"][-1] == 2.0
    assert all(curve[0] == pytest.approx(gold.mean()) for curve in found.values())


def test_members_come_in_units_of_their_own() -> None:
    scores = np.array([[[1.0, 3.0]], [[100.0, 500.0]], [[7.1, 7.1]]])
    assert in_own_units(scores).tolist() == [[[-1.0, 1.0]], [[-1.0, 1.0]], [[0.0, 0.0]]]


def test_pairs_of_one_prompt_that_differ_in_gold_are_told_apart() -> None:
    # a: gold 1 > 0 and the proxy agrees; b: gold 2 > 1 is turned round, 2 > 0 is a tie, 1 > 0 agrees; c has but one text.
    look = seen(0, "aabbbc", [1.0, 0.0, 2.0, 1.0, 0.0, 5.0], [9.0, 8.0, 1.0, 2.0, 1.0, 0.0])
    assert told_apart(look) == (2.5, 4)
    assert told_apart(seen(0, "aa", [1.0, 1.0], [0.0, 1.0])) == (0.0, 0)


def test_bands_of_kl() -> None:
    curves = [
        {"kl": [0.0, 1.9, 2.0, 60.0], "right": [3.0, 3.0, 1.0, 0.0], "pairs": [4.0, 4.0, 2.0, 0.0]},
        {"kl": [-0.1, 3.0], "right": [2.0, 1.0], "pairs": [4.0, 2.0]},
    ]
    assert by_distance(curves) == [8 / 12, 2 / 4, None, None, None, None]
    assert len(BANDS) == 6


def test_a_run_in_the_first_policys_units() -> None:
    looks = [seen(0, "aa", [1.0, 3.0], [0.0, 0.0]), seen(3, "aa", [5.0, 5.0], [1.0, 3.0], kl=4.0)]
    curve = looked(looks, Unit(2.0, 2.0), Unit(0.0, 0.5))
    assert curve["step"] == [0.0, 3.0]
    assert curve["gold"] == [0.0, 1.5]
    assert curve["proxy"] == [0.0, 4.0]
    assert curve["distance"] == [0.0, 2.0]


def test_the_form_of_reinforcement_and_the_peak() -> None:
    d = [0.0, 1.0, 2.0, 4.0]
    curve = {"distance": d, "gold": RL(d, 1.0, 0.7).tolist(), "step": [0.0, 3.0, 6.0, 9.0], "kl": [x * x for x in d]}
    found = reinforced(curve, 50.0)
    assert (found["alpha"], found["beta"], found["r2"]) == pytest.approx((1.0, 0.7, 1.0))
    assert found["peak step"] == 6.0
    assert found["peak kl"] == 4.0
    assert found["end"] == pytest.approx(4 * (1 - 0.7 * math.log(4)))
    floor = {
        **curve,
        "distance": [*d, 9.0],
        "gold": [*curve["gold"], -1.0],
        "step": [*curve["step"], 12.0],
        "kl": [*curve["kl"], 81.0],
    }
    assert reinforced(floor, 50.0)["r2"] == pytest.approx(1.0), "what lies further off is not fitted"
    assert reinforced(floor, 50.0)["r2 whole"] < 1
    assert reinforced(floor, 0.5)["r2"] == reinforced(floor, 0.5)["r2 whole"]


def test_a_penalty_is_compared_at_equal_kl() -> None:
    free = {"kl": [0.0, 2.0, 1.5, 4.0], "gold": [0.0, 2.0, 2.0, 0.0], "proxy": [0.0, 2.0, 2.0, 4.0]}
    held = {"kl": [0.0, 1.0, 3.0, 9.0], "gold": [0.0, 1.5, 1.0, 7.0], "proxy": [0.0, 1.5, 4.0, 7.0]}
    found = beside(held, free)
    assert found["gold"] == pytest.approx((0.5 + 0.0) / 2), "the look at 9 nats is beyond where the free run came"
    assert found["gap"] == pytest.approx(((0.5 - 0.5) + (1.0 - 0.0)) / 2)
    assert found["stopped early"] == 0.0
    assert beside({"kl": [0.0], "gold": [0.0], "proxy": [0.0]}, free)["gold"] == 0.0


def test_the_mean_at_equal_distance_is_not_that_at_equal_steps() -> None:
    slow = {"distance": [0.0, 1.0, 2.0], "gold": [0.0, 1.0, 0.0]}
    quick = {"distance": [0.0, 2.0, 1.5, 4.0], "gold": [0.0, 0.0, 9.0, -4.0]}
    found = at_equal_distance([slow, quick], far=100.0, points=5)
    assert found["distance"] == [0.0, 0.5, 1.0, 1.5, 2.0], "as far as both came"
    assert found["gold"][:4] == pytest.approx([0.0, 0.25, 0.5, 0.25])
    assert at_equal_distance([slow, quick], far=1.0, points=3)["distance"] == [0.0, 0.5, 1.0]
    assert at_equal_distance([slow], far=9.0, points=3) == {"distance": [0.0, 1.0, 2.0], "gold": [0.0, 1.0, 0.0]}


def test_a_run_beside_itself_differs_in_nothing() -> None:
    run = {"kl": [0.0, 2.0, 5.0, 9.0], "gold": [0.0, 1.0, 0.5, -1.0], "proxy": [0.0, 1.0, 2.0, 3.0]}
    found = beside(run, run)
    assert (found["gold"], found["gap"]) == (0.0, 0.0)
    assert found["stopped early"] == found["end"]


def test_the_texts_the_proxy_likes_best_each_once() -> None:
    look = seen(9, "aab", [1.0, 2.0, 3.0], [0.5, 2.0, 1.0], kl=7.0)
    look.look.completions[2] = "text 1"  # type: ignore[index]
    found = adversarial(look, 5, Unit(1.0, 2.0), NONE)
    assert [row["text"] for row in found] == ["text 1", "text 0"]
    assert found[0] == {"prompt": "a", "text": "text 1", "proxy": 2.0, "gold": 0.5, "kl": 7.0}
    assert len(adversarial(look, 1, NONE, NONE)) == 1


def made(gold_end: float, betas: dict[str, float], right: list[float | None]) -> dict[str, Any]:
    """The figures of a seed whose bars are known."""

    def proxy(name: str) -> dict[str, Any]:
        form = {"beta": betas[name], "r2": 0.95, "miss": 0.1}
        return {"curve": {"n": [1.0, 2.0, 4.0], **gold}, "form": form}

    gold = {"distance": [0.0, 1.0, 2.0], "gold": [0.0, 1.0, gold_end]}  # which either form goes through
    ds, beta = [0.0, 0.5, 1.0, 1.5, 2.0], (1 - gold_end / 2) / math.log(2)
    way = [d * (1 - beta * math.log(d or 1)) for d in ds]
    free = {
        "curve": {"step": [3 * d for d in ds], "kl": [d * d for d in ds], "distance": ds, "gold": way}, "form": {"r2": 0.92},
    }  # fmt: skip
    return {
        "proxies": {name: proxy(name) for name in betas}, "runs": {"16, β = 0": free, "64, β = 0": free}, "right": right,
        "seconds": {"all": 60.0},
    }  # fmt: skip


SMALL = dataclasses.replace(Settings(), sizes=(16, 64), counts=(250, 1000))
BETAS = {"16-250": 0.4, "16-1000": 0.3, "64-250": 0.2, "64-1000": 0.1}


def test_bars_by_hand() -> None:
    lines = overoptimisation.judge([made(0.4, BETAS, [0.8, 0.7, None, 0.6, None, None])], SMALL)
    values = [line.value for line in lines]
    assert values == pytest.approx(
        [1.0, 0.6] * 5 + [1.0, 1.0] + [*values[12:14], 0.95, 0.95, 0.92, 0.1, 0.05, 0.1, -0.1, -0.2, 1.0]
    )
    assert values[12] > 0.9, "straight lines between points that the form goes through"
    assert all(line.passed for line in lines)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (
            {"gold_end": 1.5},
            [
                "best of n, proxy of width 16: gold lost",
                "PPO, proxy of width 16: gold lost",
                "best of n, proxy of width 64 and 250 comparisons: gold lost",
            ],
        ),
        ({"betas": {**BETAS, "64-250": 0.9, "64-1000": 0.8}}, ["β of best of n: falls, with each doubling of the width"]),
        ({"right": [0.7, 0.8, None, None, None, None]}, ["proxy right: largest rise", "proxy right: change"]),
    ],
)
def test_bars_are_missed_by_what_they_forbid(change: dict[str, Any], missed: list[str]) -> None:
    good: dict[str, Any] = {"gold_end": 0.4, "betas": BETAS, "right": [0.8, 0.7, None, None, None, None]}
    lines = overoptimisation.judge([made(**{**good, **change})], SMALL)
    found = [line.name for line in lines if not line.passed]
    assert len(found) == len(missed)
    assert all(name.startswith(start) for name, start in zip(found, missed, strict=True))


def test_a_fall_that_not_all_seeds_share_is_not_sure() -> None:
    seeds = [made(end, BETAS, [0.8, 0.7, None, None, None, None]) for end in (0.4, 0.99, 0.2)]
    lost = next(line for line in overoptimisation.judge(seeds, SMALL) if "gold lost" in line.name)
    assert lost.value == pytest.approx((0.6 + 0.01 + 0.8) / 3)
    assert not lost.passed


def test_one_place_is_the_peak_of_all_seeds() -> None:
    one, other = {"gold": [0.0, 1.0, 0.0]}, {"gold": [0.0, 0.5, 0.7]}
    assert [overoptimisation.fall(c, [one, other]) for c in (one, other)] == pytest.approx([1.0, -0.2])
    assert [overoptimisation.rise(c, [one, other]) for c in (one, other)] == [1.0, 0.5]


def test_the_largest_proxy_may_hold() -> None:
    lines = overoptimisation.judge([made(1.5, BETAS, [0.8, 0.7, None, None, None, None])], SMALL)
    [lost] = [line for line in lines if line.name.startswith("best of n, proxy of width 64: gold lost")]
    assert (lost.value, lost.bar, lost.passed) == (0.0, "reported, 0 to 0", True)


def test_how_many_proxies_of_a_kind_have_comparisons_of_their_own() -> None:
    s = Settings()
    assert [s.independent(n) for n in s.counts] == [4, 4, 1]
    assert [dataclasses.replace(s, repeats=20).independent(n) for n in (100, 150, 600, 1000, 2400)] == [20, 16, 4, 2, 1]


def test_sizes_and_penalties_that_are_run() -> None:
    s = Settings()
    assert s.runs() == [(16, 0.0), (48, 0.0), (128, 0.0), (48, 0.02), (48, 0.06), (48, 0.2)]
    assert s.middle == 600
    assert s.penalised(0.2) == dataclasses.replace(s.ppo, kl_coef=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run."""
    folder = tmp_path_factory.mktemp("overoptimisation")
    overoptimisation.run(overoptimisation.QUICK, folder, True)
    return folder


def test_the_whole_of_it(folder: Path) -> None:
    [seed] = json.loads((folder / "result.json").read_text())["figures"]["seeds"]
    quick = overoptimisation.QUICK
    assert list(seed["proxies"]) == ["8-20", "8-40", "16-20", "16-40"]
    for proxy in seed["proxies"].values():
        assert proxy["curve"]["n"] == [1.0, 2.0, 4.0, 8.0, 16.0]
        assert proxy["curve"]["proxy"] == sorted(proxy["curve"]["proxy"]), "the best of more is never worse by the proxy"
        assert proxy["curve"]["gold"][0] == pytest.approx(0.0, abs=1e-9)
    assert list(seed["runs"]) == ["8, β = 0", "16, β = 0", "16, β = 0.1"]
    for run in seed["runs"].values():
        assert run["curve"]["step"] == [0.0, 2.0, 4.0]
        assert all(math.isfinite(v) for values in run["curve"].values() for v in values)
        assert 1 <= len(run["texts"]) <= quick.texts
    assert run["curve"]["kl"][0] == pytest.approx(0.0, abs=1e-3)
    assert list(seed["ensemble"]) == ["one member", "mean", "worst", "uncertainty"]
    pool = json.loads((folder / "seed0" / "pool.json").read_text())
    assert (len(pool["texts"]), len(pool["texts"][0])) == (quick.prompts, quick.samples)
    look = json.loads((folder / "seed0" / "ppo-16-40-0" / "looks" / "000002.json").read_text())
    assert look["prompts"] == pool["prompts"] * 2
    assert "| 8 | 20 |" in (folder / "tables.md").read_text()
    assert "Gold while a proxy is optimised" in (folder / "report.html").read_text()


def test_what_is_finished_is_only_told_again_and_what_is_missing_made_again(folder: Path) -> None:
    def again() -> None:
        overoptimisation.run(overoptimisation.QUICK, folder, True)

    written = {p: p.stat().st_mtime_ns for p in folder.rglob("*.jsonl")}
    first, second = before_and_again(folder, again, "minutes in all")
    assert first == second
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.jsonl")} == written
    (folder / "seed0" / "scores" / "proxy16-40.json").unlink()
    _, third = before_and_again(folder, again, "minutes in all")
    assert third == first
