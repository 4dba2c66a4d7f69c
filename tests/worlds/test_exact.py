from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backflip.maths import advantages, kl, policy_losses, preference, returns
from backflip.maths.tensors import token_logps
from backflip.seeds import Seeds
from backflip.worlds.exact import Draws, ExactWorld, TabularCritic, TabularLM, sequence_kl

BETA = 0.5


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def other_table(world: ExactWorld, seed: int = 1) -> Tensor:
    """Another policy of the world, as a leaf."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(world.reference.shape, generator=generator, dtype=torch.float64).requires_grad_()


def gradient(loss: Tensor, table: Tensor) -> Tensor:
    return torch.autograd.grad(loss, table, retain_graph=True)[0]


# The world itself


def test_sequences_are_numbered_in_base_v_and_probabilities_multiply() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    assert world.sequences.tolist() == [[a, b] for a in range(3) for b in range(3)]
    chances = world.reference.softmax(dim=-1)
    logps = world.sequence_logps(world.reference)
    for s, (a, b) in enumerate(world.sequences.tolist()):
        expected = chances[1, 0, a] * chances[1, 1 + a, b]  # prefix 0 is empty, prefix 1 + a is "a"
        assert logps[1, s].exp().item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("vocab", "length", "prompts"), [(2, 1, 1), (4, 3, 5), (8, 5, 1)])
def test_tables_and_distributions_are_two_ways_to_say_the_same(vocab: int, length: int, prompts: int) -> None:
    world = ExactWorld(vocab, length, prompts, seed=3)
    logps = world.sequence_logps(world.reference)
    assert logps.shape == (prompts, vocab**length)
    torch.testing.assert_close(logps.logsumexp(dim=-1), torch.zeros(prompts, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(world.sequence_logps(world.table_of(logps)), logps, rtol=0, atol=1e-10)


def test_sampled_and_enumerated_probabilities_and_scores_agree() -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    prompts = torch.arange(20_000) % 2
    draws = world.sample(world.reference, prompts, Seeds(0).torch("test"))
    number = (draws.tokens * torch.tensor([9, 3, 1])).sum(dim=1)
    logps = world.sequence_logps(world.reference)
    torch.testing.assert_close(draws.logps.sum(dim=1), logps[prompts, number])
    assert draws.scores.equal(world.rewards[prompts, number])
    seen = torch.bincount(prompts * 27 + number, minlength=54).view(2, 27)
    expected = 10_000 * logps.exp()
    chi_squared = ((seen - expected).square() / expected).sum().item()
    assert chi_squared < 52 + 4 * math.sqrt(2 * 52)
    again = world.sample(world.reference, prompts, Seeds(0).torch("test"))
    assert again.tokens.equal(draws.tokens)


def test_the_seed_makes_the_world() -> None:
    assert ExactWorld(seed=1).rewards.equal(ExactWorld(seed=1).rewards)
    assert not ExactWorld(seed=1).rewards.equal(ExactWorld(seed=2).rewards)


@pytest.mark.parametrize("wrong", [{"vocab": 9}, {"length": 0}, {"length": 6}, {"prompts": 33}])
def test_worlds_too_large_to_enumerate_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be from"):
        ExactWorld(**wrong)


def test_questions_without_an_answer_are_refused() -> None:
    world = ExactWorld()
    with pytest.raises(ValueError, match="beta must be above 0"):
        world.optimal(0.0)
    with pytest.raises(ValueError, match="n ≥ 1"):
        world.best_of_n(world.reference, 0)
    with pytest.raises(ValueError, match="responses here have 3 tokens"):
        world.scores(torch.zeros(1, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="same shape"):
        world.sequence_logps(world.reference[:, :-1])


# The optimum


def test_the_optimum_is_the_optimum() -> None:
    world = ExactWorld(vocab=4, length=3, prompts=3)
    best = world.optimal(BETA)
    table = best.table.clone().requires_grad_()
    assert gradient(world.objective(table, BETA).sum(), table).abs().max().item() < 1e-12
    torch.testing.assert_close(world.objective(table, BETA), best.value, rtol=0, atol=1e-12)
    # Any policy falls short of J* by exactly β KL(π‖π*).
    other = other_table(world)
    short = best.value - world.objective(other, BETA)
    torch.testing.assert_close(short, BETA * world.kl(other, best.table), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        world.kl(best.table, world.reference), sequence_kl(best.logps, world.sequence_logps(world.reference))
    )


# Policy gradients, by exact enumeration


def enumerated(world: ExactWorld, table: Tensor) -> tuple[Draws, Tensor, Tensor]:
    """Every sequence of every prompt as one batch, its log-probabilities with a gradient, and its probability."""
    prompts = torch.arange(world.prompts).repeat_interleave(world.n_sequences)
    tokens = world.sequences.repeat(world.prompts, 1)
    logps = world.logps(table, prompts, tokens)
    return Draws(prompts, tokens, logps.detach(), world.rewards.flatten()), logps, logps.sum(1).exp().detach()


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_token_and_sequence_level_gradients_agree_without_discount(gamma: float) -> None:
    world = ExactWorld(vocab=4, length=3, prompts=2)
    table = other_table(world)
    draws, logps, chance = enumerated(world, table)
    mask = torch.ones_like(logps)
    price = BETA * kl.k1(draws.logps, world.logps(world.reference, draws.prompts, draws.tokens))
    rewards = returns.place_scores(draws.scores, mask) - price
    to_go = returns.discounted_returns(rewards, mask, gamma=gamma)
    whole = advantages.per_token(rewards.sum(dim=1), mask)
    token, sequence = (
        gradient(
            policy_losses.reinforce(
                logps, chance.unsqueeze(1) * advantage, mask, averaging="seq-mean-token-sum", denominator=1
            ).loss,
            table,
        )
        for advantage in (to_go, whole)
    )
    exact = -gradient(world.objective(table, BETA).sum(), table)
    torch.testing.assert_close(sequence, exact, rtol=0, atol=1e-10)
    if gamma == 1.0:
        torch.testing.assert_close(token, sequence, rtol=0, atol=1e-10)
    else:
        assert (token - sequence).abs().max().item() > 1e-3


def test_what_the_kl_estimators_pull_towards_as_losses() -> None:
    world = ExactWorld(vocab=4, length=3, prompts=2)
    table = other_table(world)
    logps = world.sequence_logps(table)
    ref_logps = world.sequence_logps(world.reference)
    chance = logps.exp().detach()

    def expected(estimator: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return gradient((chance * estimator(world.sequence_logps(table), ref_logps)).sum(), table)

    reverse = gradient(world.kl(table, world.reference).sum(), table)
    forward = gradient(world.kl(world.reference, table).sum(), table)
    assert expected(kl.k1).abs().max().item() < 1e-12
    torch.testing.assert_close(expected(kl.k2), reverse, rtol=0, atol=1e-12)
    torch.testing.assert_close(expected(kl.k3), forward, rtol=0, atol=1e-12)
    torch.testing.assert_close(expected(kl.k3_plus), reverse, rtol=0, atol=1e-12)
    assert (forward - reverse).abs().max().item() > 0.01
    value = (chance * kl.k3_plus(logps, ref_logps)).sum(dim=-1)
    torch.testing.assert_close(value, world.kl(table, world.reference), rtol=0, atol=1e-12)


def test_vocabulary_kl_along_samples_adds_up_to_the_sequence_kl() -> None:
    world = ExactWorld(vocab=4, length=3, prompts=2)
    table = other_table(world).detach()
    draws, _, chance = enumerated(world, table)
    place = draws.prompts.unsqueeze(1), world.prefixes(draws.tokens)
    per_token = kl.exact_kl(table[place], world.reference[place])
    total = (chance.unsqueeze(1) * per_token).sum(dim=1).view(world.prompts, -1).sum(dim=1)
    torch.testing.assert_close(total, world.kl(table, world.reference), rtol=0, atol=1e-12)


# Learning from samples. The signs are +1; the tests below flip them.


def shaped_rewards(world: ExactWorld, draws: Draws, mask: Tensor, *, reward_sign: float, kl_sign: float) -> Tensor:
    ref_logps = world.logps(world.reference, draws.prompts, draws.tokens)
    placed = returns.place_scores(reward_sign * draws.scores, mask)
    return placed - kl_sign * BETA * kl.k1(draws.logps, ref_logps)


def ppo(world: ExactWorld, seed: int, *, reward_sign: float = 1.0, kl_sign: float = 1.0, steps: int = 100) -> Tensor:
    """Clipped PPO from samples: a tabular critic, GAE, two epochs of four minibatches, the KL inside the reward."""
    seeds, batch = Seeds(seed), 256
    policy = world.reference.clone().requires_grad_()
    critic = torch.zeros(world.prompts, world.n_prefixes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [policy], "lr": 0.05}, {"params": [critic], "lr": 0.1}])
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    prompts = torch.arange(batch) % world.prompts
    mask = torch.ones(batch, world.length, dtype=torch.float64)
    for step in range(steps):
        draws = world.sample(policy, prompts, seeds.torch("rollout", step))
        place = prompts.unsqueeze(1), world.prefixes(draws.tokens)
        old_values = critic.detach()[place]
        rewards = shaped_rewards(world, draws, mask, reward_sign=reward_sign, kl_sign=kl_sign)
        found = returns.gae(rewards, old_values, mask, gamma=1.0, lam=0.95)
        for epoch in range(2):
            for rows in torch.tensor(seeds.permutation(batch, "minibatch", step, epoch)).chunk(4):
                here = place[0][rows], place[1][rows]
                logps = world.logps(policy, prompts[rows], draws.tokens[rows])
                actor = policy_losses.ppo_clip(logps, draws.logps[rows], found.advantages_BT[rows], mask[rows])
                value = policy_losses.value_loss(critic[here], old_values[rows], found.returns_BT[rows], mask[rows])
                optimizer.zero_grad()
                (actor.loss + value.loss).backward()
                optimizer.step()
        decay.step()
    return policy.detach()


def reinforce(world: ExactWorld, seed: int, *, reward_sign: float = 1.0, kl_sign: float = 1.0) -> Tensor:
    """REINFORCE from samples, on whole sequences, with the mean of the prompt's other samples as the baseline."""
    seeds, batch, steps = Seeds(seed), 256, 250
    policy = world.reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([policy], lr=0.05)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    prompts = torch.arange(batch) % world.prompts
    mask = torch.ones(batch, world.length, dtype=torch.float64)
    for step in range(steps):
        draws = world.sample(policy, prompts, seeds.torch("rollout", step))
        rewards = shaped_rewards(world, draws, mask, reward_sign=reward_sign, kl_sign=kl_sign)
        advantage = advantages.per_token(advantages.rloo(rewards.sum(dim=1), prompts), mask)
        logps = world.logps(policy, prompts, draws.tokens)
        loss = policy_losses.reinforce(logps, advantage, mask, averaging="seq-mean-token-sum").loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return policy.detach()


