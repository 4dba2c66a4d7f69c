"""The 21 details of "The N Implementation Details of RLHF with PPO": each with its default and what it does.

The table at the end names for each detail its settings with their defaults, and a check of the behaviour with the
setting and, where there is a choice, without it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from tests.tiny_models import PROMPTS, make_trainer, padless_tokenizer, small_ppo, tiny, tiny_of, vowels
from torch import nn

from backflip.maths.kl import exact_kl
from backflip.maths.tensors import whiten
from backflip.policies.tokens import pad, positions, token_batch
from backflip.records import Prompt
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Online, Reward
from backflip.train import online
from backflip.train.critic import SharedCritic
from backflip.train.episodes import Episodes, between_full_stops
from backflip.train.online import Trainer
from backflip.train.optim import AdamW, learning_rate

torch.set_num_threads(1)


def first_update(trainer: Trainer) -> dict[str, float]:
    """The metrics of the first update of a step."""
    prompts, rollout = trainer.source.sample(0)
    episodes, metrics = trainer.penalize(rollout, trainer.source.judge(prompts, rollout))
    return metrics | trainer._update_minibatch(episodes, first=True)


def hand_episodes(rewards: list[list[float]], values: list[list[float]]) -> Episodes:
    """Episodes whose rewards and values are given; their tokens do not matter."""
    shape = (len(rewards), len(rewards[0]))
    tokens = token_batch([[5]] * shape[0], [[6] * shape[1]] * shape[0], fill=0)
    zero = torch.zeros(shape)
    return Episodes(tokens, tokens.mask_BT, zero, zero, zero, torch.tensor(values), torch.tensor(rewards), zero)


@functools.cache
def reward_model(score_at: Any = "eos") -> RewardModel:
    return RewardModel.from_policy(tiny(), seeds=Seeds(0), score_at=score_at)


def check_reward_and_value_read_query_and_response() -> None:
    model = reward_model()
    assert model(["the cat", "the film"], ["was", "was"])[0] != model(["the cat", "the film"], ["was", "was"])[1]
    ids = model.encode(Prompt("the cat"), "was")
    assert model.token_scores(torch.tensor([ids]), torch.ones(1, len(ids))).shape == (1, len(ids))
    policy = tiny()
    critic = SharedCritic(policy)
    nn.init.ones_(critic.head.weight)
    one, other = (token_batch([query], [[7, 8]], fill=0) for query in ([5], [6]))
    values = [critic.values(batch, policy.score(batch, hidden=True)) for batch in (one, other)]
    assert values[0].shape == (1, 2)
    assert (values[0] - values[1]).abs().min() > 1e-3


def check_padding_is_a_token_of_its_own_and_never_read() -> None:
    policy = tiny_of("gpt2")
    policy.tokenizer = padless_tokenizer()
    for pad_token in (None, policy.tokenizer.eos_token):
        policy.tokenizer.pad_token = pad_token
        model = RewardModel.from_policy(policy, seeds=Seeds(0))
        assert model.tokenizer.pad_token_id == len(policy.tokenizer) == 280
    rows = [[5, 6, 7], [8]]
    torch.testing.assert_close(model.scores(rows)[1], model.scores(rows[1:])[0], rtol=0, atol=1e-5)
    logps = [tiny().score(token_batch([[5, 6, 7], [8]], [[9], [9]], fill=fill)).logps_BT for fill in (0, 99)]
    torch.testing.assert_close(logps[0], logps[1], rtol=0, atol=1e-6)


def check_positions_count_real_tokens() -> None:
    assert positions(torch.tensor([[0, 0, 1, 1, 1]])).tolist() == [[0, 0, 0, 1, 2]]
    trainer = make_trainer(policy=tiny_of("gpt2"))
    assert first_update(trainer)["rollout/logp_max_diff"] < 1e-4
    # The generator always counts real tokens; a scorer that counts columns gives other probabilities for padded rows.
    ablated = first_update(make_trainer(policy=tiny_of("gpt2"), position_ids="absolute"))
    assert ablated["rollout/logp_max_diff"] > 1e-2


def check_responses_run_to_full_length() -> None:
    for ignore, short in ((True, False), (False, True)):
        trainer = make_trainer(ignore_eos=ignore, max_new_tokens=40, temperature=1.0)
        _, rollout = trainer.source.sample(0)
        assert bool((rollout.tokens.mask_BT.sum(1) < 40).any()) is short


def check_the_learning_rate_falls_linearly_to_zero() -> None:
    optim = Online().optim
    rates = [learning_rate(optim, update, 10) for update in range(10)]
    assert rates == pytest.approx([1e-5 * (1 - k / 10) for k in range(10)])
    constant = dataclasses.replace(optim, lr_schedule="constant")
    assert learning_rate(constant, 9, 10) == 1e-5


def check_draws_are_keyed_and_the_data_order_is_shared() -> None:
    seeds = Seeds(1)
    keys = [("rollout", step, "row", row) for step in range(3) for row in range(3)]
    assert len({seeds.integer(*key) for key in keys}) == len(keys)
    parts = [cyclic_batch(seeds, 6, 2, step) for step in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(6))
    assert parts == [cyclic_batch(Seeds(1), 6, 2, step) for step in range(3)]


def check_the_score_is_read_at_the_last_token() -> None:
    for at, last in (("eos", True), ("last", False)):
        model = reward_model(at)
        ids = model.encode(Prompt("the cat"), "was")
        assert (ids[-1] == model.tokenizer.eos_token_id) is last
        rows, mask = pad([ids, [*ids, 9]], fill=int(model.tokenizer.pad_token_id), left=False)
        by_hand = model.token_scores(rows, mask)[0, len(ids) - 1]
        assert model(["the cat"], ["was"])[0] == pytest.approx(by_hand.item(), abs=1e-5)


def check_the_reward_head_is_small_and_without_bias() -> None:
    model = RewardModel.from_policy(tiny_of("gpt2"), seeds=Seeds(3))
    draws = torch.cat([RewardModel.from_policy(tiny(), seeds=Seeds(s)).model.score.weight.flatten() for s in range(12)]).detach()
    assert model.model.score.bias is None
    assert draws.std().item() == pytest.approx((32 + 1) ** -0.5, rel=0.15)
    assert abs(draws.mean().item()) < 3 * (33 * len(draws)) ** -0.5
    zero = RewardModel.from_policy(tiny(), seeds=Seeds(3), head_init="zero")
    assert zero(["the cat"], ["was"]) == [0.0]


def check_scores_are_normalized_by_gain_and_bias() -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0))
    prompts, texts = ["the cat"] * 20, [tiny().decode([i]) for i in range(2, 22)]
    model.normalize(model(prompts, texts))
    scores = torch.tensor(model(prompts, texts))
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert dict(model.parameters())["gain"].requires_grad
    model.scores([[5, 6]]).sum().backward()
    assert model.gain.grad is not None


def check_logits_are_divided_by_the_temperature() -> None:
    scaled = first_update(make_trainer())
    assert scaled["val/ratio_max_error"] < 1e-4
    assert scaled["kl/seq_nats"] == 0
    assert scaled["rollout/logp_max_diff"] < 1e-4
    plain = first_update(make_trainer(scale_logits=False))
    assert plain["rollout/logp_max_diff"] > 0.1
    # The reference is scored the same way, so KL is 0 at the start either way.
    assert plain["kl/seq_nats"] == 0


def check_the_value_head_starts_at_zero() -> None:
    critic = SharedCritic(tiny())
    assert critic.head.weight.abs().max() == 0
    assert critic.head.bias.abs().max() == 0


def check_prompts_start_and_end_with_a_sentence() -> None:
    assert between_full_stops(Prompt("x y. A b. C d. e")).text == " A b. C d."
    prompt = "a cat. the film was good. the plot"
    for on, expected in ((True, " the film was good."), (False, prompt)):
        settings = small_ppo(sentence_prompts=on)
        [ready] = online.prepare_prompts(tiny(), [Prompt(prompt)], settings)
        assert ready.prompt.text == expected
        assert tiny().decode(ready.ids) == expected


def check_dropout_is_off() -> None:
    first, again = (first_update(make_trainer(policy=tiny_of("gpt2", dropout=0.3))) for _ in range(2))
    assert first == again
    assert first["val/ratio_max_error"] < 1e-4
    assert first_update(make_trainer(policy=tiny_of("gpt2", dropout=0.3), dropout=True))["val/ratio_max_error"] > 1e-2


def check_texts_are_cut_and_those_without_an_end_are_punished() -> None:
    read: list[str] = []

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        read.extend(completions)
        return vowels(prompts, completions)

    trainer = make_trainer(truncate_at="a", truncate_after=4, max_new_tokens=24, batch_size=32, temperature=1.0, reward=reward)
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    assert judged.texts == read
    a = set(trainer.source.stops.tolist())
    assert {tiny().decode([i]).strip() for i in a} == {"a"}
    assert 0 < judged.found_B.sum() < 32
    for i, row in enumerate(rollout.tokens.response_BT.tolist()):
        where = next((t for t, token in enumerate(row) if t >= 4 and token in a), None)
        assert bool(judged.found_B[i]) == (where is not None)
        kept = row if where is None else row[: where + 1]
        assert read[i] == tiny().decode(kept)
        expected = -1.0 if where is None else judged.proxy[i]
        assert judged.scores_B[i].item() == pytest.approx(expected)
    free = make_trainer(truncate_at="a", missing_penalty=None)
    prompts, rollout = free.source.sample(0)
    judged = free.source.judge(prompts, rollout)
    assert judged.scores_B.tolist() == pytest.approx(judged.proxy)
    # As in the original code, all tokens are trained on, those after the cut too; the score stands on the last.
    trainer.settings = dataclasses.replace(trainer.settings, kl_coef=0.0)
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    episodes, _ = trainer.penalize(rollout, judged)
    assert episodes.loss_mask_BT.all()
    assert torch.equal(episodes.rewards_BT[:, -1], judged.scores_B)


def check_rewards_are_not_discounted() -> None:
    episodes = hand_episodes([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], [[0.0] * 3] * 2)
    plain = {"whiten_rewards": False, "whiten_advantages": False, "lam": 1.0}
    assert make_trainer(**plain).advantages(episodes)[1][0].tolist() == [1.0, 1.0, 1.0]
    assert make_trainer(gamma=0.5, **plain).advantages(episodes)[1][0].tolist() == [0.25, 0.5, 1.0]
    # and λ = 0.95 is GAE's own.
    lam = plain | {"lam": 0.95}
    assert make_trainer(**lam).advantages(episodes)[0][0].tolist() == pytest.approx([0.9025, 0.95, 1.0])


def check_every_epoch_has_a_fresh_order() -> None:
    seen: list[list[float]] = []

    class Noting(Trainer):
        def _update_minibatch(self, minibatch: Episodes, *, first: bool) -> dict[str, float]:
            seen.append(minibatch.old_values_BT[:, 0].tolist())
            return {}

    made = make_trainer(num_minibatches=2)
    noting = Noting(**{f.name: getattr(made, f.name) for f in dataclasses.fields(Trainer)})
    episodes = hand_episodes([[0.0]] * 8, [[float(i)] for i in range(8)])
    noting.update(0, episodes)
    noting.update(1, episodes)
    epochs = [tuple(seen[i] + seen[i + 1]) for i in range(0, len(seen), 2)]
    assert len(epochs) == 2 * 4
    assert len(set(epochs)) == 8
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    again = len(seen)
    noting.update(0, episodes)
    assert seen[again:] == seen[:8]


def check_the_penalty_is_per_token_and_the_score_on_the_last() -> None:
    for kind, penalty in (("k1", [1.0, -2.0]), ("k2", [0.5, 2.0]), ("abs", [1.0, 2.0])):
        trainer = make_trainer(kl_estimator=kind)
        trainer.kl_coef = 0.1
        old, ref = torch.tensor([[-1.0, -3.0]]), torch.tensor([[-2.0, -1.0]])
        tokens = token_batch([[5]], [[6, 7]], fill=0)
        zero = torch.zeros(1, 2)
        trainer._look = lambda rows, sampled, o=old, r=ref, z=zero: (o, r, z)  # type: ignore[method-assign, misc]
        _, sampled = trainer.source.sample(0)
        judged = trainer.source.judge(PROMPTS * 2, sampled)._replace(scores_B=torch.tensor([2.5]), kept_B=torch.tensor([2]))
        rollout = online.Rollout(tokens, old, torch.tensor([False]))
        episodes, _ = trainer.penalize(rollout, judged)
        expected = [-0.1 * penalty[0], -0.1 * penalty[1] + 2.5]
        assert episodes.rewards_BT[0].tolist() == pytest.approx(expected)


def check_whitening_is_per_minibatch_and_biased() -> None:
    rewards = [[0.0, 1.0], [2.0, 5.0], [-40.0, 90.0], [3.0, 30.0]]
    values = [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0], [2.0, 0.0]]
    both, half = hand_episodes(rewards, values), hand_episodes(rewards[:2], values[:2])
    advantages, returns = make_trainer(lam=1.0).advantages(half)
    reward = torch.tensor(rewards[:2])
    scaled = (reward - reward.mean()) / (reward.var(unbiased=False) + 1e-8).sqrt() + reward.mean()
    torch.testing.assert_close(returns, scaled.flip(1).cumsum(1).flip(1))
    raw = returns - torch.tensor(values[:2])
    torch.testing.assert_close(advantages, (raw - raw.mean()) / raw.std(unbiased=False))
    assert (make_trainer(lam=1.0).advantages(both)[0][:2] - advantages).abs().max() > 0.1
    unbiased, _ = make_trainer(lam=1.0, unbiased_variance=True, whiten_rewards=False).advantages(half)
    raw = reward.flip(1).cumsum(1).flip(1) - torch.tensor(values[:2])
    torch.testing.assert_close(unbiased, (raw - raw.mean()) / raw.std(unbiased=True))
    off, _ = make_trainer(lam=1.0, whiten_rewards=False, whiten_advantages=False).advantages(half)
    torch.testing.assert_close(off, raw)
    assert not torch.equal(whiten(raw, half.loss_mask_BT), whiten(raw, half.loss_mask_BT, unbiased=True))


def check_the_value_loss_is_clipped() -> None:
    def loss(**changes: Any) -> float:
        trainer = make_trainer(kl_coef=0.0, whiten_rewards=False, vf_coef=1.0, lam=1.0, **changes)
        nn.init.ones_(trainer.critic.head.bias)  # type: ignore[union-attr]
        # Old values are 0 and returns 2, while V is now 1: too far from the old value, so it counts as 0.2.
        episodes = hand_episodes([[0.0, 2.0]] * 2, [[0.0, 0.0]] * 2)
        old = trainer._scores(episodes.tokens).logps_BT.detach()
        return trainer._update_minibatch(dataclasses.replace(episodes, old_logps_BT=old, sampled_logps_BT=old), first=True)[
            "loss/value_avg"
        ]

    assert loss() == pytest.approx(0.5 * (0.2 - 2.0) ** 2)
    assert loss(cliprange_value=None) == pytest.approx(0.5 * (1.0 - 2.0) ** 2)


def check_beta_follows_the_kl() -> None:
    for controller, expected in (("adaptive", 0.15 * (1 + 0.2 * 512 / 10000)), ("fixed", 0.15)):
        trainer = make_trainer(Online(kl_controller=controller))
        trainer.control({"kl/seq_nats": 12.0})
        assert trainer.kl_coef == pytest.approx(expected, rel=1e-12)
    trainer = make_trainer(Online())
    trainer.control({"kl/seq_nats": 5.4})
    assert trainer.kl_coef == pytest.approx(0.15 * (1 - 0.1 * 512 / 10000), rel=1e-12)


def check_adam_adds_epsilon_outside_the_bias_correction() -> None:
    def first_step(convention: Any, gradient: float) -> float:
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = AdamW([("w", weight)], eps=1e-5, eps_convention=convention)
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step(1.0)
        return -weight.item()

    # m/c₁ = g and √(v/c₂) = g, √v = g·√0.001.
    for g in (1e-5, 1e-3, 1.0):
        assert first_step("torch", g) == pytest.approx(g / (g + 1e-5), rel=1e-9)
        assert first_step("tensorflow", g) == pytest.approx(g * 0.001**0.5 / (g * 0.001**0.5 + 1e-5), rel=1e-9)
    assert first_step("torch", 1e-5) / first_step("tensorflow", 1e-5) > 15


class Detail(NamedTuple):
    """A detail of the list: its number there, what it says, its settings with their defaults, and its check."""

    number: int
    check: Callable[[], None]
    defaults: Mapping[str, Any] = MappingProxyType({})


DETAILS = [
    Detail(1, check_reward_and_value_read_query_and_response, {"ppo.critic": "shared"}),
    Detail(2, check_padding_is_a_token_of_its_own_and_never_read, {"ppo.overlong": "refuse", "ppo.query_length": None}),
    Detail(3, check_positions_count_real_tokens, {"ppo.position_ids": "mask"}),
    Detail(
        4,
        check_responses_run_to_full_length,
        {
            "ppo.sampling.ignore_eos": True, "ppo.sampling.top_k": 0, "ppo.sampling.top_p": 1.0,
            "ppo.sampling.max_new_tokens": 24,
        },
    ),
    Detail(
        5,
        check_the_learning_rate_falls_linearly_to_zero,
        {
            "ppo.optim.lr_schedule": "linear", "reward.optim.lr_schedule": "linear", "reward.epochs": 1.0,
            "ppo.optim.learning_rate": 1e-5, "reward.optim.learning_rate": 5e-5,
        },
    ),
    Detail(6, check_draws_are_keyed_and_the_data_order_is_shared),
    Detail(7, check_the_score_is_read_at_the_last_token, {"reward.score_at": "eos"}),
    Detail(8, check_the_reward_head_is_small_and_without_bias, {"reward.head_init": "normal"}),
    Detail(
        9,
        check_scores_are_normalized_by_gain_and_bias,
        {
            "reward.normalize_before": True, "reward.normalize_after": True, "reward.normalization_samples": 256,
            "reward.train_gain": True,
        },
    ),
    Detail(
        10,
        check_logits_are_divided_by_the_temperature,
        {"ppo.scale_logits": True, "ppo.sampling.temperature": 0.7},
    ),
    Detail(11, check_the_value_head_starts_at_zero, {"ppo.critic": "shared"}),
    Detail(12, check_prompts_start_and_end_with_a_sentence, {"ppo.sentence_prompts": False}),
    Detail(13, check_dropout_is_off, {"ppo.dropout": False, "reward.dropout": False}),
    Detail(
        14,
        check_texts_are_cut_and_those_without_an_end_are_punished,
        {
            "ppo.truncate_at": "eos", "ppo.truncate_after": 0, "ppo.missing_penalty": -1.0,
            "ppo.mask_after_truncation": False,
        },
    ),
    Detail(15, check_rewards_are_not_discounted, {"ppo.gamma": 1.0, "ppo.lam": 0.95}),
    Detail(
        16,
        check_every_epoch_has_a_fresh_order,
        {"ppo.batch_size": 512, "ppo.ppo_epochs": 4, "ppo.num_minibatches": 1},
    ),
    Detail(
        17,
        check_the_penalty_is_per_token_and_the_score_on_the_last,
        {"ppo.kl_estimator": "k1", "ppo.kl_coef": 0.15},
    ),
    Detail(
        18,
        check_whitening_is_per_minibatch_and_biased,
        {"ppo.whiten_rewards": True, "ppo.whiten_advantages": True, "ppo.unbiased_variance": False},
    ),
    Detail(
        19,
        check_the_value_loss_is_clipped,
        {"ppo.cliprange_value": 0.2, "ppo.vf_coef": 0.1, "ppo.cliprange": 0.2},
    ),
    Detail(
        20,
        check_beta_follows_the_kl,
        {"ppo.kl_controller": "adaptive", "ppo.kl_target": 6.0, "ppo.kl_horizon": 10000},
    ),
    Detail(
        21,
        check_adam_adds_epsilon_outside_the_bias_correction,
        {
            "ppo.optim.adam_eps_convention": "tensorflow", "ppo.optim.adam_eps": 1e-5,
            "reward.optim.adam_eps_convention": "tensorflow", "reward.optim.adam_eps": 1e-5,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize("detail", DETAILS, ids=[f"{d.number}-{d.check.__name__[6:]}" for d in DETAILS])
def test_detail(detail: Detail) -> None:
    jobs = {"ppo": Online(), "reward": Reward()}
    for name, default in detail.defaults.items():
        first, *rest = name.split(".")
        assert functools.reduce(getattr, rest, jobs[first]) == default, name
    detail.check()


def test_all_details_are_here() -> None:
    assert [detail.number for detail in DETAILS] == list(range(1, 22))


def test_the_first_updates_are_smaller_with_tensorflows_epsilon() -> None:
    # The ablation of detail 21: at the same ε the first steps of PyTorch's Adam move the policy further. The gradients
    # of a tiny model are large, so ε is too.
    moved = {}
    for convention in ("tensorflow", "torch"):
        trainer = make_trainer(adam_eps_convention=convention, adam_eps=1e-3, learning_rate=1e-3)
        metrics = trainer.step(0)
        moved[convention] = metrics["policy/approxkl_avg"]
    assert moved["torch"] > 1.2 * moved["tensorflow"]


def test_without_the_temperature_in_the_scores_the_kl_counts_other_distributions() -> None:
    # The ablation of detail 10: at T = 0.7 the same change of the weights is a larger KL than at T = 1.
    policy, ids = tiny(), torch.arange(2, 50).unsqueeze(0)
    reference = policy.frozen_copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        ours, theirs = (p.model(ids).logits for p in (policy, reference))
    at_t, plain = (exact_kl(ours / t, theirs / t).mean().item() for t in (0.7, 1.0))
    assert at_t > 1.3 * plain > 0
