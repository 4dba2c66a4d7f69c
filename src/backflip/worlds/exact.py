"""A world small enough to enumerate, where everything usually estimated can be computed.

Prompts are numbers, a response is exactly T tokens out of V, and every one of the V^T responses to every prompt has a
gold reward. A policy is a table of logits with one row per prompt and response prefix, so any distribution over
responses can be written, and the KL-regularised optimum π*(y|x) ∝ π_ref(y|x) exp(r(x,y)/β) is known. It is
Murphy's contextual bandit whose actions are strings, and the oracle that algorithms are tested against.

Shapes: P prompts, S = V^T sequences, N = 1 + V + … + V^(T−1) prefixes, V tokens, T length, B rows, L positions of a
padded text. Tables are float64: policies (P, N, V), distributions over sequences (P, S) as log-probabilities in
nats. Sequence s is the number whose T digits in base V are its tokens, the first token the most significant;
prefixes stand shortest first and, within a length, in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from backflip.maths.tensors import check_shapes, token_logps
from backflip.seeds import Seeds


class Optimum(NamedTuple):
    """π* as a distribution over sequences (P, S) and as a policy table (P, N, V), and J* = β log Z per prompt (P,)."""

    logps: Tensor
    table: Tensor
    value: Tensor


class Draws(NamedTuple):
    """Sampled responses: their prompts (B,), tokens (B, T), log-probabilities per token (B, T) and gold scores (B,)."""

    prompts: Tensor
    tokens: Tensor
    logps: Tensor
    scores: Tensor


class ExactWorld:
    """`prompts` prompts, responses of `length` tokens out of `vocab`, a random reference policy and gold rewards.

    Both are drawn from `seed`: reference logits and rewards are standard normal. At most 8 tokens, length 5 and 32
    prompts; raises ValueError beyond. `reference` is (P, N, V), `rewards` (P, S), `sequences` (S, T).
    """

    def __init__(self, vocab: int = 4, length: int = 3, prompts: int = 2, seed: int = 0) -> None:
        for name, value, low, high in (
            ("vocab", vocab, 2, 8),
            ("length", length, 1, 5),
            ("prompts", prompts, 1, 32),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high} for the world to be enumerable, not {value}")
        self.vocab, self.length, self.prompts = vocab, length, prompts
        self.n_sequences = vocab**length
        self.n_prefixes = sum(vocab**t for t in range(length))
        seeds = Seeds(seed)
        self.reference = _normal(seeds, "reference", prompts, self.n_prefixes, vocab)
        self.rewards = _normal(seeds, "rewards", prompts, self.n_sequences)
        powers_T = vocab ** torch.arange(length - 1, -1, -1)
        self.sequences = torch.arange(self.n_sequences).unsqueeze(-1) // powers_T % vocab

    def sequence_logps(self, table: Tensor) -> Tensor:
        """log π(y|x) of every sequence under the policy `table`, (P, S); differentiable."""
        self._check_table(table)
        logps = torch.zeros(self.prompts, 1, dtype=table.dtype)
        start = 0
        for t in range(self.length):
            stop = start + self.vocab**t
            logps = (logps.unsqueeze(-1) + table[:, start:stop].log_softmax(dim=-1)).flatten(1)
            start = stop
        return logps

    def table_of(self, logps: Tensor) -> Tensor:
        """The policy table (P, N, V) whose sequence distribution is `logps` (P, S): its logits are log-conditionals."""
        levels: list[Tensor] = []
        for _ in range(self.length):
            children = logps.reshape(self.prompts, -1, self.vocab)
            levels.append(children.log_softmax(dim=-1))
            logps = children.logsumexp(dim=-1)
        return torch.cat(levels[::-1], dim=1)

    def expected_reward(self, table: Tensor) -> Tensor:
        """E_{y~π}[r(x, y)] per prompt, (P,); differentiable."""
        return (self.sequence_logps(table).exp() * self.rewards).sum(dim=-1)

    def kl(self, table: Tensor, other: Tensor) -> Tensor:
        """KL(π‖other) of two policy tables in nats per sequence, (P,); differentiable in both."""
        return sequence_kl(self.sequence_logps(table), self.sequence_logps(other))

    def objective(self, table: Tensor, beta: float) -> Tensor:
        """J(π) = E_π[r] − β KL(π‖π_ref) per prompt, (P,); differentiable: autograd gives the exact gradient."""
        return self.expected_reward(table) - beta * self.kl(table, self.reference)

    def optimal(self, beta: float) -> Optimum:
        """The maximiser of `objective`: π* ∝ π_ref exp(r/β), with J* = β log Z (Rafailov et al. 2305.18290, eq. 4)."""
        if not beta > 0.0:
            raise ValueError(f"without a KL penalty the optimum is a point; beta must be above 0, not {beta}")
        tilted = self.sequence_logps(self.reference) + self.rewards / beta
        log_z = tilted.logsumexp(dim=-1, keepdim=True)
        logps = tilted - log_z
        return Optimum(logps, self.table_of(logps), beta * log_z.squeeze(-1))

    def best_of_n(self, table: Tensor, n: int) -> Tensor:
        """log-probabilities (P, S) of the best by gold reward of n independent samples from `table`.

        With F the probability of a reward no larger: F(y)ⁿ − F(next worse)ⁿ. Of equal rewards the higher-numbered
        sequence counts as better.
        """
        if n < 1:
            raise ValueError(f"best of n needs n ≥ 1, not {n}")
        order = self.rewards.argsort(dim=-1, stable=True)
        logps = self.sequence_logps(table)
        below = torch.nn.functional.pad(logps.exp().gather(-1, order).cumsum(dim=-1).clamp(max=1.0), (1, 0))
        chance = below[:, 1:].pow(n) - below[:, :-1].pow(n)
        return torch.zeros_like(chance).scatter(-1, order, chance).log()

    def sample(self, table: Tensor, prompts: Tensor, generator: torch.Generator) -> Draws:
        """One response for each entry of `prompts` (B,), drawn token by token with `generator`; no gradient."""
        self._check_table(table)
        chances = table.detach().softmax(dim=-1)
        tokens = torch.zeros(len(prompts), 0, dtype=torch.long)
        for _ in range(self.length):
            here = self.prefixes(torch.cat([tokens, torch.zeros(len(prompts), 1, dtype=torch.long)], dim=1))[:, -1]
            drawn = torch.multinomial(chances[prompts, here], 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
        return Draws(prompts, tokens, self.logps(table.detach(), prompts, tokens), self.scores(prompts, tokens))

    def prefixes(self, tokens: Tensor) -> Tensor:
        """The number of the prefix before each token of `tokens` (B, T′ ≤ T), same shape."""
        numbers, start, code = [], 0, torch.zeros_like(tokens[:, 0])
        for t in range(tokens.shape[1]):
            numbers.append(start + code)
            start, code = start + self.vocab**t, code * self.vocab + tokens[:, t]
        return torch.stack(numbers, dim=1)

    def logps(self, table: Tensor, prompts: Tensor, tokens: Tensor) -> Tensor:
        """log π of each token of `tokens` (B, T) after its prompt (B,) and prefix, (B, T); differentiable."""
        return token_logps(table[prompts.unsqueeze(-1), self.prefixes(tokens)], tokens)

    def scores(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """The gold reward of each response of T tokens, (B,). Raises ValueError for another length."""
        if tokens.shape[1] != self.length:
            raise ValueError(f"responses here have {self.length} tokens, not {tokens.shape[1]}")
        powers_T = self.vocab ** torch.arange(self.length - 1, -1, -1)
        return self.rewards[prompts, (tokens * powers_T).sum(dim=-1)]

    def _check_table(self, table: Tensor) -> None:
        check_shapes(table=table, reference=self.reference)


def sequence_kl(logps: Tensor, other: Tensor) -> Tensor:
    """KL of two distributions over sequences given as log-probabilities (P, S): nats per sequence, (P,)."""
    check_shapes(logps=logps, other=other)
    never = logps == -torch.inf
    gap = logps.masked_fill(never, 0.0) - other.masked_fill(never, 0.0)
    return (logps.exp() * gap).sum(dim=-1)


class LMOutput(NamedTuple):
    """What `TabularLM` returns: logits (B, L, vocabulary)."""

    logits: Tensor


class TabularLM(torch.nn.Module):
    """A policy of an exact world in the shape of a causal language model, so that real loops can run in it.

    Tokens 0 … V−1 are the world's, V … V+P−1 are the prompts (each one token), then `eos_token_id` and
    `pad_token_id`. After T response tokens the end follows with certainty, so generation ends by itself. `table` is
    the one parameter; it starts as the world's reference unless given.
    """

    def __init__(self, world: ExactWorld, table: Tensor | None = None) -> None:
        super().__init__()
        self.world = world
        self.table = torch.nn.Parameter((world.reference if table is None else table).detach().clone())
        self.eos_token_id = world.vocab + world.prompts
        self.pad_token_id = self.eos_token_id + 1
        self.vocab_size = self.pad_token_id + 1

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **ignored: Any,
    ) -> LMOutput:
        """Logits (B, L, vocabulary) of the next token at every position; padding may stand on either side.

        Positions follow from the mask (from `pad_token_id` without one), so `position_ids` and further arguments
        have no effect. Raises ValueError for a row whose first unmasked token is not a prompt.
        """
        if attention_mask is None:
            attention_mask = input_ids != self.pad_token_id
        state = locate(self.world, input_ids, attention_mask)
        known = self.table[state.prompts, state.prefixes.clamp(max=self.world.n_prefixes - 1)]
        known = known.masked_fill(state.over.unsqueeze(-1), NEVER)
        others = torch.full((*input_ids.shape, self.vocab_size - self.world.vocab), NEVER, dtype=known.dtype)
        others[..., self.eos_token_id - self.world.vocab].masked_fill_(state.over, 0.0)
        return LMOutput(torch.cat([known, others], dim=-1))


class TabularCritic(torch.nn.Module):
    """A value per prompt and prefix in the shape of a value model; `table` (P, N) is its parameter and starts at 0."""

    def __init__(self, world: ExactWorld) -> None:
        super().__init__()
        self.world = world
        self.table = torch.nn.Parameter(torch.zeros(world.prompts, world.n_prefixes, dtype=torch.float64))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The value (B, L) of the text up to each position; 0 once the response is complete."""
        state = locate(self.world, input_ids, attention_mask)
        values = self.table[state.prompts, state.prefixes.clamp(max=self.world.n_prefixes - 1)]
        return values.masked_fill(state.over, 0.0)


