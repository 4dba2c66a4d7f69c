"""`exact`: enumeration agrees with autograd and with what is known by hand, bars are judged by the worst seed, it all runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments import spoilt

from backflip.algorithms import ALGORITHMS
from backflip.lab import exact, exact_sampled, exact_training
from backflip.lab.exact import QUICK, judge, run
from backflip.lab.exact_enumeration import (
    compare,
    estimators,
    every_row,
    exact_gradient,
    exact_values,
    expected_gradient,
    levels,
    prefix_chances,
    rewards_of,
    score_gradients,
    to_go,
    whole,
)
from backflip.lab.exact_limits import point_of_rest
from backflip.lab.exact_methods import BIASES, GOALS, UNBIASED, for_gradients, in_the_world, left, share
from backflip.lab.exact_report import FAMILIES
from backflip.lab.exact_settings import Settings
from backflip.worlds.exact import ExactWorld, TabularLM
from backflip.worlds.exact_text import ExactModel

torch.set_num_threads(1)

BETA = 0.3
WORLD = ExactWorld(vocab=4, length=3, prompts=2)
TABLE = WORLD.reference + 0.4 * torch.randn(WORLD.reference.shape, generator=torch.Generator().manual_seed(1)).double()
MICRO = dataclasses.replace(QUICK, vocab=2, length=2, steps=2, batch_size=16, batches=2, texts=8)


def test_both_levels_have_the_exact_gradient() -> None:
    exactly = exact_gradient(WORLD, TABLE, BETA)
    rewards = rewards_of(WORLD, TABLE, *every_row(WORLD), BETA)
    for weights in (whole(rewards), to_go(rewards)):
        torch.testing.assert_close(expected_gradient(WORLD, TABLE, weights), exactly, rtol=0, atol=1e-12)
    found = levels(WORLD, TABLE, BETA, 0.9)
    assert found["difference"] < 1e-15
    # The score stands on the last of three tokens, so it is worth 0.81, 0.9 and 1 of itself: near 0.91 in all.
    assert 0.85 < found["norm"] < 0.96
    assert 0.99 < found["cosine"] < 0.9999


def test_values_are_what_is_still_to_come() -> None:
    values = exact_values(WORLD, TABLE, BETA)
    torch.testing.assert_close(values[:, 0], WORLD.objective(TABLE, BETA), rtol=0, atol=1e-12)
    # After tokens 1 and 2, prefix 1 + 4 + 1·4 + 2, one token is left: the mean of its score less its own penalty.
    prefix = 1 + 4 + 1 * 4 + 2
    chances, there = TABLE[1, prefix].softmax(0), WORLD.reference[1, prefix].log_softmax(0)
    scores = WORLD.rewards[1, 16 * 1 + 4 * 2 : 16 * 1 + 4 * 2 + 4]
    expected = (chances * (scores - BETA * (chances.log() - there))).sum()
    assert values[1, prefix].item() == pytest.approx(expected.item(), abs=1e-12)


def test_prefixes_of_one_length_share_all_there_is() -> None:
    chances = prefix_chances(WORLD, TABLE)
    for start, end in ((0, 1), (1, 5), (5, 21)):
        torch.testing.assert_close(chances[:, start:end].sum(1), torch.ones(2).double(), rtol=0, atol=1e-12)
    assert chances[0, 1 + 3].item() == pytest.approx(TABLE[0, 0].softmax(0)[3].item(), abs=1e-12)


def test_written_out_gradients_are_those_of_autograd() -> None:
    prompts = torch.arange(12) % 2
    tokens = WORLD.sample(TABLE, prompts, torch.Generator().manual_seed(0)).tokens
    weights = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)).double()
    table = TABLE.clone().requires_grad_()
    found = score_gradients(WORLD, TABLE, prompts, tokens, weights, batches=3)
    for i, rows in enumerate(torch.arange(12).split(4)):
        loss = (weights[rows] * WORLD.logps(table, prompts[rows], tokens[rows])).sum()
        torch.testing.assert_close(found[i], torch.autograd.grad(loss, table)[0], rtol=0, atol=1e-12)


def test_only_a_wrong_critic_and_a_discount_bias_the_credit() -> None:
    exactly = exact_gradient(WORLD, TABLE, BETA)
    for name, weights in estimators(WORLD, TABLE, *every_row(WORLD), BETA).items():
        distance = ((expected_gradient(WORLD, TABLE, weights) - exactly).norm() / exactly.norm()).item()
        assert (distance > 0.01) == ("zeros" in name or "γ" in name), name


def test_a_comparison_tells_bias_from_noise() -> None:
    truth = torch.tensor([3.0, 4.0]).double()
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).double()
    found = compare(truth + noise, truth, rows=8)
    assert abs(found["along"]) < 3
    assert found["spread"] < 1.5
    assert found["cosine"] == pytest.approx(1, abs=0.01)
    assert found["norm"] == pytest.approx(1, abs=0.03)
    assert found["noise"] == pytest.approx(2 * 8 / 25, rel=0.2)
    longer = compare(1.2 * truth + noise, truth, rows=8)
    assert longer["along"] == pytest.approx(20 * 1.0, rel=0.15)  # one unit further, of standard error 1/20
    assert longer["norm"] == pytest.approx(1.2, abs=0.03)
    turned = compare(torch.tensor([4.0, 3.0]).double() + noise, truth, rows=8)
    assert turned["cosine"] == pytest.approx(24 / 25, abs=0.01)
    assert turned["spread"] > 10


def test_every_algorithm_has_its_goal_and_its_place() -> None:
    assert set(GOALS) == set(ALGORITHMS)
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(ALGORITHMS)
    assert set(UNBIASED) | set(BIASES) == set(ALGORITHMS)
    assert all(len(names) <= 6 for names in FAMILIES.values())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_makes_an_algorithm_is_kept(name: str) -> None:
    published, here = ALGORITHMS[name][0], in_the_world(name, Settings())
    for part in (
        "advantage_estimator", "policy_loss", "averaging", "kl_in", "kl_estimator", "gamma", "lam", "cliprange", "cliprange_high",
        "whiten_rewards", "whiten_advantages", "unbiased_variance", "cliprange_value", "vf_coef", "entropy_coef",
    ):  # fmt: skip
        assert getattr(here, part) == getattr(published, part), part
    assert bool(here.kl_coef) == bool(published.kl_coef) == (GOALS[name] != "no penalty")
    assert (here.kl_in == "reward") == (GOALS[name] in ("π*", "pretraining text", "a nucleus")) or not here.kl_coef
    assert for_gradients(name, Settings()).optim.learning_rate == 0


def test_known_factors() -> None:
    settings = Settings()
    assert share(for_gradients("rloo", settings)) == 1
    assert share(for_gradients("a2c", settings)) == 1 / 4
    assert (share(for_gradients("dr-grpo", settings)), left(for_gradients("dr-grpo", settings))) == (1 / 4, 7 / 8)
    assert left(for_gradients("rloo", settings)) == 1


def test_the_point_of_rest_for_single_tokens_is_the_optimum() -> None:
    world = ExactWorld(vocab=5, length=1, prompts=2)
    online = dataclasses.replace(in_the_world("gopher", Settings(length=1)), kl_coef=0.5)
    best = world.optimal(0.5).table
    assert world.kl(world.reference, best).min().item() > 0.3
    assert world.kl(point_of_rest(world, online), best).max().item() < 1e-4
    # Divided by its standard deviation a reward counts for more or less: the optimum of another β.
    scaled = point_of_rest(world, in_the_world("reinforce++-baseline", Settings(length=1)))
    assert world.kl(scaled, best).max().item() > 1e-3


def test_the_real_loop_leaves_its_gradient_behind() -> None:
    settings = dataclasses.replace(Settings(), vocab=3, length=2, batches=40)
    world = settings.world(0)
    table = exact_sampled.displaced(world, settings, 0)
    found = compare(
        exact_sampled.gradients("rloo", world, table, settings, 0), exact_gradient(world, table, settings.beta), rows=64
    )
    assert abs(found["along"]) < 3
    assert found["spread"] < 1.5
    assert found["cosine"] > 0.9


def test_a_model_says_its_states_only_when_asked() -> None:
    world = ExactWorld(vocab=2, length=2, prompts=2)
    model, plain = ExactModel(world), TabularLM(world)
    ids = torch.tensor([[3, 1, 0, model.eos_token_id], [2, 0, 1, model.eos_token_id]])
    assert model(ids).hidden_states == ()
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    codes = model(ids, output_hidden_states=True).hidden_states[0].argmax(-1)
    # Seven states a prompt: nothing, 0, 1, then the complete 00, 01, 10 and 11; the end of the text is where it ended.
    assert codes.tolist() == [[7, 9, 12, 12], [0, 1, 4, 4]]


def result(seed: int = 0) -> dict[str, Any]:
    """What a seed that meets every bar leaves, as far as the bars look."""
    return {
        "seed": seed,
        "gradients": {name: {"along": -1.0, "spread": 1.1} for name in ALGORITHMS},
        "training": {name: {"kl": 0.01 if goal == "π*" else 2.0} for name, goal in GOALS.items()},
        "levels": {"difference": 1e-16},
        "seconds": {"training": 60.0},
    }


def test_a_good_seed_meets_every_bar() -> None:
    assert all(line.passed for line in judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("gradients", "rloo", "along"), -3.1, "unbiased gradients: error along"),
        (("gradients", "remax", "spread"), 1.6, "unbiased gradients: error of all"),
        (("training", "a2c", "kl"), 0.06, "KL"),
        (("levels", "difference"), 1e-3, "token level"),
        (("seconds", "training"), 300.0, "core-minutes"),
    ],
)
def test_one_bad_seed_misses_exactly_its_bar(path: tuple[str, ...], value: float, name: str) -> None:
    bad = spoilt(result(1), path, value)
    missed = [line.name for line in judge([result(0), bad]) if not line.passed]
    assert len(missed) == 1
    assert missed[0].startswith(name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a micro run."""
    folder = tmp_path_factory.mktemp("exact")
    assert not run(MICRO, folder, quiet=True)
    return folder


