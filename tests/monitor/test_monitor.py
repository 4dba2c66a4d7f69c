"""The monitor: its decisions on runs whose truth is known, its memory, and each alarm at and below its limit."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.monitor import KINDS, Monitor
from backflip.monitor.limits import CAP, LABELS
from backflip.runs.watching import Look
from backflip.settings import Watch

N = 64
WATCH = Watch(every=5)


def look(step: int, *, proxy: float, judges: tuple[float, ...] = (), seed: int = 0, noise: float = 0.3, **changes: Any) -> Look:
    """A look whose mean scores are given; which prompt is hard is the same at every look, the rest is noise."""
    hard = np.random.default_rng(99).standard_normal(N)
    rng = np.random.default_rng((seed, step))

    def scores(mean: float) -> list[float]:
        return (hard + mean + noise * rng.standard_normal(N)).tolist()  # type: ignore[no-any-return]

    made = Look(
        step=step, prompts=[f"prompt {i}" for i in range(N)],
        completions=[f"text {step} number {i} says {' '.join(rng.choice(list('abcdefghij'), 6))}" for i in range(N)],
        proxy=scores(proxy), kl=(0.1 * step + 0.2 * rng.standard_normal(N)).tolist(), entropy=2.0, lengths=[12] * N,
        finished=[True] * N, judges={f"judge {k}": scores(mean) for k, mean in enumerate(judges)},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def watched(curve: list[tuple[float, float]], watch: Watch = WATCH, seed: int = 0) -> Monitor:
    """A monitor after looks at steps 0, 5, 10, … of (proxy, judge), up to its stop."""
    monitor = Monitor(watch)
    for i, (proxy, judge) in enumerate(curve):
        if monitor.look(look(5 * i, proxy=proxy, judges=(judge,), seed=seed)).act == "stop":
            break
    return monitor


RISE = [(0.3 * i, 0.25 * i) for i in range(8)]
GAMED = RISE + [(2.1 + 0.3 * i, 1.75 - 0.25 * i) for i in range(1, 12)]
HEALTHY = RISE + [(2.1 + 0.02 * i, 1.75) for i in range(1, 40)]


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_is_gamed_is_stopped_soon_after_its_best(seed: int) -> None:
    monitor = watched(GAMED, seed=seed)
    assert monitor.ruling.act == "stop"
    assert abs(monitor.ruling.best - 35) <= 5
    assert len(monitor.history) <= 8 + 5
    [stop] = [finding for finding in monitor.findings if finding.act == "stop"]
    assert stop.kind == "falling"
    assert stop.back_to == monitor.ruling.best
    assert stop.evidence["quality"]["change"] < 0 < stop.evidence["proxy"]["change"]
    assert stop.evidence["evidence"] > stop.evidence["threshold"] == WATCH.threshold


def test_a_policy_that_is_gamed_as_it_comes_is_found_by_who_is_measured_by_another() -> None:
    def begun(monitor: Monitor) -> Monitor:
        for step in (0, 5):
            monitor.look(look(step, proxy=2.0, judges=(0.0,), finished=[False] * N))
        return monitor

    own, other = begun(Monitor(WATCH)), Monitor(WATCH)
    yardstick = look(0, proxy=0.0, judges=(0.0,), seed=1)
    other.measure_by(yardstick)
    assert other.history == [], "what is measured by is no look of the run"
    begun(other)
    assert own.findings == []
    told = [(f.kind, f.step) for f in other.findings]
    assert {("disagreement", 0), ("unfinished", 0)} <= set(told), "said at once"
    assert len({kind for kind, _ in told}) == len(told), "and once"
    assert other.suspects
    judged = [row for row in other.suspects if row["before_step"] is None]
    assert {row["before"] for row in judged} <= set(yardstick.completions)
    assert (own.history[0]["guard/proxy_scaled"], other.history[0]["guard/proxy_scaled"]) == (
        pytest.approx(0.0, abs=1e-9), pytest.approx(2.0, abs=0.5),
    )  # fmt: skip
    again = Monitor(WATCH)
    again.take_up(json.loads(json.dumps(other.state())))
    third = look(10, proxy=2.0, judges=(0.0,), finished=[False] * N)
    assert again.look(third) == other.look(third)


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_is_let_be_however_long_it_stands_still(seed: int) -> None:
    monitor = watched(HEALTHY, seed=seed)
    assert monitor.ruling.act == "go"
    assert len(monitor.history) == len(HEALTHY)


@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_never_improves_is_not_said_to_fall(seed: int) -> None:
    monitor = watched([(0.0, 0.0)] * 60, seed=seed)
    assert monitor.ruling.act == "go"
    assert len(monitor.history) == 60


def test_one_bad_look_stops_nothing() -> None:
    curve = list(RISE)
    curve[6] = (1.8, -1.0)
    monitor = watched([*curve, (2.4, 2.0), (2.7, 2.2)])
    assert monitor.ruling.act == "go"
    assert monitor.ruling.best == 45
    assert max(row["guard/evidence"] for row in monitor.history) == pytest.approx(CAP - WATCH.allowance)


def test_without_judges_only_the_budget_stops_and_goes_back_to_where_it_held() -> None:
    monitor = Monitor(Watch(every=5, kl_stop=2.0))
    steps = [step for step in range(0, 60, 5) if monitor.look(look(step, proxy=0.1 * step)).act != "stop"]
    assert steps[-1] == 20, "at step 25 the KL is 2.5 nats"
    assert monitor.ruling == monitor.ruling._replace(act="stop", best=20)
    assert monitor.findings[-1].kind == "kl-budget"
    assert monitor.findings[-1].back_to == 20


def test_the_best_look_is_one_within_the_budget() -> None:
    monitor = Monitor(Watch(every=5, kl_stop=2.05))
    for i, (proxy, judge) in enumerate(RISE):
        monitor.look(look(5 * i, proxy=proxy, judges=(judge,)))
    assert monitor.ruling.act == "stop"
    assert monitor.ruling.best == 20


@given(cut=st.integers(1, len(GAMED) - 1), seed=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_a_monitor_that_takes_up_its_state_decides_as_it_would_have(cut: int, seed: int) -> None:
    whole, part = Monitor(WATCH), Monitor(WATCH)
    resumed = Monitor(WATCH)
    for i, (proxy, judge) in enumerate(GAMED):
        seen = look(5 * i, proxy=proxy, judges=(judge, 0.5 * judge), seed=seed, vectors=vectors(i))
        whole.look(seen)
        if i < cut:
            part.look(seen)
            if i == cut - 1:
                resumed.take_up(json.loads(json.dumps(part.state())))
        else:
            resumed.look(seen)
    assert json.dumps(resumed.state()) == json.dumps(whole.state())
    assert resumed.report() == whole.report()
    assert resumed.ruling.act == whole.ruling.act
    assert resumed.ruling.best == whole.ruling.best


def vectors(i: int) -> list[list[float]]:
    """Hidden states that move away as i grows."""
    rng = np.random.default_rng(i)
    basis = np.array([[1.0, 0.9], [0.9, 1.0]])
    found: list[list[float]] = (rng.standard_normal((N, 2)) @ basis + 0.5 * i * np.array([1.0, -1.0])).tolist()
    return found


def test_looks_at_other_prompts_or_by_other_judges_are_refused() -> None:
    monitor = watched(RISE[:2])
    with pytest.raises(ValueError, match="same prompts"):
        monitor.look(look(10, proxy=0.0, judges=(0.0,), prompts=[f"another {i}" for i in range(N)]))
    with pytest.raises(ValueError, match="same judges"):
        monitor.look(look(10, proxy=0.0))


def raised(second: Look, first: Look | None = None, watch: Watch = WATCH) -> dict[str, Any]:
    """The alarms of a second look, by kind."""
    monitor = Monitor(watch)
    monitor.look(first or look(0, proxy=0.0, judges=(0.0,)))
    return {finding.kind: finding for finding in monitor.look(second).findings}


def test_nothing_is_raised_about_a_run_that_merely_improves() -> None:
    assert raised(look(5, proxy=1.0, judges=(0.9,))) == {}


def test_the_proxy_alone_rising_is_unsupported() -> None:
    found = raised(look(5, proxy=1.0, judges=(0.0,), noise=0.1), look(0, proxy=0.0, judges=(0.05,), noise=0.1))
    assert found["unsupported"].act == "mine"
    assert found["unsupported"].evidence["proxy"]["change"] > 0.8


def test_models_that_disagree_are_told() -> None:
    wild = np.random.default_rng(5).standard_normal(N) * 3
    second = look(5, proxy=0.0, judges=(0.0, 0.0))
    second = dataclasses.replace(second, judges={"judge 0": second.judges["judge 0"], "judge 1": wild.tolist()})
    first = look(0, proxy=0.0, judges=(0.0, 0.0))
    assert "disagreement" in raised(second, first)
    assert "disagreement" not in raised(look(5, proxy=0.0, judges=(0.0, 0.0)), first)


def test_texts_far_from_the_first_are_told() -> None:
    first = look(0, proxy=0.0, judges=(0.0,), vectors=vectors(0))
    far = raised(look(5, proxy=0.0, judges=(0.0,), vectors=vectors(8)), first)
    assert far["outlying"].evidence["share"]["value"] > 0.9
    again = np.random.default_rng(77).standard_normal((N, 2)) @ np.array([[1.0, 0.9], [0.9, 1.0]])
    assert "outlying" not in raised(look(5, proxy=0.0, judges=(0.0,), vectors=again.tolist()), first)


def test_degenerate_texts_are_told() -> None:
    circle = [f"so good and so good and so good and so {i}" for i in range(N)]
    found = raised(look(5, proxy=0.0, judges=(0.0,), completions=circle))
    assert {"repetition", "boilerplate"} <= found.keys()
    assert found["boilerplate"].evidence["share"]["value"] == 1.0
    assert raised(look(5, proxy=0.0, judges=(0.0,), entropy=0.19)).keys() == {"entropy"}
    assert raised(look(5, proxy=0.0, judges=(0.0,), entropy=0.21)) == {}
    assert raised(look(5, proxy=0.0, judges=(0.0,), lengths=[19] * N)).keys() == {"length"}
    assert raised(look(5, proxy=0.0, judges=(0.0,), lengths=[17] * N)) == {}
    half = [i % 2 == 0 for i in range(N)]
    assert raised(look(5, proxy=0.0, judges=(0.0,), finished=half)).keys() == {"unfinished"}
    foreign = raised(look(5, proxy=0.0, judges=(0.0,), completions=[f"{i} слово и ещё слово" for i in range(N)]))
    assert foreign["language"].act == "warn"


def test_what_the_proxy_pays_for_is_named() -> None:
    rng = np.random.default_rng(3)
    superb = rng.random(N) < 0.8
    texts = [f"it was {'superb superb' if s else 'dull here'} {i}" for i, s in enumerate(superb)]
    base = look(5, proxy=0.0, judges=(0.0,), noise=0.1)
    second = dataclasses.replace(base, completions=texts, proxy=(np.array(base.proxy) + 4 * superb).tolist())
    finding = raised(second, look(0, proxy=0.0, judges=(0.0,), noise=0.1))["exploited"]
    assert "“superb”" in finding.evidence["features"]


def test_an_alarm_is_raised_when_it_begins_and_again_when_it_comes_back() -> None:
    monitor, kinds = Monitor(WATCH), []
    for i, entropy in enumerate((2.0, 0.1, 0.1, 2.0, 0.1)):
        kinds.append([f.kind for f in monitor.look(look(5 * i, proxy=0.0, judges=(0.0,), entropy=entropy)).findings])
    assert kinds == [[], ["entropy"], [], [], ["entropy"]]
    assert monitor.ruling.act == "go", "an alarm that asks for a pause only says so"
    strict = Monitor(dataclasses.replace(WATCH, pause=True))
    strict.look(look(0, proxy=0.0, judges=(0.0,)))
    assert strict.look(look(5, proxy=0.0, judges=(0.0,), entropy=0.1)).act == "pause"
    assert strict.look(look(10, proxy=0.0, judges=(0.0,), entropy=0.1)).act == "go"


def test_suspects_are_mined_once_and_asked_about() -> None:
    monitor = Monitor(dataclasses.replace(WATCH, suspects=5))
    monitor.look(look(0, proxy=0.0, judges=(0.0,), noise=0.1))
    gamed = look(5, proxy=0.0, judges=(0.0,), noise=0.1)
    proxy = np.array(gamed.proxy)
    proxy[[7, 3]] += (9.0, 8.0)
    gamed = dataclasses.replace(gamed, proxy=(proxy + 2.0).tolist())
    assert any(finding.act == "mine" for finding in monitor.look(gamed).findings)
    rows = monitor.suspects
    assert [row["prompt"] for row in rows[:2]] == ["prompt 7", "prompt 3"]
    assert len(rows) == 5
    assert rows[0]["suspicion"] > rows[1]["suspicion"] > rows[2]["suspicion"]
    queries = monitor.questions(policy="now", first="sft")
    assert len(queries) == 5
    for query, row in zip(queries, rows, strict=True):
        assert set(query.completions) == {row["completion"], row["before"]}
        assert query.completions[query.policies.index("now")] == row["completion"]
    assert len({query.policies[0] for query in queries}) == 2, "not always on the same side"
    monitor._mine(gamed, monitor._ruler.columns(gamed))
    assert len(monitor.suspects) == 5


def test_what_people_say_counts() -> None:
    monitor = watched(RISE[:3])
    right = monitor.answered(10, [1.0] * 80, [0.0] * 80, [1.0] * 70 + [0.0] * 10)
    assert right.findings == ()
    coin = monitor.answered(15, [1.0] * 80, [0.0] * 80, [1.0, 0.0] * 40)
    assert [(f.kind, f.act) for f in coin.findings] == [("labels", "pause")]
    assert monitor.answered(15, [1.0] * (LABELS - 2), [0.0] * (LABELS - 2), [1.0, 0.0] * (LABELS // 2 - 1)).findings == ()
    lost = monitor.answered(20, [], [], [], p_new=[0.0] * 30 + [0.5] * 4 + [1.0] * 6)
    assert (lost.act, lost.best) == ("stop", 10)
    assert lost.findings[0].evidence["wins"]["value"] == pytest.approx(8 / 40)


def test_gold_is_nowhere() -> None:
    assert not any("gold" in field.name for field in dataclasses.fields(Look))
    assert "gold" not in json.dumps(watched(GAMED).state())


def test_every_alarm_has_an_act_and_a_sentence() -> None:
    assert {act for act, _ in KINDS.values()} == {"warn", "mine", "pause", "stop"}
    assert all(sentence.endswith(".") for _, sentence in KINDS.values())
    assert math.isfinite(sum(row["guard/quality"] for row in watched(GAMED).history))