# A logit so low that its softmax is exactly 0, and finite so that 0 · logit is 0 and not NaN.
NEVER = -1e9


class State(NamedTuple):
    """Where each position of a padded text is: its prompt, its prefix, and whether the response is over; (B, L)."""

    prompts: Tensor
    prefixes: Tensor
    over: Tensor


def locate(world: ExactWorld, input_ids: Tensor, attention_mask: Tensor) -> State:
    """Read rows of one prompt token (V … V+P−1) and response tokens (0 … V−1), padded on either side.

    Any other token ends the response. On padding the state is that of the last token before it.
    Raises ValueError, naming the row, when the first unmasked token is not a prompt.
    """
    check_shapes(input_ids=input_ids, attention_mask=attention_mask)
    on = attention_mask.bool()
    first = input_ids.gather(1, on.int().argmax(dim=1, keepdim=True)) - world.vocab
    wrong = (~on.any(dim=1) | (first.squeeze(1) < 0) | (first.squeeze(1) >= world.prompts)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"row {row} must start with a prompt token, {world.vocab} … {world.vocab + world.prompts - 1}")
    depth = (on.cumsum(dim=1) - 1).clamp(min=0)
    is_response = on & (depth > 0)
    prefix = torch.zeros_like(first.squeeze(1))
    over = torch.zeros_like(prefix, dtype=torch.bool)
    prefixes, overs = [], []
    for column in range(input_ids.shape[1]):
        token, moves = input_ids[:, column], is_response[:, column]
        over = over | (moves & (token >= world.vocab))
        # The children of prefix k are k·V + 1 … k·V + V when prefixes are numbered shortest first.
        prefix = torch.where(moves & ~over, prefix * world.vocab + 1 + token, prefix)
        over = over | (prefix >= world.n_prefixes)
        prefixes.append(prefix)
        overs.append(over)
    return State(first.expand_as(input_ids), torch.stack(prefixes, dim=1), torch.stack(overs, dim=1))


def _normal(seeds: Seeds, purpose: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeds.torch("exact world", purpose), dtype=torch.float64)
