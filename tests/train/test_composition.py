"""The methods of the family: each ends where theory says in a world whose optimum is known, and parts that clash are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, gradients, make_trainer, nothing, small_ppo, tiny, vowels

from backflip.algorithms import ALGORITHMS, GRPO, RLOO
from backflip.errors import ConfigError
from backflip.lab.exact_training import exact_policy
from backflip.maths.advantages import group_normalized
from backflip.maths.kl import k3
from backflip.maths.tensors import keep
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online, Optim, Sampling
from backflip.train.composition import GROUPED, check, title
from backflip.train.critic import RewardCritic
from backflip.train.online import Trainer, improve
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import gold_of, prompts_of

torch.set_num_threads(1)

BETA = 0.5
EXACT: dict[str, Any] = {
    "steps": 80, "batch_size": 256, "ppo_epochs": 1, "num_minibatches": 1, "kl_coef": BETA, "kl_controller": "fixed",
    "whiten_rewards": False, "whiten_advantages": False, "missing_penalty": None, "save_every": 1000,
    "averaging": "seq-mean-token-sum", "sampling": Sampling(max_new_tokens=4, temperature=1.0),
    "optim": Optim(learning_rate=0.12, micro_batch_size=1024, adam_eps=1e-8, adam_eps_convention="torch"),
}  # fmt: skip
FREE = {"critic": "none", "num_generations": 8}

METHODS: dict[str, dict[str, Any]] = {
    "reinforce": {"critic": "none", "advantage_estimator": "return", "policy_loss": "reinforce", "batch_size": 1024},
    "a2c": {"policy_loss": "reinforce", "vf_coef": 1.0, "averaging": "token-mean", "lam": 1.0},
    "reinforce with a baseline": {
        "critic": "none",
        "advantage_estimator": "return-baseline",
        "policy_loss": "reinforce",
        "batch_size": 512,
    },
    "remax": FREE | {"advantage_estimator": "remax", "policy_loss": "reinforce", "batch_size": 512},
    "trpo": {
        "policy_loss": "trpo",
        "averaging": "token-mean",
        "lam": 1.0,
        "vf_coef": 1.0,
        "steps": 30,
        "trust_kl": 0.01,
        "trust_damping": 1e-3,
        "ppo_epochs": 4,
        "batch_size": 512,
    },
    "trpo without a critic": FREE
    | {
        "policy_loss": "trpo",
        "advantage_estimator": "rloo",
        "steps": 30,
        "trust_kl": 0.01,
        "trust_damping": 1e-3,
        "batch_size": 512,
    },
    "rloo": FREE | {"advantage_estimator": "rloo", "policy_loss": "reinforce"},
    "cispo": FREE | {"advantage_estimator": "rloo", "policy_loss": "cispo", "num_minibatches": 4, "steps": 40},
    "clipped, several passes": FREE | {"advantage_estimator": "rloo", "ppo_epochs": 2, "num_minibatches": 4, "steps": 40},
    "sapo": FREE | {"advantage_estimator": "rloo", "policy_loss": "sapo", "num_minibatches": 4, "steps": 40},
    "normed by a fixed length": FREE | {"advantage_estimator": "rloo", "averaging": "seq-mean-token-sum-norm"},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_ends_at_the_optimum(name: str, tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    best = world.optimal(BETA).table
    assert world.kl(world.reference, best).min().item() > 0.5
    settings = Online(**(EXACT | METHODS[name]))
    policy = exact_policy(world)
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(policy, prompts_of(world), gold_of(world), settings, run, seeds=Seeds(0))
    assert world.kl(policy.model.table.detach(), best).max().item() < 0.05


@pytest.mark.parametrize("estimator", ["k2", "k3+"])
def test_a_penalty_in_the_loss_leads_to_the_optimum_for_single_tokens(estimator: str, tmp_path: Path) -> None:
    # Of longer completions each token pays its own divergence only, not that of the tokens it leads to, so the limit is
    # another one there.
    world = ExactWorld(vocab=6, length=1, prompts=2)
    best = world.optimal(BETA).table
    assert world.kl(world.reference, best).min().item() > 0.3
    loss = FREE | {"advantage_estimator": "rloo", "kl_in": "loss", "kl_estimator": estimator}
    settings = Online(**(EXACT | loss | {"sampling": Sampling(max_new_tokens=2, temperature=1.0), "num_generations": 32}))
    policy = exact_policy(world)
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(policy, prompts_of(world), gold_of(world), settings, run, seeds=Seeds(0))
    assert world.kl(policy.model.table.detach(), best).max().item() < 0.02


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_raises_a_reward(name: str, tmp_path: Path) -> None:
    settings, _ = ALGORITHMS[name]
    critic = "shared" if settings.critic == "reward" else settings.critic
    small = dataclasses.replace(
        settings, steps=25, batch_size=32, num_generations=8 if settings.num_generations > 1 else 1, kl_coef=0.0, critic=critic,
        num_minibatches=min(2, settings.num_minibatches), max_draws=min(2, settings.max_draws), ptx_coef=0.0,
        overlong_buffer=min(2, settings.overlong_buffer), mask_unfinished=False, trust_damping=1e-3, trust_kl=0.1,
        trust_iterations=3,
        sampling=Sampling(max_new_tokens=8, temperature=1.0, ignore_eos=True), missing_penalty=None,
        optim=dataclasses.replace(settings.optim, learning_rate=1e-2, max_grad_norm=1.0, warmup_steps=0),
    )  # fmt: skip
    with Run.open(tmp_path / "run", kind="x", settings=small, quiet=True) as run:
        improve(tiny(), PROMPTS, vowels, small, run, seeds=Seeds(0))
    rows = list(read_lines(tmp_path / "run" / "metrics.jsonl"))
    first, last = (sum(row["objective/scores"] for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 0.05
    assert ("loss/value_avg" in rows[0]) == (critic != "none")
    assert ("group/zero_std_share" in rows[0]) == (settings.advantage_estimator in GROUPED)
    assert rows[-1]["invariants/checked"] > 5
    assert rows[-1]["invariants/skipped_steps"] == 0


def grouped(**changes: Any) -> Trainer:
    """A GRPO trainer on a tiny model: two prompts of four completions a step."""
    parts = {
        "ppo_epochs": 1, "num_generations": 4, "advantage_estimator": "grpo", "averaging": "seq-mean-token-mean",
        "critic": "none", "whiten_rewards": False, "whiten_advantages": False, "kl_in": "loss", "kl_estimator": "k3",
        "kl_coef": 0.04, "temperature": 1.0,
    }  # fmt: skip
    trainer = make_trainer(small_ppo(**(parts | changes)))
    trainer.critic = None
    trainer.learner = type(trainer.learner)(trainer.policy.parameters(), trainer.settings.optim, total=100)
    return trainer


def test_the_gradient_of_grpo_is_the_one_written_down_by_hand() -> None:
    # J = 1/B Σ_i 1/|o_i| Σ_t [Â_i log π (at ratio 1) − β k3], Â_i = (r_i − mean)/std: DeepSeekMath, eqs. 3 and 4.
    trainer = grouped(ignore_eos=False, max_new_tokens=30, learning_rate=0.0, max_grad_norm=None)
    with torch.no_grad():  # away from the reference, so that the penalty pulls
        for parameter in trainer.policy.model.parameters():
            parameter.mul_(1.05)
    prompts, rollout = trainer.source.sample(0)
    episodes, metrics = trainer.penalize(rollout, trainer.source.judge(prompts, rollout))
    found = trainer.update(0, episodes)
    ours = gradients(trainer.policy.parameters())
    mask, batch = rollout.tokens.mask_BT, rollout.tokens
    assert mask.sum(1).unique().numel() > 1, "completions of one length would not tell means from sums"
    texts = [trainer.policy.decode(row[: int(n)]) for row, n in zip(batch.response_BT.tolist(), mask.sum(1), strict=True)]
    scores = torch.tensor(vowels([], texts))
    scores = scores.where(rollout.finished_B, torch.tensor(-1.0))
    advantages = group_normalized(scores, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    trainer.learner.optimizer.zero_grad()
    logps = trainer.policy.score(batch).logps_BT
    with torch.no_grad():
        reference = trainer.reference.score(batch).logps_BT
    each = keep(logps * advantages.unsqueeze(1) - 0.04 * k3(logps, reference), mask).sum(1) / mask.sum(1)
    (-each.mean()).backward()
    for name, gradient in gradients(trainer.policy.parameters()).items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert found["val/ratio_max_error"] == 0
    assert found["loss/kl_avg"] > 0
    assert metrics["objective/non_score_reward"] == 0, "the penalty is in the loss"


def test_a_policy_that_is_updated_once_reads_its_samples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    trainer = grouped()
    original = type(trainer.policy).score

    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(f"{self.name}{' with a gradient' if torch.is_grad_enabled() else ''}")
        return original(self, *arguments, **options)

    monkeypatch.setattr(type(trainer.policy), "score", noting)
    trainer.step(0)
    assert set(seen) == {"reference", "tiny with a gradient"}
    assert len(seen) == 2 * 3, "eight rows, three at a time"


def separate(**changes: Any) -> Trainer:
    """PPO with a critic of its own."""
    policy = tiny()
    reward = RewardModel.from_policy(policy, seeds=Seeds(1), max_length=64)
    trainer = make_trainer(small_ppo(critic="reward", learning_rate=1e-3, **changes), policy=policy)
    trainer.critic = RewardCritic(reward, policy)
    parameters = [*policy.parameters(), *trainer.critic.parameters()]
    trainer.learner = type(trainer.learner)(parameters, trainer.settings.optim, total=100)
    return trainer


def test_the_samplers_word_is_as_good_as_reading_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words, read = separate(), separate()
    monkeypatch.setattr(Trainer, "_must_score", property(lambda self: self is read))
    ours, theirs = words.step(0), read.step(0)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    for (name, one), (_, other) in zip(words.policy.parameters(), read.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("changes", "reads"),
    [
        ({}, False),
        ({"precision": "bfloat16"}, False),  # one update: what it starts from is what it would read
        ({"precision": "bfloat16", "ppo_epochs": 2}, True),
        ({"precision": "bfloat16", "kl_in": "reward", "kl_estimator": "k1"}, True),
        ({"kl_in": "reward", "kl_estimator": "k1"}, False),
        ({"scale_logits": False, "ppo_epochs": 2}, True),  # the sampler's word is of another distribution
    ],
)
def test_when_a_policy_must_read_its_samples_first(changes: dict[str, Any], reads: bool) -> None:
    assert grouped(**changes)._must_score is reads


def test_groups_whose_scores_are_equal_are_counted_and_teach_nothing() -> None:
    trainer = grouped(kl_coef=0.0)
    trainer.source.reward = nothing
    trainer.settings = dataclasses.replace(trainer.settings, missing_penalty=None)
    before = {name: p.detach().clone() for name, p in trainer.policy.parameters()}
    metrics = trainer.step(0)
    assert metrics["group/zero_std_share"] == 1.0
    assert metrics["grad_norm"] == 0.0
    assert all(torch.equal(before[name], p) for name, p in trainer.policy.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "none"}, "'gae' needs a critic; set critic to shared or reward"),
        ({"advantage_estimator": "rloo", "num_generations": 2}, "nothing reads the critic with advantage_estimator 'rloo'"),
        (FREE | {"advantage_estimator": "grpo", "num_generations": 1}, "set num_generations to 2 or more"),
        (FREE | {"advantage_estimator": "grpo", "whiten_rewards": True}, "whiten_rewards belongs to advantage_estimator 'gae'"),
        ({"policy_loss": "reinforce", "ppo_epochs": 2}, "set ppo_epochs and num_minibatches to 1"),
        ({"kl_in": "loss"}, "kl_estimator 'k1' does not pull towards the reference"),
        ({"num_generations": 7}, "num_generations 7 must divide batch_size 8"),
        ({"critic": "reward"}, "needs a learned reward model to start from"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    plain = {"batch_size": 8, "whiten_rewards": False}
    with pytest.raises(ConfigError, match=message):
        check(Online(**(plain | changes)), vowels)


def test_methods_have_names() -> None:
    assert [title(s) for s in (Online(), GRPO, RLOO)] == ["PPO", "GRPO", "RLOO"]
    assert title(Online(policy_loss="reinforce")) == "A2C"
    assert title(dataclasses.replace(GRPO, policy_loss="gspo")) == "GSPO"
    assert title(dataclasses.replace(GRPO, advantage_estimator="dr_grpo")) == "Dr. GRPO"
    assert title(dataclasses.replace(GRPO, advantage_estimator="grpo-process")) == "GRPO-process"
    assert title(dataclasses.replace(RLOO, advantage_estimator="return")) == "REINFORCE"