def test_a_micro_run_leaves_figures_bars_tables_and_a_report(finished: Path) -> None:
    written = json.loads((finished / "result.json").read_text())
    [seed] = written["figures"]["seeds"]
    assert set(written["accept"]) == {line.name for line in judge([seed])}
    assert set(seed["training"]) == set(seed["gradients"]) == set(ALGORITHMS)
    assert seed["world"]["reference"] < seed["training"]["grpo"]["rest"]["reward"] < seed["world"]["best"]
    assert [len(row["curve"]["step"]) for row in seed["training"].values()] == [3] * len(ALGORITHMS)
    assert seed["world"]["reference"] < seed["world"]["optimum"] < seed["world"]["best"]
    tables = (finished / "tables.md").read_text()
    assert tables.count("\n| rloo |") == 2
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables.split("\n\n"))
    page = (finished / "report.html").read_text()
    for words in ("Every algorithm against enumeration", "What a discount of 0.9 does", "reinforce++-baseline"):
        assert words in page


def test_a_finished_run_is_only_told_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((finished / "result.json").read_text())
    monkeypatch.setattr(exact_training, "improve", None)
    monkeypatch.setattr(exact_sampled, "improve", None)
    run(MICRO, finished, quiet=True)
    again = json.loads((finished / "result.json").read_text())
    for written in (before, again):
        del written["figures"]["seeds"][0]["seconds"]
        del written["accept"]["core-minutes, all seeds"]
    assert again == before


def test_a_run_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    whole_run = exact_training.trained(tmp_path / "run", "rloo", MICRO, 0)
    (tmp_path / "run" / "result.json").unlink()
    again = exact_training.trained(tmp_path / "run", "rloo", MICRO, 0)
    assert again == whole_run
    assert len(again["exact/reward"]) == MICRO.steps + 1


def test_the_experiment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from backflip.cli.main import main

    assert main(["lab", "list"]) == 0
    assert exact.TITLE in capsys.readouterr().out
