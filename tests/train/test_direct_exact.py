"""The real loop in an exact world, where the minimiser of each loss can be written down."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from backflip.lab.exact_training import exact_policy
from backflip.maths.preference import dpo
from backflip.records import Comparison
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Direct, Optim
from backflip.train import direct as direct_loop
from backflip.train.direct import direct
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import prompts_of

torch.set_num_threads(1)

BETA = 0.5
SETTINGS = Direct(
    beta=BETA, epochs=400, batch_size=2, holdout=0.0, save_every=10_000, log_every=50, sample_prompts=0,
    optim=Optim(
        learning_rate=0.2, adam_betas=(0.9, 0.99), adam_eps=1e-8, adam_eps_convention="torch", max_grad_norm=None
    ),
)  # fmt: skip


def every_pair(world: ExactWorld, p_left: Any = None) -> list[Comparison]:
    """All pairs of responses to each prompt, one question a prompt; beliefs σ(r_i − r_j) unless given."""
    texts = ["".join(str(int(token)) for token in row) for row in world.sequences]
    made = []
    for number, prompt in enumerate(prompts_of(world)):
        for i, j in itertools.combinations(range(world.n_sequences), 2):
            gap = world.rewards[number, i] - world.rewards[number, j]
            belief = torch.sigmoid(gap).item() if p_left is None else p_left
            made.append(Comparison(prompt, texts[i], texts[j], p_left=belief, query_id=prompt.plain))
    return made


def learned(
    folder: Path, world: ExactWorld, comparisons: list[Comparison], **changes: Any
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The table that `direct` ends with, and the lines it logged."""
    policy = exact_policy(world)
    settings = dataclasses.replace(SETTINGS, **changes)
    with Run.open(folder, kind="dpo", settings=settings, quiet=True) as run:
        direct(policy, comparisons, settings, run, seeds=Seeds(0))
    return policy.model.table.detach(), read_lines(folder / "metrics.jsonl")


def log_ratio(world: ExactWorld, table: torch.Tensor) -> torch.Tensor:
    """log π/π_ref of every sequence, (P, S), each prompt's mean taken off."""
    gap = world.sequence_logps(table) - world.sequence_logps(world.reference)
    return gap - gap.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(("seed", "beta"), [(0, 0.5), (1, 0.5), (2, 1.0)])
def test_with_all_there_is_to_know_dpo_ends_at_the_optimum_of_rlhf(seed: int, beta: float, tmp_path: Path) -> None:
    # Rafailov et al. 2023, theorem 1: with every pair and p = σ(r_i − r_j) the minimiser is π_ref exp(r/β) / Z.
    world = ExactWorld(vocab=3, length=2, prompts=2, seed=seed)
    best = world.optimal(beta).table
    assert world.kl(world.reference, best).max().item() > 0.2
    table, lines = learned(tmp_path, world, every_pair(world), beta=beta)
    assert world.kl(table, best).max().item() < 1e-6
    assert lines[-1]["rewards/accuracies"] == 1.0
    # The implicit reward is the true one up to a constant of the prompt.
    centred = world.rewards - world.rewards.mean(dim=1, keepdim=True)
    torch.testing.assert_close(beta * log_ratio(world, table), centred, rtol=0, atol=1e-3)


@pytest.mark.parametrize("fault", ["loss", "sides", "reference"])
def test_a_flipped_sign_anywhere_does_not_end_there(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(left: Any, right: Any, ref_left: Any, ref_right: Any, **options: Any) -> Any:
        if fault == "sides":
            left, right = right, left
        if fault == "reference":
            ref_left, ref_right = -ref_left, -ref_right
        found = dpo(left, right, ref_left, ref_right, **options)
        return found._replace(loss=-found.loss) if fault == "loss" else found

    world = ExactWorld(vocab=3, length=2, prompts=2)
    monkeypatch.setattr(direct_loop, "dpo", broken)
    table, _ = learned(tmp_path, world, every_pair(world), epochs=150)
    assert world.kl(table, world.optimal(BETA).table).max().item() > 0.1


@pytest.mark.parametrize("averaged", [False, True, None])
def test_ipo_ends_where_its_squares_balance(averaged: bool | None, tmp_path: Path) -> None:
    # Least squares: with every pair of S completions a_i − mean(a) is the mean over j of (2 p_ij − 1)/2β, p_ii = ½.
    world = ExactWorld(vocab=3, length=2, prompts=2)
    table, _ = learned(tmp_path, world, every_pair(world), loss="ipo", length_normalized=averaged)
    gaps = world.rewards.unsqueeze(2) - world.rewards.unsqueeze(1)
    expected = ((2 * gaps.sigmoid() - 1) / (2 * BETA)).mean(dim=2)
    tokens = 1 if averaged is False else world.length + 1  # the end of the text is a token too
    torch.testing.assert_close(log_ratio(world, table), expected * tokens, rtol=0, atol=1e-3)


@pytest.mark.parametrize("p_left", [1.0, 0.8, 0.0])
def test_ipo_stops_at_its_fixed_point_for_a_single_pair(p_left: float, tmp_path: Path) -> None:
    world = ExactWorld(vocab=2, length=1, prompts=1)
    table, lines = learned(tmp_path, world, every_pair(world, p_left), loss="ipo", length_normalized=False)
    h = log_ratio(world, table)[0, 0] - log_ratio(world, table)[0, 1]
    assert h.item() == pytest.approx((2 * p_left - 1) / (2 * BETA), abs=1e-3)
    assert lines[-1]["rewards/margins"] == pytest.approx(abs(2 * p_left - 1) / 2, abs=1e-3)


def test_certain_answers_carry_dpo_away_and_ipo_stays(tmp_path: Path) -> None:
    world = ExactWorld(vocab=2, length=1, prompts=1)
    constant = dataclasses.replace(SETTINGS.optim, lr_schedule="constant")
    margins = {}
    for loss in ("dpo", "ipo"):
        for epochs in (200, 800):
            _, lines = learned(
                tmp_path / f"{loss}{epochs}", world, every_pair(world, 1.0), loss=loss, epochs=epochs, optim=constant,
                length_normalized=False,
            )  # fmt: skip
            margins[loss, epochs] = lines[-1]["rewards/margins"] / BETA
    # Log-ratios in nats: DPO's grow as the logarithm of the updates, without end; IPO's goal is 1/2β = 1.
    assert margins["dpo", 200] > 5.0
    assert margins["dpo", 800] > margins["dpo", 200] + 2.0
    assert margins["ipo", 200] == pytest.approx(1 / (2 * BETA), abs=0.01)
    assert margins["ipo", 800] == pytest.approx(1 / (2 * BETA), abs=0.01)


def test_label_smoothing_holds_dpo_at_the_log_odds_of_a_right_answer(tmp_path: Path) -> None:
    # With p' = (1−ε)p + ε(1−p) the minimum is at βh = log p'/(1−p'), whether p is certain or soft.
    world = ExactWorld(vocab=2, length=1, prompts=1)
    for number, (p, noise) in enumerate([(1.0, 0.1), (0.7, 0.2), (0.2, 0.3)]):
        table, _ = learned(tmp_path / str(number), world, every_pair(world, p), label_smoothing=noise)
        h = log_ratio(world, table)[0, 0] - log_ratio(world, table)[0, 1]
        mixed = torch.tensor((1 - noise) * p + noise * (1 - p), dtype=torch.float64)
        assert (BETA * h).item() == pytest.approx(torch.logit(mixed).item(), abs=2e-3), (p, noise)
