"""Several turns: the policy writes until its action ends, an environment answers, and what it says joins what is read next.

    query                    response
    prompt [opening]         a a a a </calc> r r r a a a <eos>
    acted                    1 1 1 1 1       0 0 0 1 1 1 1
    rewards                  0 0 0 0 .       0 0 0 0 0 0 .

Tokens are appended, never read again as text and cut anew, so the policy is scored on exactly those it drew.

Legend: B rows, T response columns, S bytes for the vocabulary's bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backflip.envs.text import MakeEnvironment, Step, TextEnvironment
from backflip.errors import BackflipError, ConfigError, DataError, NonFiniteError, UserError
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import pad, token_batch
from backflip.records import Prompt
from backflip.rollout.draws import Rollout
from backflip.rollout.local import generate
from backflip.rollout.masking import Nucleus
from backflip.seeds import Seeds
from backflip.settings import Sampling


@dataclass
class _Episode:
    """One row under way."""

    environment: TextEnvironment
    query: list[int]
    ids: list[int] = field(default_factory=list)
    acted: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    allowed: list[Tensor] = field(default_factory=list)
    over: bool = False
    finished: bool = False

    def append(self, ids: Sequence[int], logps: Sequence[float], allowed_TS: Tensor | None, *, acted: int) -> None:
        self.ids += ids
        self.logps += logps
        self.acted += [acted] * len(ids)
        self.rewards += [0.0] * len(ids)
        if allowed_TS is not None:
            self.allowed.append(allowed_TS)


def converse(
    policy: LanguagePolicy, queries: Sequence[Sequence[int]], prompts: Sequence[Prompt], make: MakeEnvironment,
    settings: Sampling, *, seeds: Seeds, mask: Nucleus | None = None,
) -> Rollout:  # fmt: skip
    """One episode for each row; turn k of row i draws from the generator ("row", i) of `seeds`' child ("turn", k).

    `settings.max_new_tokens` is the room for a whole response, the environment's words included; an episode that fills it
    before the environment calls it done is unfinished. Raises ConfigError for an encoder–decoder, which cannot read its own
    response as a query; DataError for an opening that leaves no room; UserError for an environment that raises, and
    NonFiniteError for a reward that is no finite number.
    """
    if not policy.form.one_text:
        raise ConfigError("an environment of several turns needs a causal model; an encoder–decoder reads its query only once")
    limit = settings.max_new_tokens
    episodes = [_begin(policy, list(query), prompt, make(), limit) for query, prompt in zip(queries, prompts, strict=True)]
    turn = 0
    while rows := [i for i, episode in enumerate(episodes) if not episode.over]:
        _take_turn(policy, episodes, rows, settings, seeds.child("turn", turn), mask)
        turn += 1
    return _laid(policy, episodes)


def _begin(policy: LanguagePolicy, query: list[int], prompt: Prompt, environment: TextEnvironment, limit: int) -> _Episode:
    opening = environment.reset(prompt)
    query += policy.encode_completion(opening, eos=False) if opening else []
    if len(query) + limit > policy.context:
        raise DataError(
            f"a prompt with its environment's opening is {len(query)} tokens long and with {limit} new ones exceeds the model's "
            f"context of {policy.context}; shorten it or lower max_new_tokens: {prompt.plain[:60]!r}"
        )
    return _Episode(environment, query)


def _take_turn(
    policy: LanguagePolicy, episodes: list[_Episode], rows: list[int], settings: Sampling, seeds: Seeds, mask: Nucleus | None
) -> None:
    """An action of every row that is under way, and the answers to them."""
    room = {i: settings.max_new_tokens - len(episodes[i].ids) for i in rows}
    stops = dict.fromkeys([*settings.stop, *(stop for i in rows for stop in episodes[i].environment.stops)])
    turn = dataclasses.replace(settings, max_new_tokens=max(room.values()), stop=tuple(stops), ignore_eos=False)
    queries = [episodes[i].query + episodes[i].ids for i in rows]
    rollout = generate(policy, queries, turn, seeds=seeds, rows=rows, mask=mask)
    lengths = rollout.tokens.mask_BT.sum(1).tolist()
    drawn = zip(rows, lengths, rollout.tokens.response_BT.tolist(), rollout.logps_BT.tolist(), strict=True)
    for place, (i, length, ids, logps) in enumerate(drawn):
        episode, n = episodes[i], min(length, room[i])
        allowed = None if rollout.allowed_BTS is None else rollout.allowed_BTS[place, :n]
        episode.append(ids[:n], logps[:n], allowed, acted=1)
        if n == length and bool(rollout.finished_B[place]):
            _answer(policy, episode, policy.decode(ids[:n]), settings.max_new_tokens)
        else:
            episode.over = True


def _answer(policy: LanguagePolicy, episode: _Episode, action: str, limit: int) -> None:
    """What the environment says to an action that is complete."""
    state, reward, done = _step(episode.environment, action)
    episode.rewards[-1] += reward
    episode.over = episode.finished = done
    if not done:
        ids = policy.encode_completion(state, eos=False)[: limit - len(episode.ids)] if state else []
        nothing = episode.allowed[-1].new_zeros(len(ids), episode.allowed[-1].shape[1]) if episode.allowed else None
        episode.append(ids, [0.0] * len(ids), nothing, acted=0)
        episode.over = len(episode.ids) >= limit


def _step(environment: TextEnvironment, action: str) -> Step:
    """What the environment says, checked."""
    name = type(environment).__name__
    try:
        state, reward, done = environment.step(action)
        step = Step(str(state), float(reward), bool(done))
    except BackflipError:
        raise
    except Exception as problem:
        raise UserError(
            f"environment {name!r} failed on {action[:60]!r}: {type(problem).__name__}: {problem}; step returns state, reward "
            "and done for any text"
        ) from problem
    if not math.isfinite(step.reward):
        raise NonFiniteError(f"environment {name!r} pays {step.reward} for {action[:60]!r}; a reward is a finite number")
    return step


def _laid(policy: LanguagePolicy, episodes: Sequence[_Episode]) -> Rollout:
    """All episodes as one rectangle."""
    device = policy.device
    tokens = token_batch([e.query for e in episodes], [e.ids for e in episodes], fill=policy.fill_id).to(device)
    width = tokens.response_BT.shape[1]

    def column(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in values], device=device)

    allowed_BTS = None
    if any(e.allowed for e in episodes):
        each = [torch.cat(e.allowed) for e in episodes]
        allowed_BTS = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
    acted_BT, _ = pad([e.acted for e in episodes], fill=0, left=False)
    return Rollout(
        tokens=tokens,
        logps_BT=column([e.logps for e in episodes]),
        finished_B=torch.tensor([e.finished for e in episodes], device=device),
        allowed_BTS=allowed_BTS,
        acted_BT=acted_BT.to(device),
        rewards_BT=column([e.rewards for e in episodes]),
    )
