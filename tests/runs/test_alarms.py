"""Alarms: each kind is raised by the log it is for, by no single point, and by none of a healthy run."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.config import to_dict
from backflip.runs import Run, catalogue, limits, trends
from backflip.runs.alarms import KINDS, Alarm, alarms, of_run, repeated_share
from backflip.runs.trends import mean, trend
from backflip.settings import Online

N = 60
SETTINGS = to_dict(Online(kl_target=4.0))
WHITE = [float(x) for x in np.random.default_rng(5).normal(size=N)]
Rows = list[dict[str, Any]]


def healthy(n: int = N, seed: int = 0) -> Rows:
    """What a PPO run logs that does what it should."""
    rng = np.random.default_rng(seed)
    x = 1 - np.exp(-np.arange(n) / 15)
    noise = rng.normal(size=(n, 12))
    return [
        {
            "step": i + 1,
            "objective/scores": 1.5 * x[i] + 0.1 * noise[i, 0],
            "objective/gold": 0.9 * x[i] + 0.1 * noise[i, 1],
            "objective/sentinel": 1.2 * x[i] + 0.1 * noise[i, 2],
            "kl/seq_nats": 4 * x[i] + 0.3 * noise[i, 3],
            "objective/entropy": 1.0 - 0.3 * x[i] + 0.02 * noise[i, 4],
            "rollout/length": 30 + 4 * x[i] + noise[i, 5],
            "rollout/unfinished_share": 0.05 + 0.01 * abs(noise[i, 6]),
            "group/zero_std_share": 0.3 + 0.05 * noise[i, 7],
            "policy/clipfrac_avg": 0.08 + 0.02 * noise[i, 8],
            "val/ratio": 1 + 0.003 * noise[i, 9],
            "val/ratio_max_error": 0.8 + 0.2 * abs(noise[i, 10]),
            "loss/value_avg": 2.0 - x[i] + 0.2 * noise[i, 11],
        }
        for i in range(n)
    ]


def texts(n: int = N, seed: int = 0) -> Rows:
    """Samples of that run: words in no order, rewards around the step's mean."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(400)]
    rows = healthy(n)
    return [
        {
            "step": step,
            "prompt": "p",
            "completion": " ".join(rng.choice(words, 40)),
            "proxy": rows[step - 1]["objective/scores"] + float(rng.normal()),
        }
        for step in range(1, n + 1, 5)
        for _ in range(4)
    ]


def changed(name: str, value: Callable[[int, float], float], rows: Rows | None = None) -> Rows:
    """The healthy log with one metric changed: `value(i, what it was)`."""
    return [row | {name: value(i, row[name])} for i, row in enumerate(rows or healthy())]


def falling(_: int, gold: float) -> float:
    return -2 * gold


