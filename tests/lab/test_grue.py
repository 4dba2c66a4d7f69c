"""`grue`: its rewards by hand, what it compares, and the whole of it at a very small size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.lab import grue
from backflip.lab.grue_settings import TITLES, Settings
from backflip.lab.grue_tasks import TASKS, increasing, warmth
from backflip.seeds import Seeds


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 0.0), ("07", 0.1), ("0708091011", 0.5), ("01020304050607080910", 1.0), ("0102030405060708091000", 10 / 11),
     ("0505", 0.1), ("1", 0.0), ("050", 0.1)],
)  # fmt: skip
def test_increasing_numbers_by_hand(text: str, value: float) -> None:
    assert increasing(text) == pytest.approx(value)


@given(st.lists(st.integers(0, 49), max_size=24))
def test_only_the_beginning_counts_and_nothing_earns_more_than_one(numbers: list[int]) -> None:
    text = "".join(f"{n:02d}" for n in numbers)
    run = next((i for i in range(1, len(numbers)) if numbers[i] <= numbers[i - 1]), len(numbers))
    assert increasing(text) == run / max(10, len(numbers)) <= 1


def test_warmth_counts_words_and_not_sense() -> None:
    assert warmth("Ann is a superb film. The food is great and the bed is awful. I will tell my friends.") == 0.5
    assert warmth("warn my friends") == -0.25, "a word inside another is not heard twice"
    assert warmth("great " * 9) == 1.0
    assert warmth("no") == 0.0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_can_be_learned_and_is_not_yet(task: Any) -> None:
    rows = task.corpus(200, Seeds(0))
    assert rows == task.corpus(200, Seeds(0)) != task.corpus(200, Seeds(1))
    values = task.reward([p.plain for p, _ in rows], [text for _, text in rows])
    assert max(values) > sum(values) / len(values) + 0.2
    assert sum(values) / len(values) < 0.5
    assert len(task.prompts(5, Seeds(0), True)) == 5


def test_every_algorithm_draws_as_many_samples() -> None:
    runs = Settings().runs(24)
    assert list(runs) == list(TITLES)
    assert {(r.steps, r.batch_size, r.sampling.max_new_tokens) for r in runs.values()} == {(40, 64, 24)}
    assert {name: r.kl_coef > 0 for name, r in runs.items()} == {name: not name.endswith("-free") for name in runs}
    assert [name for name, r in runs.items() if r.mask_top_p is not None] == ["nlpo", "nlpo-free"]
    assert (runs["trpo"].policy_loss, runs["a2c"].policy_loss) == ("trpo", "reinforce")


def run_of(*points: tuple[float, float]) -> dict[str, dict[str, float]]:
    """A run that was measured after 0, 10, 20, … steps: (reward, log-perplexity) each."""
    return {str(10 * i): {"reward": reward, "perplexity": math.exp(nats)} for i, (reward, nats) in enumerate(points)}


def test_naturalness_is_compared_at_equal_reward() -> None:
    ppo, nlpo = run_of((0, 1), (0.5, 2), (1.0, 3)), run_of((0, 1), (0.8, 1.4))
    assert grue.at_reward(ppo, 0.75) == pytest.approx(2.5)
    assert grue.at_reward(ppo, 1.5) is None
    seed = {"tasks": {"numbers": {"ppo-free": ppo, "nlpo-free": nlpo}}}
    # Nine tenths of the way to 0.8 is 0.72: PPO passes it at 1 + 0.72·2, NLPO at 1 + 0.9·0.4.
    assert grue.equal_reward(seed, "numbers") == pytest.approx((1 + 0.36) - (1 + 1.44))


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    grue.run(grue.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["accept"]) == 3 * len(TASKS) + 1
    [seed] = result["figures"]["seeds"]
    for task in TASKS:
        runs = seed["tasks"][task.name]
        assert list(runs) == list(TITLES)
        assert all(list(run) == ["0", "2"] and run["2"]["perplexity"] > 1 for run in runs.values())
        assert all(run["0"] == runs["ppo"]["0"] | {"shown": run["0"]["shown"]} for run in runs.values())
        assert abs(runs["ppo"]["0"]["kl/seq_nats"]) < 1e-3
    written = (tmp_path / "report.html").read_text()
    assert "NLPO without KL" in written
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    grue.run(grue.QUICK, tmp_path, True)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before
    [told] = json.loads((tmp_path / "result.json").read_text())["figures"]["seeds"]
    assert told["tasks"] == seed["tasks"]
