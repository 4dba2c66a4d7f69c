"""Gradients of an exact world written out: expectations over every completion, and how samples of them scatter.

A gradient of this kind is Σ_t w_t ∇ log π(y_t | x, y_<t); methods differ by the weights w. The rewards are those of the
regularised problem, −β (log π − log ρ) on every token and the score on the last.

Legend: P prompts, S sequences, T tokens, N prefixes, V vocabulary, R sampled rows, n batches.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from backflip.maths.returns import discounted_returns, gae
from backflip.worlds.exact import ExactWorld


def exact_gradient(world: ExactWorld, table: Tensor, beta: float) -> Tensor:
    """∇ of the mean over prompts of E[r] − β KL(π‖ρ), by enumeration; (P, N, V)."""
    table = table.detach().clone().requires_grad_()
    return torch.autograd.grad(world.objective(table, beta).mean(), table)[0]


def every_row(world: ExactWorld) -> tuple[Tensor, Tensor]:
    """All completions of all prompts: prompts (P·S,) and tokens (P·S, T)."""
    prompts = torch.arange(world.prompts).repeat_interleave(world.n_sequences)
    return prompts, world.sequences.repeat(world.prompts, 1)


def rewards_of(world: ExactWorld, table: Tensor, prompts: Tensor, tokens: Tensor, beta: float) -> Tensor:
    """Reward per token, (R, T): −β (log π − log ρ), and the score on the last."""
    rewards = -beta * (world.logps(table, prompts, tokens) - world.logps(world.reference, prompts, tokens))
    last = one_hot(torch.tensor(world.length - 1), world.length)
    return rewards + last * world.scores(prompts, tokens).unsqueeze(-1)


def to_go(rewards_RT: Tensor, gamma: float = 1.0) -> Tensor:
    """What is still to come from each token on, (R, T): the weights of token-level REINFORCE."""
    return discounted_returns(rewards_RT, torch.ones_like(rewards_RT), gamma=gamma)


def whole(rewards_RT: Tensor) -> Tensor:
    """Everything, on every token, (R, T): those of a contextual bandit whose actions are completions."""
    return rewards_RT.sum(1, keepdim=True).expand_as(rewards_RT)


def expected_gradient(world: ExactWorld, table: Tensor, weights_RT: Tensor) -> Tensor:
    """E[Σ_t w_t ∇ log π_t], the mean over prompts, with the weights of `every_row`; (P, N, V)."""
    prompts, tokens = every_row(world)
    chances = world.sequence_logps(table).exp().flatten() / world.prompts
    return score_gradients(world, table, prompts, tokens, weights_RT * chances.unsqueeze(-1), batches=1)[0]


def score_gradients(
    world: ExactWorld, table: Tensor, prompts: Tensor, tokens: Tensor, weights_RT: Tensor, *, batches: int
) -> Tensor:
    """Σ over rows and tokens of w ∇ log π, for each of `batches` runs of consecutive rows; (n, P, N, V).

    ∇ log softmax(z)_a = e_a − softmax(z), at the logits of the token's own prefix.
    """
    places = world.prefixes(tokens)
    chances = table.softmax(dim=-1)[prompts.unsqueeze(-1), places]
    each = weights_RT.unsqueeze(-1) * (one_hot(tokens, world.vocab) - chances)
    batch = torch.arange(len(tokens)) // (len(tokens) // batches)
    index = (batch * world.prompts + prompts).unsqueeze(-1) * world.n_prefixes + places
    total = torch.zeros(batches * world.prompts * world.n_prefixes, world.vocab, dtype=table.dtype)
    return total.index_add_(0, index.flatten(), each.flatten(0, 1)).view(batches, *table.shape)


def exact_values(world: ExactWorld, table: Tensor, beta: float) -> Tensor:
    """V of every prompt and prefix, (P, N): what is still to come under the policy, penalties included."""
    prompts, tokens = every_row(world)
    to_come = to_go(rewards_of(world, table, prompts, tokens, beta)).view(world.prompts, world.n_sequences, world.length)
    weighted = world.sequence_logps(table).exp().unsqueeze(-1) * to_come
    levels = [weighted[..., t].reshape(world.prompts, world.vocab**t, -1).sum(-1) for t in range(world.length)]
    return torch.cat(levels, dim=1) / prefix_chances(world, table)


def prefix_chances(world: ExactWorld, table: Tensor) -> Tensor:
    """How likely a completion of each prompt goes through each prefix, (P, N)."""
    chances = world.sequence_logps(table).exp()
    levels = [chances.view(world.prompts, world.vocab**t, -1).sum(-1) for t in range(world.length)]
    return torch.cat(levels, dim=1)


def compare(batches: Tensor, exact: Tensor, *, rows: int) -> dict[str, float]:
    """How gradients of n batches of `rows` completions, (n, …), compare with the exact one of the same shape.

    `along` is the distance of their mean from the exact gradient, measured along it, and `spread` the root mean square of the
    distances of all coordinates (1 by chance); both in standard errors. `cosine` and `norm` (the ratio to the exact one's) are
    corrected for the noise of the mean. `noise` is the variance that one completion contributes, over the mean's squared norm.
    """
    flat, exact = batches.flatten(1), exact.flatten()
    n, length = len(flat), exact.norm()
    mean, variance = flat.mean(0), flat.var(0)
    error = (variance / n).sqrt()
    varies = error > 1e-12
    z = (mean - exact)[varies] / error[varies]
    projected = flat @ exact / length
    square = (mean.square().sum() - variance.sum() / n).clamp(min=1e-30)
    return {
        "along": ((projected.mean() - length) / (projected.std() / n**0.5).clamp(min=1e-12)).item(),
        "spread": z.square().mean().sqrt().item(),
        "cosine": min(1.0, (mean @ exact / (length * square.sqrt())).item()),
        "norm": (square.sqrt() / length).item(),
        "noise": (variance.sum() * rows / square).item(),
    }


def estimators(world: ExactWorld, table: Tensor, prompts: Tensor, tokens: Tensor, beta: float) -> dict[str, Tensor]:
    """The weights (R, T) that each way of crediting tokens gives to sampled completions, by name."""
    rewards = rewards_of(world, table, prompts, tokens, beta)
    values = exact_values(world, table, beta)[prompts.unsqueeze(-1), world.prefixes(tokens)]
    on, nothing = torch.ones_like(rewards), torch.zeros_like(rewards)

    def credited(critic: Tensor, lam: float) -> Tensor:
        return gae(rewards, critic, on, gamma=1.0, lam=lam).advantages_BT

    return {
        "whole completions": whole(rewards),
        "whole completions less the prompt's mean": whole(rewards) - values[:, :1],
        "tokens, what is to come": to_go(rewards),
        "tokens, GAE λ = 1, exact critic": credited(values, 1.0),
        "tokens, GAE λ = 0.95, exact critic": credited(values, 0.95),
        "tokens, GAE λ = 0, exact critic": credited(values, 0.0),
        "tokens, GAE λ = 0.95, critic of zeros": credited(nothing, 0.95),
        "tokens, GAE λ = 0, critic of zeros": credited(nothing, 0.0),
        "tokens, what is to come, γ = 0.9": to_go(rewards, 0.9),
    }


def credit(
    world: ExactWorld, table: Tensor, beta: float, *, batches: int, rows: int, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """How each way of crediting tokens compares with the exact gradient over the same completions, and its exact bias.

    Every batch has as many completions of each prompt. `bias` is the distance of the expected gradient, by enumeration, from the
    exact one, over the exact one's norm.
    """
    exact = exact_gradient(world, table, beta)
    prompts = torch.arange(batches * rows) % world.prompts
    drawn = world.sample(table, prompts, generator)
    expected = estimators(world, table, *every_row(world), beta)
    found = {}
    for name, weights in estimators(world, table, prompts, drawn.tokens, beta).items():
        gradients = score_gradients(world, table, prompts, drawn.tokens, weights / rows, batches=batches)
        bias = (expected_gradient(world, table, expected[name]) - exact).norm() / exact.norm()
        found[name] = compare(gradients, exact, rows=rows) | {"bias": bias.item()}
    return found


def levels(world: ExactWorld, table: Tensor, beta: float, gamma: float) -> Mapping[str, float]:
    """Token level against sequence level: the largest difference of the expected gradients at γ = 1, and the cosine and the ratio
    of norms of the token-level one at `gamma` to the exact one."""
    rewards = rewards_of(world, table, *every_row(world), beta)
    sequence = expected_gradient(world, table, whole(rewards))
    token = expected_gradient(world, table, to_go(rewards))
    discounted = expected_gradient(world, table, to_go(rewards, gamma))
    return {
        "difference": (sequence - token).abs().max().item(),
        "cosine": cosine_similarity(discounted.flatten(), sequence.flatten(), dim=0).item(),
        "norm": (discounted.norm() / sequence.norm()).item(),
    }
