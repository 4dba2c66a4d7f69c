"""Fresh questions at each look: what is asked, what the answers decide, and that a monitor which asks remembers."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from backflip.errors import ConfigError
from backflip.feedback.labelers import Oracle, opinions
from backflip.monitor import Monitor
from backflip.monitor.asking import votes
from backflip.records import Prompt, Query
from backflip.rounds.watched import check_watching, watching
from backflip.runs.watching import Look
from backflip.seeds import Seeds
from backflip.settings import Watch

N = 48
WATCH = Watch(every=5, prompts=N, questions=32)


def look(step: int, worth: float) -> Look:
    """A look whose texts say what they are worth, give or take what the prompt and the draw do to it."""
    rng = random.Random(step)
    return Look(
        step=step, prompts=[f"prompt {i}" for i in range(N)], completions=[f"{worth + rng.gauss(0, 0.5):.6f}" for _ in range(N)],
        proxy=[0.1 * step + rng.gauss(0, 1) for _ in range(N)], kl=[0.1] * N, entropy=1.0, lengths=[3] * N, finished=[True] * N,
    )  # fmt: skip


def worth(prompt: Prompt, text: str) -> float:
    """What a text says."""
    return float(text)


def people(noise: float = 0.0) -> Callable[[Sequence[Query]], Sequence[float | None]]:
    """People who read it."""
    return partial(opinions, Oracle(worth, seeds=Seeds(3), noise=noise, temperature=0.0))


RISE = [0.0, 0.5, 1.0, 1.5]
FALL = [1.3, 1.0, 0.6, 0.2, -0.4, -1.0]


def shown(curve: Sequence[float], monitor: Monitor) -> Monitor:
    """The monitor after looks of that worth, up to its stop."""
    for i, each in enumerate(curve):
        if monitor.look(look(5 * i, each)).act == "stop":
            break
    return monitor


def test_votes_by_hand() -> None:
    now, best = look(10, 2.0), ["0"] * N
    found = votes(now, best, 5, 16, 0, people())
    assert (found.wins.value, found.wins.n) == (1.0, 16)
    assert found.z == pytest.approx(0.5 * 2 * 4)  # sixteen of sixteen are four standard errors of a coin above half
    assert votes(now, ["9"] * N, 5, 16, 0, people()).z == pytest.approx(-4.0)


def test_the_newer_text_stands_on_either_side_and_in_time_every_prompt_is_asked_about() -> None:
    asked: list[Query] = []

    def left(queries: Sequence[Query]) -> list[float | None]:
        asked.extend(queries)
        return [1.0] * len(queries)

    found = [votes(look(10, 1.0), ["0"] * N, 5, 16, turn, left) for turn in range(3)]
    assert {query.prompt.text for query in asked} == {f"prompt {i}" for i in range(N)}
    first = sum(query.policies == ("step 10", "step 5") for query in asked)
    assert 0 < first < N
    assert sum(each.wins.value * each.wins.n for each in found if each.wins.value is not None) == pytest.approx(first)


def test_nobody_is_asked_about_two_texts_that_are_the_same() -> None:
    now = look(10, 1.0)
    found = votes(now, now.completions, 5, 16, 0, lambda queries: [1.0 for _ in queries if pytest.fail("asked")])
    assert (found.wins.value, found.z) == (0.5, 0.0)


def test_what_nobody_answered_does_not_count() -> None:
    assert votes(look(10, 1.0), ["0"] * N, 5, 16, 0, lambda queries: [None] * len(queries)).wins.n == 0
    half = votes(look(10, 1.0), ["0"] * N, 5, 16, 0, lambda q: [a if i % 2 else None for i, a in enumerate(people()(q))])
    assert (half.wins.value, half.wins.n) == (1.0, 8)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_fall_is_stopped_and_the_run_goes_back_to_the_best(noise: float) -> None:
    monitor = shown([*RISE, *FALL], Monitor(WATCH, people(noise)))
    assert (monitor.ruling.act, monitor.ruling.best) == ("stop", 15)
    [finding] = [f for f in monitor.findings if f.act == "stop"]
    assert (finding.kind, finding.back_to) == ("losing", 15)
    assert "the policy of step 15 was preferred" in finding.sentence
    assert monitor.history[3]["guard/preferred"] > 0.6
    assert "guard/preferred" not in monitor.history[0]


def test_a_rise_and_a_plateau_are_left_alone() -> None:
    monitor = shown([*RISE, *[1.5] * 20], Monitor(WATCH, people(0.1)))
    assert monitor.ruling.act == "go"
    assert [f for f in monitor.findings if f.act == "stop"] == []


def test_answers_outweigh_judges_who_like_the_fall() -> None:
    def judged(i: int, each: float) -> Look:
        return dataclasses.replace(look(5 * i, each), judges={"judge": [float(i)] * N})

    monitor = Monitor(WATCH, people())
    acts = [monitor.look(judged(i, each)).act for i, each in enumerate([*RISE, *FALL])]
    assert acts[-1] == "stop"
    assert monitor.ruling.best == 15
    alone = Monitor(WATCH)
    assert {alone.look(judged(i, each)).act for i, each in enumerate([*RISE, *FALL])} == {"go"}


def test_a_policy_beyond_the_budget_is_never_the_best() -> None:
    far = Monitor(dataclasses.replace(WATCH, kl_stop=1.0), people())
    for i, each in enumerate(RISE):
        far.look(dataclasses.replace(look(5 * i, each), kl=[0.1 + i] * N))
    assert far.ruling.best == 0


def test_a_monitor_that_was_stopped_in_between_decides_the_same() -> None:
    curve = [*RISE, *FALL]
    whole = shown(curve, Monitor(WATCH, people(0.1)))
    halves = shown(curve[:6], Monitor(WATCH, people(0.1)))
    again = Monitor(WATCH, people(0.1))
    again.take_up(json.loads(json.dumps(halves.state())))
    for i, each in enumerate(curve[6:], 6):
        if again.look(look(5 * i, each)).act == "stop":
            break
    assert again.state() == whole.state()


def test_questions_without_anybody_who_answers_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs somebody who answers at once"):
        watching(WATCH, [Prompt("a")])
    with pytest.raises(ConfigError, match=r"asked after a round by train\.verify"):
        check_watching(WATCH, None)
    check_watching(dataclasses.replace(WATCH, every=0), None)
    labeler = Oracle(worth, seeds=Seeds(0), noise=0.0, temperature=0.0)
    check_watching(WATCH, labeler)
    watched = watching(WATCH, [Prompt("a")], labeler=labeler)
    assert watched is not None
    assert isinstance(watched.guard, Monitor)
    assert watched.guard.ask is not None