SICK: dict[str, tuple[Rows, Rows, str, str]] = {
    # kind: rows, samples, level, action
    "gold falls": (changed("objective/gold", falling), [], "error", "pause"),
    "sentinel falls": (changed("objective/sentinel", falling), [], "error", "pause"),
    "gold flat": (changed("objective/gold", lambda i, g: 0.1 * WHITE[i]), [], "warn", "label"),
    "kl over": (changed("kl/seq_nats", lambda i, k: 2 * k), [], "warn", "pause"),
    "kl far over": (changed("kl/seq_nats", lambda i, k: 5 * k), [], "error", "pause"),
    "kl negative": (changed("kl/seq_nats", lambda i, k: -0.5 - 0.1 * math.sin(i)), [], "error", "pause"),
    "longer": (changed("rollout/length", lambda i, n: n * (1 + i / N)), [], "warn", "label"),
    "shorter": (changed("rollout/length", lambda i, n: n * (1 - 0.7 * i / N)), [], "warn", "label"),
    "entropy low": (changed("objective/entropy", lambda i, h: h * math.exp(-i / 30)), [], "warn", "pause"),
    "entropy gone": (changed("objective/entropy", lambda i, h: h * math.exp(-i / 8)), [], "error", "pause"),
    "unfinished": (changed("rollout/unfinished_share", lambda i, s: min(1.0, s + i / N / 2)), [], "warn", "label"),
    "repetition": (
        healthy(),
        [row | {"completion": "very good and " * 12} if row["step"] > 30 else row for row in texts()],
        "warn",
        "label",
    ),
    "groups": (changed("group/zero_std_share", lambda i, s: 0.85 + 0.01 * math.sin(i)), [], "warn", "none"),
    "all equal": (changed("group/zero_std_share", lambda i, s: 1.0), [], "error", "pause"),
    "clipped": (changed("policy/clipfrac_avg", lambda i, c: 0.4 + 0.01 * math.sin(i)), [], "warn", "pause"),
    "mostly clipped": (changed("policy/clipfrac_avg", lambda i, c: 0.8), [], "error", "pause"),
    "ratio": (changed("val/ratio", lambda i, r: 1.3 * r), [], "error", "pause"),
    "ratio low": (changed("val/ratio", lambda i, r: 0.7 * r), [], "error", "pause"),
    "largest ratio": (changed("val/ratio_max_error", lambda i, r: 20 * r), [], "warn", "none"),
    "value loss": (changed("loss/value_avg", lambda i, v: v * (30 if i >= N - 3 else 1)), [], "warn", "pause"),
    "value burst": (changed("loss/value_avg", lambda i, v: v * (1e4 if i >= N - 4 else 1)), [], "error", "pause"),
    "reward jump": (changed("objective/scores", lambda i, r: r + (40 if i == N - 2 else 0)), [], "warn", "label"),
    "outliers": (
        healthy(),
        [row | ({"proxy": 100.0} if i % 9 == 0 else {}) for i, row in enumerate(texts())],
        "warn",
        "label",
    ),
    "nan": (changed("loss/value_avg", lambda i, v: math.nan if i == 20 else v), [], "error", "pause"),
    "infinite": (changed("objective/scores", lambda i, v: -math.inf if i == 20 else v), [], "error", "pause"),
}
KIND_OF = {
    "gold falls": "overoptimised", "sentinel falls": "overoptimised", "gold flat": "overoptimised", "kl over": "kl-budget",
    "kl far over": "kl-budget", "kl negative": "kl-negative", "longer": "length", "shorter": "length",
    "entropy low": "entropy", "entropy gone": "entropy", "unfinished": "unfinished", "repetition": "repetition",
    "groups": "equal-groups", "all equal": "equal-groups", "clipped": "clipping", "mostly clipped": "clipping",
    "ratio": "ratio", "ratio low": "ratio", "largest ratio": "ratio", "value loss": "value-loss",
    "value burst": "value-loss", "reward jump": "reward-outliers", "outliers": "reward-outliers", "nan": "not-finite",
    "infinite": "not-finite",
}  # fmt: skip


@pytest.mark.parametrize("sickness", SICK)
def test_each_sickness_has_its_alarm_and_no_other(sickness: str) -> None:
    rows, samples, level, action = SICK[sickness]
    found = alarms(rows, SETTINGS, samples=samples)
    assert [(a.kind, a.level, a.action) for a in found] == [(KIND_OF[sickness], level, action)]
    [alarm] = found
    assert alarm.step == (21 if alarm.kind == "not-finite" else N)
    assert set(alarm.evidence) <= set(rows[0]) | {"samples"}
    assert alarm.evidence
    assert re.search(r"\d|not a finite", alarm.sentence)
    assert alarm == alarms(rows, SETTINGS, samples=samples)[0], "the same rows give the same alarm"
    assert alarms(rows, {"train": SETTINGS, "policy": "tiny"}, samples=samples) == found or alarm.kind == "not-finite"


