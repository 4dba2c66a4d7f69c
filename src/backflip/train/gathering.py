"""What a step learns from before anything is learned: prompts, their completions, and what those were worth.

Legend: B rows, T response columns, P prompts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backflip.envs.text import MakeEnvironment
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt
from backflip.rewards.lengths import Overlong
from backflip.rewards.protocol import RewardFunction, score
from backflip.rewards.spans import PrefixLengths, Span, place_spans
from backflip.rewards.weighted import Weighted, judge
from backflip.rollout.conversation import converse
from backflip.rollout.draws import Rollout
from backflip.rollout.local import cut, generate
from backflip.rollout.masking import Nucleus
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Online
from backflip.train.episodes import Ends, ReadyPrompt, find_ends, loss_mask, texts
from backflip.train.stopwatch import Stopwatch

SAME = 1e-6
"""Scores of a prompt's completions whose standard deviation is below this are all the same."""


class Judged(NamedTuple):
    """What the completions of a step were worth: their text, the score that is optimised, the raw one, and those
    that are only watched, the gold one and the sentinel's; the score of the prompt's greedy completion where one was asked
    for; rewards inside the completions where there are any, (B, T), part of the score, and the tokens that end what they are
    for, 1 there and 0 elsewhere; and what a composed reward says of its parts."""

    texts: list[str]
    scores_B: Tensor
    proxy: list[float]
    gold: list[float] | None
    sentinel: list[float] | None
    found_B: Tensor
    kept_B: Tensor
    baseline_B: Tensor | None = None
    inside_BT: Tensor | None = None
    steps_BT: Tensor | None = None
    parts: dict[str, float] = {}  # noqa: RUF012


class Draw(NamedTuple):
    """Prompts, a completion of each row, and their worth."""

    prompts: list[Prompt]
    rollout: Rollout
    judged: Judged

    def spread(self, size: int) -> Tensor:
        """Standard deviation of the optimised scores of each prompt's `size` completions, (P,)."""
        return self.judged.scores_B.view(-1, size).std(1)


