"""`instructgpt`: what is varied, how pairs are batched, bars that can fall, and the whole of it at a very small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.experiments import before_and_again, spoilt

from backflip.config import leaves
from backflip.lab import instructgpt
from backflip.lab.instructgpt_settings import PPO, SHARED, Settings, with_beta, with_gamma
from backflip.lab.instructgpt_stages import rankings_of, shuffled
from backflip.policies.tiny import TinyShape, tiny_policy
from backflip.seeds import Seeds
from backflip.settings import Online
from backflip.worlds.reviews import Reviews


def test_each_variant_changes_one_thing() -> None:
    variants = Settings().variants()
    whole = {leaf.dotted: leaf.default for leaf in leaves(Online, variants[PPO])}
    assert whole["kl_coef"] == 0.02, "InstructGPT's β"
    for name, online in variants.items():
        own = {leaf.dotted: leaf.default for leaf in leaves(Online, online)}
        changed = {key: value for key, value in own.items() if value != whole[key]}
        assert len(changed) == (name != PPO), (name, changed)
    assert variants[with_beta(2.0)].kl_coef == 2.0
    assert variants[with_gamma(10.0)].ptx_coef == 10.0
    assert variants[SHARED].critic == "shared"


def test_rankings_are_pairs_that_share_one_weight_and_shuffled_ones_the_same_in_other_batches(tmp_path: Path) -> None:
    settings = Settings(rankings=6, held=3, noise=1e-6)
    corpus = Reviews().corpus(60, Seeds(0))
    tiny_policy(corpus, seeds=Seeds(0), shape=TinyShape(vocab_size=320, hidden_size=32, intermediate_size=88, layers=1, heads=2,
                context=96)).save(tmp_path / "policy")  # fmt: skip
    train, held = rankings_of(settings, tmp_path / "rankings.json", tmp_path / "policy", Seeds(1))
    weights: dict[str, float] = {}
    for pair in train + held:
        weights[pair.query_id] = weights.get(pair.query_id, 0.0) + pair.weight
        assert pair.left != pair.right
        gold = [Reviews().gold(pair.prompt, text) for text in (pair.left, pair.right)]
        assert gold[0] >= gold[1], "annotators almost without noise rank as gold does"
    assert len(weights) == 9
    assert all(weight == pytest.approx(1.0) for weight in weights.values())
    assert not {pair.query_id for pair in train} & {pair.query_id for pair in held}
    again_, _ = rankings_of(settings, tmp_path / "rankings.json", tmp_path / "nowhere", Seeds(1))
    assert again_ == train, "they are asked for once"
    loose, own = shuffled(train, settings)
    assert [(p.left, p.right, p.weight) for p in loose] == [(p.left, p.right, p.weight) for p in train]
    assert not any(p.query_id for p in loose)
    assert own.batch_size / settings.reward.batch_size == pytest.approx(len(train) / 6, rel=0.1)


def test_over_fit_and_tax_by_hand() -> None:
    raw = {"passes": [0.5, 1.5], "train loss": [0.7, 0.3], "held loss": [0.7, 0.8]}
    curve = instructgpt.along(raw, Settings(passes=2, looks=2).grid())
    assert curve["passes"] == [0.5, 1.0, 1.5, 2.0]
    assert curve["held loss"] == pytest.approx([0.7, 0.75, 0.8, 0.8]), "straight between points, level behind them"
    assert instructgpt.gap(curve) == pytest.approx(0.25)
    models = {"base": {"corpus loss": 2.0}, "PPO": {"corpus loss": 2.1}}
    assert instructgpt.tax(models, "PPO") == pytest.approx(0.05)


MODELS = {
    "base": {"gold": -1.0, "corpus loss": 2.0}, "SFT": {"gold": 0.0, "corpus loss": 2.02},
    PPO: {"gold": 2.0, "corpus loss": 2.4}, with_beta(0.0): {"gold": 1.0, "corpus loss": 3.0},
    with_beta(2.0): {"gold": 0.5, "corpus loss": 2.02}, with_gamma(1.0): {"gold": 1.9, "corpus loss": 2.01},
    SHARED: {"gold": 2.0, "corpus loss": 2.4},
}  # fmt: skip
SEED = {
    "models": MODELS, "seconds": {"ppo": 600.0},
    "reward": {
        "all pairs": {"passes": [1.0, 2.0], "train loss": [0.6, 0.5], "held loss": [0.62, 0.6]},
        "shuffled": {"passes": [1.0, 2.0], "train loss": [0.5, 0.2], "held loss": [0.7, 0.9]},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("reward", "shuffled", "held loss"), [0.51, 0.9], "over-fit"),
        (("models", PPO, "gold"), 0.4, "gold gained by PPO"),
        (("models", PPO, "corpus loss"), 2.0, "alignment tax of PPO"),
        (("models", with_gamma(1.0), "corpus loss"), 2.1, "alignment tax of PPO-ptx"),
        (("models", with_gamma(1.0), "gold"), 1.0, "share of PPO's"),
        (("models", with_beta(0.0), "gold"), 2.1, "without a penalty"),
        (("models", with_beta(2.0), "gold"), 2.1, "at the largest"),
        (("seconds", "ppo"), 6000.0, "minutes"),
    ],
)
def test_every_bar_can_be_missed(path: tuple[str, ...], value: float, line: str) -> None:
    settings = Settings(betas=(0.0, 0.02, 2.0), gammas=(1.0,))
    assert all(found.passed for found in instructgpt.judge([SEED], settings))
    missed = [found.name for found in instructgpt.judge([spoilt(SEED, path, value)], settings) if not found.passed]
    assert any(line in name for name in missed), missed


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    instructgpt.run(instructgpt.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["accept"]) == 8
    [seed] = result["figures"]["seeds"]
    assert {"base", "SFT", PPO, SHARED} < set(seed["models"])
    assert set(seed["reward"]) == {"all pairs", "shuffled"}
    assert all(len(curve["passes"]) >= 2 for curve in seed["reward"].values())
    assert "PPO-ptx" in (tmp_path / "tables.md").read_text()
    first, second = before_and_again(
        tmp_path, lambda: instructgpt.run(instructgpt.QUICK, tmp_path, True), "minutes a seed, slowest"
    )
    assert first == second
