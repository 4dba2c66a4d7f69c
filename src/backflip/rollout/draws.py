"""What has been drawn so far: the tokens of every completion, their log-probabilities, and who goes on.

Engines ask for it job by job in any order; every job draws from numbers of its own, so neither the order nor the company
changes what it writes.

Legend: N jobs (completions), T response columns, B jobs of one call, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backflip.errors import NumericsError
from backflip.policies.tokens import TokenBatch
from backflip.rollout.sampling import draw, repel, truncate
from backflip.seeds import Seeds
from backflip.settings import Sampling


@dataclass(frozen=True)
class Rollout:
    """B completions as tokens. `logps_BT` are nats under the sampled distribution; `finished_B` says which rows hold an
    end-of-text token or one of the stop strings."""

    tokens: TokenBatch
    logps_BT: Tensor
    finished_B: Tensor


def damaged(name: str, row: int) -> NumericsError:
    """The error for probabilities that are not numbers, first met in `row` (from 0)."""
    return NumericsError(
        f"{name!r} gives probabilities that are not numbers (row {row + 1}); its weights are damaged or an "
        "update went wrong, so go back to an earlier checkpoint"
    )


class Draws:
    """The completions of N queries under way; job i draws from the generator ("row", first + i) of `seeds`.

    `token_NT`, `logp_NT` and `length_N` say what was drawn, `alive_N` who goes on, `ended_N` who has drawn the end-of-text
    token or one of the stop strings.
    """

    def __init__(
        self, queries: Sequence[Sequence[int]], settings: Sampling, *, seeds: Seeds, first: int, eos_id: int, fill_id: int,
        vocabulary: int, decode: Callable[[list[int]], str], device: torch.device,
    ) -> None:  # fmt: skip
        n, limit = len(queries), settings.max_new_tokens
        self.settings, self.eos_id, self.decode = settings, eos_id, decode
        uniform = [torch.rand(limit, generator=seeds.torch("row", first + i)) for i in range(n)]
        self.uniform_NT = torch.stack(uniform).to(device)
        self.token_NT = torch.full((n, limit), fill_id, dtype=torch.long, device=device)
        self.logp_NT = torch.zeros(n, limit, device=device)
        self.length_N = torch.zeros(n, dtype=torch.long, device=device)
        self.alive_N = torch.ones(n, dtype=torch.bool, device=device)
        self.ended_N = torch.zeros(n, dtype=torch.bool, device=device)
        # No stop string is longer than this many tokens: each carries at least one of its bytes.
        self.tail = max((len(stop.encode()) for stop in settings.stop), default=0) + 1
        self.seen_NV: Tensor | None = None
        if settings.repetition_penalty != 1.0:
            self.seen_NV = torch.zeros(n, vocabulary, dtype=torch.bool, device=device)
            for i, ids in enumerate(queries):
                self.seen_NV[i, torch.tensor(list(ids), device=device)] = True

    def take(self, job_B: Tensor, logits_BV: Tensor) -> Tensor:
        """One more token for each of these jobs, (B,); one that is done gets a token that nobody keeps."""
        s, limit = self.settings, self.settings.max_new_tokens
        alive_B = self.alive_N[job_B]
        place_B = self.length_N[job_B].clamp(max=limit - 1)
        if self.seen_NV is not None:
            logits_BV = repel(logits_BV, self.seen_NV[job_B], s.repetition_penalty)
        logits_BV = truncate(logits_BV / s.temperature, top_k=s.top_k, top_p=s.top_p, min_p=s.min_p)
        token_B, logp_B = draw(logits_BV, self.uniform_NT[job_B, place_B])
        self.token_NT[job_B, place_B] = token_B.where(alive_B, self.token_NT[job_B, place_B])
        self.logp_NT[job_B, place_B] = logp_B.float().where(alive_B, self.logp_NT[job_B, place_B])
        if self.seen_NV is not None:
            self.seen_NV[job_B, token_B] |= alive_B
        self.length_N[job_B] += alive_B
        ended_B = alive_B & (token_B == self.eos_id)
        over_B = torch.zeros_like(ended_B) if s.ignore_eos else ended_B
        if s.stop:
            stopped_B = alive_B & self._stopped(job_B)
            ended_B, over_B = ended_B | stopped_B, over_B | stopped_B
        self.ended_N[job_B] |= ended_B
        self.alive_N[job_B] = alive_B & ~over_B & (self.length_N[job_B] < limit)
        return token_B

    def _stopped(self, job_B: Tensor) -> Tensor:
        ends = self.length_N[job_B].tolist()
        rows = self.token_NT[job_B].tolist()
        tails = [self.decode(row[max(0, end - self.tail) : end]) for row, end in zip(rows, ends, strict=True)]
        return torch.tensor([any(stop in tail for stop in self.settings.stop) for tail in tails], device=job_B.device)