def test_every_kind_is_raised_by_some_log() -> None:
    assert {*KIND_OF.values(), "silent"} == set(KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_raises_none_at_any_moment(seed: int) -> None:
    rows, samples = healthy(seed=seed), texts(seed=seed)
    found = [alarms(rows[:n], SETTINGS, samples=[s for s in samples if s["step"] <= n]) for n in range(N + 1)]
    assert [a for each in found for a in each] == []


@pytest.mark.parametrize("sickness", [s for s in SICK if KIND_OF[s] not in ("not-finite", "reward-outliers")])
def test_no_single_step_raises_an_alarm(sickness: str) -> None:
    sick, well = SICK[sickness][0], healthy()
    for place in (20, N - 1):
        rows = [*well[:place], sick[-1] | {"step": place + 1}, *well[place + 1 :]]
        # A step that differs in its reward as well may be told as an outlier of reward, which it is.
        assert [a.kind for a in alarms(rows, SETTINGS) if a.kind != "reward-outliers"] == []


def test_a_metric_that_is_not_logged_says_nothing() -> None:
    for name in healthy(1)[0]:
        if name != "step":
            rows = [{k: v for k, v in row.items() if k != name} for row in healthy()]
            assert alarms(rows, SETTINGS) == []
    assert alarms([], SETTINGS) == alarms([{"step": 3}], {}) == []
    assert alarms([{"step": i, "loss/sft": 1 / i, "kl/seq_nats": "x", "val/ratio": None} for i in range(1, 50)], {}) == []


def test_a_budget_is_one_only_where_a_controller_keeps_it() -> None:
    far = SICK["kl far over"][0]
    assert alarms(far, SETTINGS | {"kl_controller": "fixed"}) == alarms(far, {}) == []


def test_rounding_and_a_young_kl_are_not_negative() -> None:
    assert alarms(changed("kl/seq_nats", lambda i, k: -1e-6), SETTINGS) == []
    assert alarms(changed("kl/seq_nats", lambda i, k: 0.3 * math.sin(2.4 * i)), SETTINGS) == []


def test_a_proxy_and_gold_on_other_scales_are_compared_all_the_same() -> None:
    assert alarms(changed("objective/gold", lambda i, g: g / 1000), SETTINGS) == []
    flat = changed("objective/gold", lambda i, g: 1000 * WHITE[i])
    assert [a.kind for a in alarms(flat, SETTINGS)] == ["overoptimised"]
    assert [a.level for a in alarms(changed("objective/gold", lambda i, g: 0.5), SETTINGS)] == ["warn"]


def test_a_policy_that_has_learned_what_there_is_is_not_gamed() -> None:
    rng = np.random.default_rng(3)
    still = [row | {"objective/scores": 1 + rng.normal() / 10, "objective/gold": rng.normal() / 10} for row in healthy()]
    assert alarms(still, SETTINGS) == []


def test_grades_have_no_outliers() -> None:
    graded = [row | {"proxy": float(i % 9 == 0)} for i, row in enumerate(texts())]
    assert alarms(changed("objective/scores", lambda i, r: 0.11 + 0.01 * math.sin(i)), SETTINGS, samples=graded) == []


def test_silence_is_measured_by_the_runs_own_pace() -> None:
    rows = healthy(3)

    def after(seconds: float, interval: float | None = 100.0) -> list[Alarm]:
        return alarms(rows, SETTINGS, now=1_000_000.0 + seconds, last_write=1_000_000.0, interval=interval)

    assert after(299) == after(1e9, None) == after(50, 0.1) == []
    assert [(a.kind, a.level, a.step) for a in after(301)] == [("silent", "warn", 3)]
    assert "no heartbeat since 1970-01-12 13:46:40 UTC" in after(301)[0].sentence
    assert after(1001)[0].level == after(201, 0.1)[0].level == "error"
    assert after(61, 0.1)[0].level == "warn"
    assert alarms(rows, SETTINGS, now=5.0) == []
    assert [a.kind for a in alarms([], {}, now=1e6, last_write=0.0, interval=1.0)] == ["silent"]


ANY = st.one_of(st.floats(), st.integers(), st.sampled_from([0.0, 1.0, 1e308, -1e308, 5e-324]), st.text(max_size=2), st.none())


@given(st.lists(ANY, min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 1 << 30), st.lists(st.text(), min_size=1))
def test_no_log_makes_the_alarms_fail(values: list[Any], n: int, seed: int, words: list[str]) -> None:
    rng = np.random.default_rng(seed)
    rows = [{name: values[rng.integers(len(values))] for name in healthy(1)[0]} | {"step": i} for i in range(n)]
    samples = [{"step": i // 4, "completion": words[i % len(words)] * 20, "proxy": values[i % len(values)]} for i in range(n)]
    for settings in (SETTINGS, {"train": None}, {"kl_target": "x", "kl_controller": "adaptive"}):
        found = alarms(rows, settings, samples=samples)
        assert json.dumps([dataclasses.asdict(a) for a in found], allow_nan=False)


def test_the_gravest_comes_first_and_all_of_it_can_be_sent() -> None:
    rows = changed("policy/clipfrac_avg", lambda i, c: 0.4, SICK["kl far over"][0])
    rows = changed("loss/value_avg", lambda i, v: v if i else math.nan, rows)
    found = alarms(rows, SETTINGS)
    assert [a.level for a in found] == ["error", "error", "warn"]
    assert json.dumps([dataclasses.asdict(a) for a in found], allow_nan=False)


def test_of_run_reads_the_folder_and_knows_when_nobody_runs(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", kind="ppo", settings={"train": SETTINGS}, quiet=True) as run:
        for row in SICK["kl far over"][0]:
            run.log(row["step"], {k: v for k, v in row.items() if k != "step"})
            run.time(row["step"], {"rollout": 1.0})
        run.samples(1, [{"prompt": "p", "completion": "a b c d e f g h"}])
        card = catalogue.lookup(tmp_path, "r")
        assert card.last_write is not None
        later = card.last_write + 1e6
        assert [a.kind for a in of_run(card)] == ["kl-budget"]
        assert sorted(a.kind for a in of_run(card, now=later)) == ["kl-budget", "silent"]
    assert [a.kind for a in of_run(catalogue.lookup(tmp_path, "r"), now=later)] == ["kl-budget"]


def test_the_mean_and_its_interval_by_hand() -> None:
    assert mean([2.0]) == (2.0, 2.0, 2.0, 0.0)
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(3 / math.sqrt(3))
    with pytest.raises(ValueError, match="no mean of no values"):
        mean([])


def test_the_trend_is_that_of_least_squares_and_covers_the_truth() -> None:
    assert trend([1.0] * 15) is None
    straight = trend([0.5 * i for i in range(21)])
    assert straight is not None
    assert straight.value == pytest.approx(10)
    assert straight.low == pytest.approx(10)
    uneven = [(i * 37 % 11) / 10 for i in range(30)]
    found = trend(uneven)
    assert found is not None
    assert found.value == pytest.approx(29 * np.polyfit(range(30), uneven, 1)[0])
    assert found.noise == pytest.approx(math.sqrt(np.polyfit(range(30), uneven, 2, full=True)[1][0] / 27))
    odd = trend([*WHITE[:-1], 1e6])
    assert odd is not None
    assert odd == pytest.approx(trend([*WHITE[:-1], 0.0]), abs=0.5)
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        errors = rng.normal(size=40)
        for i in range(1, 40):
            errors[i] += 0.5 * errors[i - 1]  # neighbouring steps are alike
        values = [0.05 * i + e for i, e in enumerate(errors)]
        found = trend(values)
        assert found is not None
        missed += not found.low < 39 * 0.05 < found.high
    assert missed <= 9, "three standard errors should miss about one time in a hundred, for a short log"


def test_a_long_log_is_as_quick_to_judge_and_judged_alike() -> None:
    rng = np.random.default_rng(1)
    values = [i / 1000 + float(e) for i, e in enumerate(rng.normal(size=10_000))]
    found = trend(values)
    assert found is not None
    assert found.low < 10 < found.high
    assert found.high - found.low < 1
    n = 3000
    slow = changed("objective/scores", lambda i, r: r + i / n, healthy(n))
    slow = changed("objective/sentinel", lambda i, r: r + 0.5 * i / n, slow)
    gone = changed("objective/gold", lambda i, g: g - i / n, slow)
    assert alarms(changed("objective/gold", lambda i, g: g + 0.5 * i / n, slow), SETTINGS) == []
    assert [(a.kind, a.level) for a in alarms(gone, SETTINGS)] == [("overoptimised", "error")]


def test_repetition_is_told_from_prose_in_any_script() -> None:
    prose = "the film was long but the plot held and nobody in the hall looked at the clock before the lights came up again"
    assert repeated_share(prose) == 0
    assert repeated_share("so good and " * 10) == pytest.approx(1 - 3 / 28)
    assert repeated_share("这部电影的情节非常紧凑演员的表现也很出色我会向朋友推荐它因为它让人思考") == 0
    looped = repeated_share("非常好看" * 12)
    assert looped is not None
    assert looped > 0.8
    assert repeated_share("") is repeated_share("a b c d") is None


def test_the_page_tells_every_kind_and_every_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8").split("## Alarms")[1]
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", page, flags=re.MULTILINE))
    assert told == KINDS
    told_limits = {name: float(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| ([\d.e]+) \|", page, flags=re.MULTILINE)}
    named = {name: value for name, value in (vars(limits) | vars(trends)).items() if name.isupper()}
    assert told_limits == {name: float(value) for name, value in named.items() if isinstance(value, int | float)}