LEARNERS: list[Callable[..., Tensor]] = [ppo, reinforce]


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("seed", range(3))
def test_sampled_learning_ends_at_the_optimum(learner: Callable[..., Tensor], seed: int) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2, seed=seed)
    best = world.optimal(BETA).table
    assert world.kl(world.reference, best).min().item() > 0.5
    assert world.kl(learner(world, seed), best).max().item() < 0.05


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("fault", ["reward_sign", "kl_sign"])
def test_a_flipped_sign_does_not_end_there(learner: Callable[..., Tensor], fault: str) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    learned = learner(world, 0, **{fault: -1.0})
    assert world.kl(learned, world.optimal(BETA).table).min().item() > 0.5


# Learning from comparisons


def fitted(world: ExactWorld, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The table that minimises a loss of the sequence log-probabilities, from the reference."""
    table = world.reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], max_iter=300, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(world.sequence_logps(table))
        value.backward()
        return value.item()

    optimizer.step(closure)  # type: ignore[arg-type]
    return table.detach()


def test_the_minimiser_of_dpo_is_the_optimum() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    left, right = torch.combinations(torch.arange(9)).unbind(dim=1)
    p_left = torch.sigmoid(world.rewards[:, left] - world.rewards[:, right]).flatten()
    ref = world.sequence_logps(world.reference)

    def loss(logps: Tensor) -> Tensor:
        sides = (x[:, s].flatten() for x in (logps, ref) for s in (left, right))
        return preference.dpo(*sides, beta=BETA, p_chosen_N=p_left).loss

    best = world.optimal(BETA)
    at_best = best.table.clone().requires_grad_()
    assert gradient(loss(world.sequence_logps(at_best)), at_best).abs().max().item() < 1e-14
    assert world.kl(world.reference, best.table).min().item() > 0.1
    assert world.kl(fitted(world, loss), best.table).max().item() < 1e-6


def test_on_a_certain_pair_ipo_stops_at_its_goal_and_dpo_runs_away() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=1)
    ref = world.sequence_logps(world.reference)[:, [4, 7]].flatten()

    def gap(table: Tensor) -> float:
        chosen, rejected = world.sequence_logps(table)[:, [4, 7]].flatten() - ref
        return float(chosen - rejected)

    def direct(function: Callable[..., preference.DirectLoss]) -> Callable[[Tensor], Tensor]:
        return lambda logps: function(logps[:, 4], logps[:, 7], ref[:1], ref[1:], beta=BETA).loss

    assert gap(fitted(world, direct(preference.ipo))) == pytest.approx(1 / (2 * BETA), abs=1e-6)
    assert gap(fitted(world, direct(preference.dpo))) > 20.0


# Best of n


def test_best_of_n_against_counting_and_its_kl_against_the_formula() -> None:
    world = ExactWorld(vocab=4, length=3, prompts=2)
    ref = world.sequence_logps(world.reference)
    torch.testing.assert_close(world.best_of_n(world.reference, 1), ref)
    gains = [(world.best_of_n(world.reference, n).exp() * world.rewards).sum(dim=-1) for n in (1, 2, 4, 16)]
    assert all(bool((b > a).all()) for a, b in itertools.pairwise(gains))
    for n in (2, 3, 16, 64, 1024):
        distribution = world.best_of_n(world.reference, n)
        assert distribution.exp().sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])
        found = sequence_kl(distribution, ref)
        assert bool((found <= math.log(n) - (n - 1) / n + 1e-12).all())
        assert bool((found <= -ref.gather(1, world.rewards.argmax(dim=1, keepdim=True)).squeeze(1) + 1e-9).all())
    assert sequence_kl(world.best_of_n(world.reference, 2), ref).min().item() > 0.9 * (math.log(2) - 0.5)

    draws = world.sample(world.reference, torch.zeros(60_000, dtype=torch.long), Seeds(0).torch("bon"))
    best_of_three = draws.scores.view(-1, 3).max(dim=1).values
    expected = (world.best_of_n(world.reference, 3)[0].exp() * world.rewards[0]).sum()
    assert (best_of_three.mean() - expected).abs().item() < 4 * best_of_three.std().item() / 20_000**0.5


# The world in the shape of a language model


@pytest.mark.parametrize("padding", [(0, 0), (3, 0), (0, 2), (2, 1)])
def test_the_tabular_model_scores_as_the_world_does_wherever_the_padding_stands(padding: tuple[int, int]) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    model = TabularLM(world, other_table(world))
    draws, _, _ = enumerated(world, world.reference)
    text = torch.cat([draws.prompts.unsqueeze(1) + world.vocab, draws.tokens], dim=1)
    ids = torch.nn.functional.pad(text, padding, value=model.pad_token_id)
    on = torch.nn.functional.pad(torch.ones_like(text), padding)
    start = padding[0]
    for mask in (on, None):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        assert logits.shape == (*ids.shape, model.vocab_size)
        logps = token_logps(logits[:, start : start + world.length], draws.tokens)
        expected = world.logps(model.table, draws.prompts, draws.tokens)
        torch.testing.assert_close(logps, expected, rtol=0, atol=1e-12)
        after = logits[:, start + world.length].softmax(dim=-1)
        assert after[:, model.eos_token_id].eq(1).all()
        ours, truth = (gradient(x[7].sum(), model.table) for x in (logps, expected))
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)


def test_the_tabular_model_never_says_prompts_or_padding_and_ends_after_an_end() -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2)
    model = TabularLM(world)
    chances = model(torch.tensor([[world.vocab, 0, model.eos_token_id, model.pad_token_id]])).logits.softmax(dim=-1)
    torch.testing.assert_close(chances[0, :2, : world.vocab].sum(dim=-1), torch.ones(2, dtype=torch.float64))
    assert chances[0, 2:, model.eos_token_id].eq(1).all()


def test_the_tabular_critic_reads_its_table_and_is_silent_after_the_end() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    critic = TabularCritic(world)
    with torch.no_grad():
        critic.table.copy_(torch.arange(8.0).view(2, 4))
    pad = 6
    ids = torch.tensor([[pad, 3, 2, 0], [4, 0, 1, pad]])
    values = critic(ids, (ids != pad).long())
    assert values[0, 1:].tolist() == [0.0, 3.0, 0.0]
    assert values[1, :3].tolist() == [4.0, 5.0, 0.0]


def test_a_text_without_a_prompt_is_refused() -> None:
    model = TabularLM(ExactWorld(vocab=3, length=2, prompts=2))
    with pytest.raises(ValueError, match="row 1 must start with a prompt token, 3 … 4"):
        model(torch.tensor([[3, 0], [0, 1]]))
    with pytest.raises(ValueError, match="row 0 must start with a prompt"):
        model(torch.tensor([[model.pad_token_id, model.pad_token_id]]))
