"""What must hold while training: each invariant broken on purpose, and what is not finite skipped, counted and stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, make_trainer, small_ppo, tiny, vowels

from backflip.errors import NonFiniteError, NumericsError
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online
from backflip.train import online
from backflip.train.invariants import Invariants

torch.set_num_threads(1)

LOGPS = torch.tensor([[-1.0, -2.0, 0.5], [-0.5, -1.0, -3.0]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_each_broken_invariant_stops_with_its_usual_cause() -> None:
    held = Invariants()
    held.rollout(LOGPS, MASK, MASK, 3)
    held.divergence(LOGPS, LOGPS - 0.1, MASK)
    held.first_ratio(torch.full((2, 3), 1e-6), MASK, exact=True)
    held.group_means(torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, -1.0]]), MASK, 2)
    held.same_reference("a", "a")
    assert held.sampler(LOGPS, LOGPS, MASK, exact=True)["rollout/token_mult_prob_error"] == pytest.approx(1.0)
    assert held.metrics() == {"invariants/checked": 9.0, "invariants/warned": 0.0}
    broken: list[tuple[str, Callable[[], object]]] = [
        ("above 0; the usual cause is a sampler", lambda: held.rollout(LOGPS, torch.ones_like(MASK), MASK, 3)),
        ("1 tokens that were not sampled", lambda: held.rollout(-LOGPS.abs(), MASK, torch.ones_like(MASK), 3)),
        ("has 3 tokens where 2 are the most", lambda: held.rollout(-LOGPS.abs(), MASK, MASK, 2)),
        (
            "by 0.65 at one token; the usual cause is dropout",
            lambda: held.first_ratio(torch.full((2, 3), 0.5), MASK, exact=False),
        ),
        ("off 1 by nan", lambda: held.first_ratio(torch.full((2, 3), math.nan), MASK, exact=True)),
        ("have mean 1 where 0 is right", lambda: held.group_means(torch.ones(2, 3), MASK, 2)),
        ("the reference model changed", lambda: held.same_reference("a", "b")),
        ("the sampler and the scorer disagree", lambda: held.sampler(LOGPS, LOGPS + 0.01, MASK, exact=True)),
        ("the sampler and the scorer disagree", lambda: held.sampler(LOGPS, LOGPS + 0.2, MASK, exact=False)),
    ]
    for sentence, breaking in broken:
        with pytest.raises(NumericsError, match=sentence):
            breaking()


def test_one_token_may_be_as_far_off_as_float32_is() -> None:
    mask, log_ratio = torch.ones(64, 10, dtype=torch.long), torch.zeros(64, 10)
    log_ratio[3, 4] = 5e-4
    Invariants().first_ratio(log_ratio, mask, exact=True)
    log_ratio[3, 4] = 0.02
    with pytest.raises(NumericsError, match=r"by 3\.2e-05 on average, by 0\.02 at one token"):
        Invariants().first_ratio(log_ratio, mask, exact=True)
    Invariants().first_ratio(log_ratio, mask, exact=False)
    with pytest.raises(NumericsError, match=r"by 0\.0002 on average"):
        Invariants().first_ratio(torch.full((64, 10), 2e-4), mask, exact=True)


def test_what_is_unlikely_is_counted_and_said_once() -> None:
    said: list[str] = []
    watched = Invariants(said.append)
    sure = torch.full((64, 3), -1.0) + 0.01 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(64, 3, dtype=torch.long)
    for _ in range(3):
        watched.divergence(sure, sure + 0.5, mask)
        watched.sampler(sure, sure + 0.07, mask, exact=False)
    assert watched.warned == 6
    assert len(said) == 2
    assert "below 0 by more than chance" in said[0]
    assert "set sampling.precision to model" in said[1]


def run_of(folder: Path, reward: Any, settings: Online, **options: Any) -> list[dict[str, Any]]:
    with Run.open(folder / "run", kind="x", settings=settings, quiet=True) as run:
        online.improve(tiny(), PROMPTS, reward, settings, run, seeds=Seeds(0), **options)
    return list(read_lines(folder / "run" / "metrics.jsonl"))


def bad_at(*calls: int) -> Any:
    """A reward that is not a number the k-th time it is asked."""
    asked = [0]

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        asked[0] += 1
        scores = vowels(prompts, completions)
        return [math.nan, *scores[1:]] if asked[0] in calls else scores

    return reward


def test_a_step_with_a_reward_that_is_no_number_is_skipped_and_counted(tmp_path: Path) -> None:
    settings = small_ppo(steps=4, max_skipped=2)
    rows = run_of(tmp_path, bad_at(1, 3), settings)
    assert [row["invariants/skipped_steps"] for row in rows] == [1, 1, 2, 2]
    assert "objective/scores" not in rows[0], "nothing is known of a first step that was skipped"
    assert math.isfinite(rows[3]["objective/scores"])


def test_too_many_skipped_steps_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match=r"step 3: .*nan.*steps skipped for such reasons: 2"):
        run_of(tmp_path, bad_at(1, 2, 3), small_ppo(steps=4, max_skipped=2))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = online.policy_loss
    calls = [0]

    def exploding(*arguments: Any) -> Any:
        calls[0] += 1
        found = honest(*arguments)
        return found._replace(loss=found.loss * torch.inf) if calls[0] == 1 else found

    monkeypatch.setattr(online, "policy_loss", exploding)
    before = {name: p.detach().clone() for name, p in tiny().model.named_parameters()}
    settings, policy = small_ppo(steps=1, ppo_epochs=1, micro_batch_size=64), tiny()
    with (
        Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run,
        pytest.raises(NumericsError, match="nothing was changed"),
    ):
        online.improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0))
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())


def test_a_reference_that_learns_too_is_noticed(tmp_path: Path) -> None:
    policy = tiny()
    shared = dataclasses.replace(small_ppo(steps=1))
    with (
        Run.open(tmp_path / "run", kind="x", settings=shared, quiet=True) as run,
        pytest.raises(NumericsError, match="the reference model changed"),
    ):
        online.improve(policy, PROMPTS, vowels, shared, run, seeds=Seeds(0), reference=policy)


def test_groups_out_of_order_are_noticed() -> None:
    trainer = make_trainer(
        small_ppo(num_generations=4, advantage_estimator="grpo", whiten_rewards=False, ppo_epochs=1, temperature=1.0)
    )
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)._replace(scores_B=torch.arange(8.0).square())
    trainer.penalize(rollout, judged)
    honest = online.critic_free_advantages

    def shuffled(s: Any, rewards: Any, groups: Any, *rest: Any) -> Any:
        return honest(s, rewards, groups.roll(2), *rest)

    online.critic_free_advantages = shuffled  # type: ignore[assignment]
    try:
        with pytest.raises(NumericsError, match="groups that are not"):
            trainer.penalize(rollout, judged)
    finally:
        online.critic_free_advantages = honest


def test_errors_that_are_no_accident_are_not_skipped(tmp_path: Path) -> None:
    def short(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [0.0]

    with pytest.raises(NumericsError) as caught:
        run_of(tmp_path, short, small_ppo(steps=2))
    assert not isinstance(caught.value, NonFiniteError)