@dataclass
class Source:
    """Draws completions for prompts and has them judged: by `reward`, and for the log by `gold` and the `sentinel`.

    `mask`, where there is one, says which tokens may be drawn (NLPO). With an `environment` a completion is an episode of several
    turns, what it earned there is its score, and `reward`, if there is any, comes on top.
    """

    policy: LanguagePolicy
    prompts: Sequence[ReadyPrompt]
    reward: RewardFunction | None
    gold: RewardFunction | None
    sentinel: RewardFunction | None
    settings: Online
    seeds: Seeds
    stops: Tensor
    mask: Nucleus | None = None
    environment: MakeEnvironment | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    drawn: int = 0
    """Batches of prompts drawn so far, where a step may draw several."""

    def gather(self, step: int) -> tuple[Draw, dict[str, float]]:
        """The step's completions and what they are worth.

        With `max_draws` above 1, prompts whose completions all score the same teach nothing and are replaced by new ones, as
        long as draws last; only then do such groups fill the batch (dynamic sampling, Yu et al. 2025, section 3.2).
        """
        s, size = self.settings, self.settings.num_generations
        draws: list[Draw] = []
        live: list[tuple[int, int]] = []
        dead: list[tuple[int, int]] = []
        for attempt in range(s.max_draws):
            with self.watch.timed("rollout"):
                prompts, rollout = self.sample(step, attempt)
            with self.watch.timed("reward"):
                draws.append(Draw(prompts, rollout, self.judge(prompts, rollout)))
            if s.max_draws == 1:
                return draws[0], {}
            for group, spread in enumerate(draws[-1].spread(size).tolist()):
                (live if spread > SAME else dead).append((attempt, group))
            if len(live) >= s.batch_size // size:
                break
        self.drawn += len(draws)
        chosen = [*live, *dead][: s.batch_size // size]
        metrics = {"group/draws": float(len(draws)), "group/drawn_zero_std_share": len(dead) / (len(live) + len(dead))}
        return join(draws, chosen, size, fill=self.policy.fill_id), metrics

    def sample(self, step: int, attempt: int = 0) -> tuple[list[Prompt], Rollout]:
        """Prompts, each `num_generations` times, and a completion for every row; `attempt` counts the draws of a step."""
        s = self.settings
        batch = step if s.max_draws == 1 else self.drawn + attempt
        chosen = cyclic_batch(self.seeds, len(self.prompts), s.batch_size // s.num_generations, batch)
        rows = [self.prompts[i] for i in chosen for _ in range(s.num_generations)]
        seeds = self.seeds.child("rollout", step, *(("again", attempt) if attempt else ()))
        queries, prompts = [row.ids for row in rows], [row.prompt for row in rows]
        if self.environment is None:
            return prompts, generate(self.policy, queries, s.sampling, seeds=seeds, mask=self.mask)
        return prompts, converse(self.policy, queries, prompts, self.environment, s.sampling, seeds=seeds, mask=self.mask)

    def judge(self, prompts: list[Prompt], rollout: Rollout) -> Judged:
        """What the completions are worth, and with ReMax what greedy ones of the same prompts would be."""
        judged = self._score_texts(prompts, rollout)
        if self.gold is not None:
            judged = judged._replace(gold=score(self.gold, prompts, judged.texts))
        if self.sentinel is not None:
            judged = judged._replace(sentinel=score(self.sentinel, prompts, judged.texts))
        if self.settings.advantage_estimator == "remax":
            judged = judged._replace(baseline_B=self._greedy_scores(prompts, rollout.tokens))
        return judged

    def _score_texts(self, prompts: list[Prompt], rollout: Rollout) -> Judged:
        """Cut each completion where it ends and score the text; one that never ends gets the penalty instead, and one that
        nears the greatest length loses what the settings say."""
        s, tokens = self.settings, rollout.tokens
        ends = self._ends(rollout)
        completions = [cut(text, s.sampling.stop) for text in texts(self.policy, tokens, ends.kept_B)]
        kept = [row[:n] for row, n in zip(tokens.response_BT.tolist(), ends.kept_B.tolist(), strict=True)]
        thought = judge(self.reward, prompts, completions, completion_ids=kept) if self.reward is not None else None
        proxy = [0.0] * len(tokens) if thought is None else thought.scores
        inside_BT, steps_BT = rollout.rewards_BT, _turn_ends(rollout)
        if inside_BT is not None:
            proxy = [own + earned for own, earned in zip(proxy, inside_BT.sum(1).tolist(), strict=True)]
        if thought is not None and thought.has_spans:
            kept_BT = loss_mask(tokens, ends.kept_B, past_the_end="mask")
            lengths = [PrefixLengths(ids, text, self.policy.decode) for ids, text in zip(kept, completions, strict=True)]
            placed_BT = place_spans(thought.spans, lengths, kept_BT)
            inside_BT = placed_BT if inside_BT is None else inside_BT + placed_BT
            counted = [[Span(span.start, span.end, 1.0) for span in spans] for spans in thought.spans]
            ends_BT = (place_spans(counted, lengths, kept_BT) > 0).long()
            steps_BT = ends_BT if steps_BT is None else steps_BT | ends_BT
        scores_B = torch.tensor(proxy, device=self.policy.device)
        if s.missing_penalty is not None:
            scores_B = scores_B.where(ends.found_B, torch.full_like(scores_B, s.missing_penalty))
        if s.overlong_buffer:
            overlong = Overlong(max_length=s.sampling.max_new_tokens, cache=s.overlong_buffer)
            scores_B = scores_B + scores_B.new_tensor(overlong([], completions, completion_ids=kept))
        parts = {} if thought is None else thought.metrics() if isinstance(self.reward, Weighted) else thought.figures
        if rollout.acted_BT is not None:
            parts = parts | _turns(rollout)
        return Judged(completions, scores_B, proxy, None, None, ends.found_B, ends.kept_B, None, inside_BT, steps_BT, parts)

    def _ends(self, rollout: Rollout) -> Ends:
        """Where each completion ends, and whether it does; an episode of several turns ends where the environment says."""
        s, tokens = self.settings, rollout.tokens
        if rollout.acted_BT is not None:
            return Ends(tokens.mask_BT.sum(1), rollout.finished_B)
        ends = find_ends(tokens, self.stops, after=s.truncate_after)
        return ends._replace(found_B=ends.found_B | rollout.finished_B) if s.sampling.stop else ends

    def _greedy_scores(self, prompts: list[Prompt], tokens: TokenBatch) -> Tensor:
        """The score of the greedy completion of each row's prompt, (B,)."""
        size = self.settings.num_generations
        queries = zip(tokens.query_BQ[::size], tokens.query_mask_BQ[::size], strict=True)
        greedy = dataclasses.replace(self.settings.sampling, top_k=1)
        ids, seeds = [row[on.bool()].tolist() for row, on in queries], self.seeds.child("greedy")
        best = generate(self.policy, ids, greedy, seeds=seeds, mask=self.mask)
        return self._score_texts(prompts[::size], best).scores_B.repeat_interleave(size)


def join(draws: Sequence[Draw], groups: Sequence[tuple[int, int]], size: int, *, fill: int) -> Draw:
    """The groups named (draw, place in it), `size` rows each, as one draw; `fill` stands where a narrower one was padded."""
    order = [(d, g * size + i) for d, g in groups for i in range(size)]
    starts = list(itertools.accumulate((len(draw.prompts) for draw in draws), initial=0))
    index = torch.tensor([starts[d] + row for d, row in order])
    query_width = max(draw.rollout.tokens.query_BQ.shape[1] for draw in draws)
    width = max(draw.rollout.tokens.mask_BT.shape[1] for draw in draws)

    def laid(sources: Sequence[Tensor], value: float, *, left: bool) -> Tensor:
        missing = [(query_width if left else width) - source.shape[1] for source in sources]
        wide = (_widened(source, m, value, left=left) for source, m in zip(sources, missing, strict=True))
        return gathered(list(wide))

    def gathered(values: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(values))
        return whole[index.to(whole.device)]

    batches, rollouts = [draw.rollout.tokens for draw in draws], [draw.rollout for draw in draws]
    tokens = TokenBatch(
        laid([batch.query_BQ for batch in batches], fill, left=True),
        laid([batch.query_mask_BQ for batch in batches], 0, left=True),
        laid([batch.response_BT for batch in batches], fill, left=False),
        laid([batch.mask_BT for batch in batches], 0, left=False),
    )
    logps_BT = laid([each.logps_BT for each in rollouts], 0.0, left=False)
    finished_B = gathered([each.finished_B for each in rollouts])
    others: dict[str, Tensor | None] = {}
    for name in ("allowed_BTS", "acted_BT", "rewards_BT"):
        tables = [getattr(each, name) for each in rollouts]
        others[name] = None if tables[0] is None else laid(tables, 0, left=False)
    rollout = Rollout(tokens, logps_BT, finished_B, **others)
    fields: dict[str, Any] = {}
    for name in ("inside_BT", "steps_BT"):
        found = [getattr(draw.judged, name) for draw in draws]
        kind = next((table for table in found if table is not None), None)
        empty = [torch.zeros_like(draw.rollout.logps_BT, dtype=None if kind is None else kind.dtype) for draw in draws]
        tables = [zero if table is None else table for table, zero in zip(found, empty, strict=True)]
        fields[name] = None if kind is None else laid(tables, 0, left=False)
    for name in ("texts", "proxy", "gold", "sentinel"):
        values = [getattr(draw.judged, name) for draw in draws]
        fields[name] = None if values[0] is None else [values[d][row] for d, row in order]
    for name in ("scores_B", "found_B", "kept_B", "baseline_B"):
        values = [getattr(draw.judged, name) for draw in draws]
        fields[name] = None if values[0] is None else gathered(values)
    names = list(dict.fromkeys(name for draw in draws for name in draw.judged.parts))
    fields["parts"] = {name: _mean([d.judged.parts[name] for d in draws if name in d.judged.parts]) for name in names}
    return Draw([draws[d].prompts[row] for d, row in order], rollout, Judged(**fields))


def _widened(table: Tensor, columns: int, value: float, *, left: bool) -> Tensor:
    """A table (B, T, …) with so many more columns, all `value`."""
    return pad(table, (0, 0) * (table.dim() - 2) + ((columns, 0) if left else (0, columns)), value=value)


def _turn_ends(rollout: Rollout) -> Tensor | None:
    """The last token of each turn of the policy in an episode of several, (B, T); None where there are no turns."""
    if rollout.acted_BT is None:
        return None
    acted_BT = rollout.acted_BT.long()
    return acted_BT * (1 - pad(acted_BT, (0, 1))[:, 1:])


def _turns(rollout: Rollout) -> dict[str, float]:
    """How often the policy had its turn in an episode, and how many of the tokens were its own."""
    assert rollout.acted_BT is not None
    acted_BT = rollout.acted_BT
    begun_BT = acted_BT.diff(dim=1, prepend=torch.zeros_like(acted_BT[:, :1])) == 1
    own = float(acted_BT.sum() / rollout.tokens.mask_BT.sum())
    return {"episode/turns": float(begun_BT.sum(1).double().mean()), "episode/own_share": own}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
