"""The real PPO loop in a world whose optimum is known, and with each of its signs flipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backflip.lab.exact_training import exact_policy
from backflip.maths import policy_losses, returns
from backflip.maths.kl import kl_penalty
from backflip.maths.policy_losses import ppo_clip
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online, Optim, Sampling
from backflip.train import online
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import gold_of, prompts_of

torch.set_num_threads(1)

BETA = 0.5
SETTINGS = Online(
    steps=50, batch_size=256, ppo_epochs=2, num_minibatches=4, vf_coef=1.0, kl_coef=BETA, kl_controller="fixed",
    whiten_rewards=False, missing_penalty=None, save_every=1000,
    sampling=Sampling(max_new_tokens=4, temperature=1.0),
    optim=Optim(learning_rate=0.05, micro_batch_size=256, adam_eps=1e-8, adam_eps_convention="torch"),
)  # fmt: skip


def learned(
    folder: Path, world: ExactWorld, *, seed: int = 0, reward_sign: float = 1.0, **changes: Any
) -> tuple[torch.Tensor, dict[str, float]]:
    """The table that `improve` ends with, and its last metrics."""
    policy = exact_policy(world)
    settings = dataclasses.replace(SETTINGS, **changes)
    with Run.open(folder / "run", kind="ppo", settings=settings, quiet=True) as run:
        metrics = online.improve(
            policy,
            prompts_of(world),
            gold_of(world, reward_sign),
            settings,
            run,
            seeds=Seeds(seed),
            gold=gold_of(world),
        )
    return policy.model.table.detach(), metrics


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (0, {}),
        (1, {"averaging": "seq-mean-token-mean"}),
        (2, {"num_generations": 8, "averaging": "seq-mean-token-sum"}),
        (3, {"whiten_rewards": True, "lam": 1.0}),
        (4, {"ppo_epochs": 1, "num_minibatches": 8, "cliprange_value": None, "unbiased_variance": True}),
    ],
)
def test_ppo_ends_at_the_optimum(seed: int, changes: dict[str, Any], tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2, seed=seed)
    best = world.optimal(BETA).table
    assert world.kl(world.reference, best).min().item() > 0.5
    table, metrics = learned(tmp_path, world, seed=seed, **changes)
    assert world.kl(table, best).max().item() < 0.05
    # What the run says of itself is what the world knows: every text ends, and its KL and gold are the true ones.
    assert metrics["rollout/unfinished_share"] == 0
    assert metrics["kl/seq_nats"] == pytest.approx(world.kl(table, world.reference).mean().item(), abs=0.3)
    assert metrics["objective/gold"] == pytest.approx(world.expected_reward(table).mean().item(), abs=0.3)


def flipped_kl(*arguments: Any) -> Any:
    return -kl_penalty(*arguments)


def swapped_kl(logp: Any, ref_logp: Any, kind: Any) -> Any:
    return kl_penalty(ref_logp, logp, kind)


def flipped_score(*arguments: Any) -> Any:
    return -returns.place_scores(*arguments)


def flipped_loss(*arguments: Any, **options: Any) -> Any:
    found = ppo_clip(*arguments, **options)
    return found._replace(loss=-found.loss)


@pytest.mark.parametrize(
    ("room", "name", "fault"),
    [
        (online, "kl_penalty", flipped_kl),
        (online, "kl_penalty", swapped_kl),
        (online, "place_scores", flipped_score),
        (policy_losses, "ppo_clip", flipped_loss),
    ],
)
def test_a_flipped_sign_anywhere_does_not_end_there(
    room: Any, name: str, fault: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    monkeypatch.setattr(room, name, fault)
    table, _ = learned(tmp_path, world, steps=25)
    assert world.kl(table, world.optimal(BETA).table).min().item() > 0.5


def test_the_opposite_reward_leads_to_the_opposite_optimum(tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    table, metrics = learned(tmp_path, world, reward_sign=-1.0)
    assert world.kl(table, world.optimal(BETA).table).min().item() > 0.5
    assert metrics["objective/gold"] < world.expected_reward(world.reference).mean().item() - 0.5
    assert metrics["objective/scores"] == pytest.approx(-metrics["objective/gold"], rel=1e-5)


def test_the_adaptive_controller_holds_the_kl_at_its_target(tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    target = 0.5 * world.kl(world.optimal(BETA).table, world.reference).mean().item()
    constant = dataclasses.replace(SETTINGS.optim, lr_schedule="constant")
    learned(tmp_path, world, steps=60, kl_controller="adaptive", kl_target=target, kl_horizon=1024, optim=constant)
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    late = [row["kl/seq_nats"] for row in rows[30:]]
    assert sum(late) / len(late) == pytest.approx(target, rel=0.1)
    # β had to rise: at the β it started from, the optimum is twice as far from the reference.
    assert rows[0]["objective/kl_coef"] == BETA
    assert rows[-1]["objective/kl_coef"] > 1.2 * BETA


def test_without_reward_or_penalty_nothing_is_learned(tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    table, metrics = learned(tmp_path, world, reward_sign=0.0, kl_coef=0.0, whiten_advantages=False, steps=5)
    torch.testing.assert_close(table, world.reference, rtol=0, atol=1e-12)
    assert metrics["grad_norm"] < 1e-6
