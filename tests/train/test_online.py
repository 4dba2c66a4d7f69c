"""The steps of one PPO iteration: what is trained on, what it reduces to, what it is invariant to, what it refuses."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, gradients, make_trainer, nothing, small_ppo, tiny, tiny_of, vowels, weights
from torch import Tensor

from backflip.errors import ConfigError, DataError, ModelError, NumericsError
from backflip.maths.tensors import keep, masked_mean
from backflip.policies.language import LanguagePolicy, Scores
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online, Sampling
from backflip.train import gathering
from backflip.train.critic import RewardCritic, SharedCritic
from backflip.train.episodes import Episodes
from backflip.train.online import Trainer, improve

torch.set_num_threads(1)


def first_episodes(trainer: Trainer, step: int = 0) -> tuple[Episodes, dict[str, float]]:
    """The episodes of a step and its metrics before any update."""
    prompts, rollout = trainer.source.sample(step)
    return trainer.penalize(rollout, trainer.source.judge(prompts, rollout))


def gradient_of_minibatch(trainer: Trainer, episodes: Episodes) -> dict[str, Tensor]:
    """The gradient that one update on `episodes` uses; the step size is 0, so that nothing moves."""
    still = dataclasses.replace(trainer.learner.settings, learning_rate=0.0)
    trainer.learner.settings = still
    trainer._update_minibatch(episodes, first=True)
    return gradients([*trainer.policy.parameters(), *trainer.critic.parameters()])


def double(trainer: Trainer) -> Trainer:
    """The trainer in float64, its critic no longer at zero."""
    trainer.policy.model.double()
    trainer.reference.model.double()
    critic = SharedCritic(trainer.policy)
    generator = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(critic.head.weight, generator=generator)
    trainer.critic = critic
    trainer.learner = type(trainer.learner)(
        [*trainer.policy.parameters(), *critic.parameters()], trainer.settings.optim, total=100
    )
    return trainer


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


# What a step trains on


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_the_tokens_trained_are_the_tokens_sampled(ignore_eos: bool) -> None:
    trainer = make_trainer(ignore_eos=ignore_eos, max_new_tokens=40, temperature=1.0)
    prompts, rollout = trainer.source.sample(0)
    episodes, _ = trainer.penalize(rollout, trainer.source.judge(prompts, rollout))
    assert episodes.tokens is rollout.tokens
    assert torch.equal(episodes.loss_mask_BT, rollout.tokens.mask_BT)
    scored_BT = keep(episodes.old_logps_BT, episodes.loss_mask_BT)
    torch.testing.assert_close(scored_BT, rollout.logps_BT, rtol=0, atol=1e-5)
    if ignore_eos:
        assert episodes.loss_mask_BT.all()
    else:
        assert episodes.loss_mask_BT.sum() == sum(
            [*row.tolist(), trainer.policy.eos_id].index(trainer.policy.eos_id) + 1 if done else len(row)
            for row, done in zip(rollout.tokens.response_BT, rollout.finished_B, strict=True)
        )


def test_rewards_are_the_penalty_token_by_token_and_the_score_at_the_end() -> None:
    trainer = make_trainer(missing_penalty=None)
    trainer.step(0)  # the policy must have left its reference for the penalty to be anything
    trainer.learner.settings = dataclasses.replace(trainer.learner.settings, learning_rate=1e-3)
    trainer.step(1)
    episodes, metrics = first_episodes(trainer, 2)
    reference = trainer.reference.score(episodes.tokens, temperature=0.7).logps_BT
    log_ratio = episodes.old_logps_BT - reference
    assert log_ratio.abs().max() > 1e-3
    without_score = -trainer.kl_coef * log_ratio
    without_score[:, -1] += torch.tensor(vowels([], [trainer.policy.decode(r.tolist()) for r in episodes.tokens.response_BT]))
    torch.testing.assert_close(episodes.rewards_BT, without_score, rtol=0, atol=1e-6)
    assert metrics["objective/kl"] == metrics["kl/seq_nats"] == pytest.approx(log_ratio.sum(1).mean().item(), abs=3e-6)
    assert metrics["kl/tok_nats"] == pytest.approx(metrics["kl/seq_nats"] / 6, rel=1e-5)
    assert metrics["objective/non_score_reward"] == pytest.approx(-trainer.kl_coef * metrics["kl/seq_nats"], rel=1e-5)
    assert metrics["objective/rlhf_reward"] == pytest.approx(
        metrics["objective/scores"] + metrics["objective/non_score_reward"], rel=1e-4
    )


def test_the_value_of_a_token_is_that_of_the_state_before_it() -> None:
    policy = tiny()
    critic = SharedCritic(policy)
    torch.nn.init.ones_(critic.head.weight)
    batch = TokenBatch(*(torch.tensor(x) for x in ([[5, 6]], [[1, 1]], [[7, 8, 9]], [[1, 1, 1]])))
    values = critic.values(batch, policy.score(batch, hidden=True))
    hidden = policy.model(torch.tensor([[5, 6, 7, 8, 9]]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(values[0], hidden[0, 1:4].sum(-1), rtol=0, atol=1e-4)


def test_the_reward_critic_starts_as_the_reward_model_and_leaves_it_alone() -> None:
    policy = tiny()
    reward = RewardModel.from_policy(policy, seeds=Seeds(1), max_length=64)
    reward.normalize([0.0, 4.0])
    critic = RewardCritic(reward, policy)
    batch = TokenBatch(*(torch.tensor(x) for x in ([[0, 6], [5, 6]], [[0, 1], [1, 1]], [[7, 8], [9, 7]], [[1, 1], [1, 1]])))
    values = critic.values(batch, Scores(torch.zeros(2, 2)))
    before = reward.scores([[6], [6, 7], [5, 6], [5, 6, 9]]).detach()
    torch.testing.assert_close(values.detach().flatten(), before, rtol=0, atol=1e-5)
    with torch.no_grad():
        for _, parameter in critic.parameters():
            parameter.add_(1.0)
    assert torch.equal(reward.scores([[6], [6, 7], [5, 6], [5, 6, 9]]), before)


def test_a_reward_critic_of_another_vocabulary_is_refused() -> None:
    reward = RewardModel.from_policy(tiny(), seeds=Seeds(0))
    other = tiny()
    other.tokenizer = type("Other", (), {"get_vocab": lambda self: {"hello": 3}, "eos_token_id": 0, "pad_token_id": 1})()
    with pytest.raises(ModelError, match="the policy's own tokenizer"):
        RewardCritic(reward, other)


# What it reduces to


def test_the_first_update_of_ppo_is_reinforce() -> None:
    # At ratio 1 the gradient of −ρÂ is that of −Â log π.
    trainer = double(make_trainer(num_minibatches=1, ppo_epochs=1, vf_coef=0.0))
    episodes, _ = first_episodes(trainer)
    ours = gradient_of_minibatch(trainer, episodes)
    advantages_BT, _ = trainer.advantages(episodes)
    for _, parameter in trainer.policy.parameters():
        parameter.grad = None
    logps_BT = trainer.policy.score(episodes.tokens, temperature=0.7).logps_BT
    (-(advantages_BT * keep(logps_BT, episodes.loss_mask_BT)).sum() / episodes.loss_mask_BT.sum()).backward()
    theirs = gradients(trainer.policy.parameters())
    assert max(g.abs().max() for g in theirs.values()) > 1e-3
    assert_same({n: ours[n] for n in theirs}, theirs, 1e-10)


@pytest.mark.parametrize("vf_coef", [1.0, 0.1])
def test_the_critics_gradient_is_that_of_half_the_squared_error(vf_coef: float) -> None:
    trainer = make_trainer(reward=nothing, missing_penalty=3.0, kl_coef=0.0, whiten_rewards=False, vf_coef=vf_coef)
    trainer.settings = dataclasses.replace(trainer.settings, whiten_advantages=False)
    episodes, _ = first_episodes(trainer)
    gradient = gradient_of_minibatch(trainer, episodes)
    # Values are 0 and λ-returns are 3·0.95^(steps to go): for the bias, d/db ½(b − R)² = −R at b = 0.
    returns = [3.0 * 0.95**k for k in range(6)]
    assert gradient["value_head.bias"].item() == pytest.approx(-vf_coef * sum(returns) / 6, rel=1e-5)


def test_zero_reward_and_no_penalty_leave_the_policy_alone() -> None:
    trainer = make_trainer(reward=nothing, missing_penalty=None, kl_coef=0.0, whiten_rewards=False, whiten_advantages=False)
    episodes, _ = first_episodes(trainer)
    gradient = gradient_of_minibatch(trainer, episodes)
    assert all(g.abs().max() == 0 for g in gradient.values())


# What it is invariant to


@pytest.mark.parametrize("averaging", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_micro_batches_never_change_the_gradient(averaging: str) -> None:
    found = []
    for size in (8, 3, 1):
        trainer = double(
            make_trainer(
                averaging=averaging, micro_batch_size=size, ignore_eos=False, max_new_tokens=30, temperature=1.0,
                kl_estimator="k3", missing_penalty=None,
            )
        )  # fmt: skip
        episodes, _ = first_episodes(trainer)
        assert len(set(episodes.loss_mask_BT.sum(1).tolist())) > 1, "rows must differ in length for this to test anything"
        found.append(gradient_of_minibatch(trainer, episodes))
    assert_same(found[0], found[1], 1e-10)
    assert_same(found[0], found[2], 1e-10)


def padded(batch: TokenBatch, left: int, right: int, junk: int) -> TokenBatch:
    """The same rows with more padding, and with `junk` wherever nothing is."""
    pad = torch.nn.functional.pad
    query, query_mask = pad(batch.query_BQ, (left, 0)), pad(batch.query_mask_BQ, (left, 0))
    response, mask = pad(batch.response_BT, (0, right)), pad(batch.mask_BT, (0, right))
    return TokenBatch(query.masked_fill(query_mask == 0, junk), query_mask, response.masked_fill(mask == 0, junk), mask)


def test_padding_and_what_stands_in_it_never_change_the_gradient() -> None:
    found = []
    for left, right, junk in ((0, 0, 0), (0, 0, 77), (3, 2, 5)):
        trainer = double(make_trainer(ignore_eos=False, max_new_tokens=30, temperature=1.0, missing_penalty=None))
        prompts, rollout = trainer.source.sample(0)
        more = dataclasses.replace(
            rollout,
            tokens=padded(rollout.tokens, left, right, junk),
            logps_BT=torch.nn.functional.pad(rollout.logps_BT, (0, right)),
        )
        episodes, metrics = trainer.penalize(more, trainer.source.judge(prompts, more))
        found.append((gradient_of_minibatch(trainer, episodes), metrics))
    for gradient, metrics in found[1:]:
        assert_same(found[0][0], gradient, 1e-10)
        assert metrics == pytest.approx(found[0][1], abs=1e-6)


def test_tokens_after_the_end_get_no_gradient_when_masked() -> None:
    trainer = double(make_trainer(mask_after_truncation=True, truncate_at="a", max_new_tokens=30, temperature=1.0))
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    assert (judged.kept_B < 30).any()
    after = torch.arange(30) >= judged.kept_B.unsqueeze(1)
    episodes, _ = trainer.penalize(rollout, judged)
    assert torch.equal(episodes.loss_mask_BT.bool(), ~after)
    gradient = gradient_of_minibatch(trainer, episodes)
    elsewhere = dataclasses.replace(
        episodes,
        tokens=dataclasses.replace(episodes.tokens, response_BT=episodes.tokens.response_BT.masked_fill(after, 9)),
    )
    assert_same(gradient, gradient_of_minibatch(trainer, elsewhere), 1e-10)


def test_a_step_is_a_function_of_the_seed_and_the_step() -> None:
    once, again, other = make_trainer(), make_trainer(), make_trainer(seed=1)
    assert once.step(3) == again.step(3)
    assert_same(weights(once.policy.model), weights(again.policy.model), 0.0)
    assert other.step(3) != once.step(3)


def test_the_reference_never_changes() -> None:
    trainer = make_trainer(learning_rate=1e-2)
    before = weights(trainer.reference.model)
    for step in range(2):
        trainer.step(step)
    assert_same(weights(trainer.reference.model), before, 0.0)
    moved = weights(trainer.policy.model)
    assert max((moved[n] - before[n]).abs().max() for n in before) > 1e-3


@pytest.mark.parametrize(("batch", "minibatches"), [(8, 3), (7, 3), (9, 4)])
def test_every_episode_is_used_once_per_epoch_in_the_number_of_updates_asked_for(
    batch: int, minibatches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(batch_size=batch, num_minibatches=minibatches, ppo_epochs=2)
    seen: list[list[int]] = []
    episodes, _ = first_episodes(trainer)
    marked = dataclasses.replace(episodes, old_values_BT=torch.arange(batch).unsqueeze(1).expand(batch, 6).float())

    def note(self: Trainer, minibatch: Episodes, *, first: bool) -> dict[str, float]:
        seen.append([int(v) for v in minibatch.old_values_BT[:, 0]])
        return {"x": 1.0}

    monkeypatch.setattr(Trainer, "_update_minibatch", note)
    trainer.update(0, marked)
    assert len(seen) == 2 * minibatches
    one, two = ([i for part in half for i in part] for half in (seen[:minibatches], seen[minibatches:]))
    assert sorted(one) == sorted(two) == list(range(batch))
    assert one != two
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


# What it refuses


def test_dropout_left_on_is_noticed_before_anything_changes() -> None:
    policy = tiny_of("gpt2", dropout=0.5)
    trainer = make_trainer(policy=policy)
    before = weights(policy.model)
    original = LanguagePolicy.score

    def careless(self: LanguagePolicy, *arguments: Any, **options: Any) -> Scores:
        if torch.is_grad_enabled():
            self.model.train()
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguagePolicy, "score", careless)
        with pytest.raises(NumericsError, match="usual cause is dropout left on"):
            trainer.step(0)
    assert_same(weights(policy.model), before, 0.0)


@pytest.mark.parametrize("fault", ["temperature", "positions", "padding"])
def test_a_sampler_that_scores_otherwise_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(policy=tiny_of("gpt2"))
    original = gathering.generate

    def other(policy: LanguagePolicy, queries: Any, settings: Sampling, **options: Any) -> Any:
        if fault == "temperature":
            return original(policy, queries, dataclasses.replace(settings, temperature=1.0), **options)
        rollout = original(policy, queries, settings, **options)
        if fault == "positions":  # as a sampler that counts padding too would
            scores = policy.score(rollout.tokens, temperature=settings.temperature, position_ids="absolute")
        else:  # as a sampler that does not know which tokens are padding would
            blind = dataclasses.replace(rollout.tokens, query_mask_BQ=torch.ones_like(rollout.tokens.query_mask_BQ))
            scores = policy.score(blind, temperature=settings.temperature)
        return dataclasses.replace(rollout, logps_BT=scores.logps_BT.detach())

    trainer.step(0)
    monkeypatch.setattr(gathering, "generate", other)
    with pytest.raises(NumericsError, match="the sampler and the scorer disagree"):
        trainer.step(1)


def test_a_reward_that_is_no_number_is_named() -> None:
    def broken(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [0.0, math.nan] + [0.0] * (len(completions) - 2)

    with pytest.raises(NumericsError, match="is nan for row 2"):
        make_trainer(reward=broken).step(0)


def test_damaged_weights_are_noticed_when_sampling() -> None:
    trainer = make_trainer()
    with torch.no_grad():
        next(trainer.policy.model.parameters()).fill_(math.nan)
    with pytest.raises(NumericsError, match="probabilities that are not numbers"):
        trainer.step(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (small_ppo(top_k=5), "set top_k to 0"),
        (small_ppo(top_p=0.9), "set top_k to 0, top_p to 1"),
        (small_ppo(min_p=0.1), "min_p to 0"),
        (small_ppo(repetition_penalty=1.2), "repetition_penalty to 1"),
        (small_ppo(num_generations=3), "num_generations 3 must divide batch_size 8"),
        (small_ppo(num_minibatches=5), "num_minibatches 5 splits a batch_size of 8 into minibatches of fewer than 2"),
        (small_ppo(num_minibatches=9, whiten_rewards=False, whiten_advantages=False), "fewer than 1 episodes"),
        (small_ppo(critic="reward"), "needs a learned reward model"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Online, message: str, tmp_path: Path) -> None:
    with (
        Run.open(tmp_path / "run", kind="ppo", settings=settings, quiet=True) as run,
        pytest.raises(ConfigError, match=message),
    ):
        improve(tiny(), PROMPTS, vowels, settings, run, seeds=Seeds(0))


@pytest.mark.parametrize(
    ("changes", "prompts", "message"),
    [
        ({}, [Prompt("the film " * 30)], "prompt 1 has .* tokens and at most 58 fit"),
        ({"query_length": 2}, PROMPTS, "at most 2 fit"),
        ({"query_length": 1, "overlong": "drop"}, PROMPTS[:2], "every one was too long and dropped"),
        ({"max_new_tokens": 64}, PROMPTS, "leaves no room for a prompt"),
        ({}, [], "there are no prompts to learn on"),
        ({"truncate_at": "☃"}, PROMPTS, "no token of the policy reads"),
    ],
)
def test_prompts_that_cannot_work_are_refused(
    changes: dict[str, Any], prompts: list[Prompt], message: str, tmp_path: Path
) -> None:
    settings = small_ppo(**changes)
    with (
        Run.open(tmp_path / "run", kind="ppo", settings=settings, quiet=True) as run,
        pytest.raises(DataError, match=message),
    ):
        improve(tiny(), prompts, vowels, settings, run, seeds=Seeds(0))


# A whole run


def test_a_run_writes_its_metrics_samples_and_timings(tmp_path: Path) -> None:
    settings = small_ppo(kl_horizon=80, learning_rate=3e-3)
    policy = tiny()
    with Run.open(tmp_path / "run", kind="ppo", settings=settings, quiet=True) as run:
        result = improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), gold=vowels, kl_coef=0.3)
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [(row["step"], row["episode"]) for row in rows] == [(1, 8), (2, 16)]
    assert rows[0]["objective/kl_coef"] == 0.3
    assert rows[0]["kl/seq_nats"] == 0.0
    assert rows[1]["objective/gold"] == pytest.approx(rows[1]["objective/scores"])
    # With KL 0 the error is clipped at −0.2: β ← 0.3 · (1 − 0.2 · 8/80).
    assert rows[1]["objective/kl_coef"] == pytest.approx(0.3 * 0.98)
    assert {k: v for k, v in rows[1].items() if k not in ("step", "episode")} | {"kl_coef": result["kl_coef"]} == result
    timings = read_lines(tmp_path / "run" / "timings.jsonl")
    assert [set(row) for row in timings] == [{"step", "rollout", "reward", "score", "update"}] * 2
    samples = read_lines(tmp_path / "run" / "samples.jsonl")
    assert len(samples) == 8
    assert set(samples[0]) == {"step", "prompt", "completion", "proxy", "finished", "gold"}


@pytest.mark.parametrize("critic", ["shared", "reward"])
def test_a_reward_model_is_climbed_with_either_critic(critic: str, tmp_path: Path) -> None:
    reward = RewardModel.from_policy(tiny(), seeds=Seeds(5), score_at="last")
    words = [tiny().decode([i]) for i in range(2, 280)]
    reward.normalize(reward(["the film"] * len(words), words))
    settings = small_ppo(
        critic=critic, steps=20, batch_size=16, learning_rate=5e-3, missing_penalty=None, kl_coef=0.0,
        micro_batch_size=16, save_every=20,
    )  # fmt: skip
    with Run.open(tmp_path / "run", kind="ppo", settings=settings, quiet=True) as run:
        improve(tiny(), PROMPTS, reward, settings, run, seeds=Seeds(0))
    scores = [row["objective/scores"] for row in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert sum(scores[-4:]) / 4 > sum(scores[:4]) / 4 + 0.4


# A sampler of other precision, and texts that end at a stop string


def test_a_sampler_of_other_precision_is_corrected_by_importance_weights() -> None:
    policy = tiny()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.7)  # sharper, so that bfloat16 shows
    same, other = (make_trainer(policy=policy, precision=p, importance_cap=1.001) for p in ("model", "bfloat16"))
    for trainer in (same, other):
        prompts, rollout = trainer.source.sample(0)
        episodes, _ = trainer.penalize(rollout, trainer.source.judge(prompts, rollout))
        advantages_BT, _ = trainer.advantages(episodes)
        weights_BT = trainer.weights(episodes.old_logps_BT, episodes.sampled_logps_BT)
        if trainer is same:
            assert (weights_BT == 1).all()
        else:
            expected = (episodes.old_logps_BT - rollout.logps_BT).exp().clamp(max=1.001)
            assert torch.equal(weights_BT, expected)
            assert (expected == 1.001).any()
            assert (expected < 0.999).any()
            # The loss sees each advantage times its weight.
            first = trainer._update_minibatch(episodes, first=True)
            assert first["rollout/logp_max_diff"] > 1e-3
            at_ratio_1 = -masked_mean(advantages_BT * expected, episodes.loss_mask_BT).item()
            assert first["loss/policy_avg"] == pytest.approx(at_ratio_1, rel=1e-4)


def test_a_text_that_ends_at_a_stop_string_is_whole() -> None:
    free = make_trainer(max_new_tokens=24, ignore_eos=False)
    prompts, rollout = free.source.sample(0)
    texts = free.source.judge(prompts, rollout).texts
    stop = next(text[3:5] for text in texts if len(text) > 8 and text[3:5].isascii())
    trainer = make_trainer(max_new_tokens=24, ignore_eos=True, stop=(stop,))
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    hit = [stop in text for text in texts]
    assert any(hit)
    for before, after, found, stopped in zip(texts, judged.texts, judged.found_B.tolist(), hit, strict=True):
        if stopped:
            assert after == before[: before.index(stop)]
            assert found
