"""What has been drawn so far: the tokens of every completion, their log-probabilities, and who goes on.

Engines ask for it job by job in any order; every job draws from numbers of its own, so neither the order nor the company
changes what it writes.

Legend: N jobs (completions), T response columns, B jobs of one call, V vocabulary, S bytes for V bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backflip.errors import NumericsError
from backflip.maths.bits import packed
from backflip.policies.tokens import TokenBatch
from backflip.policies.transfer import send
from backflip.rollout.sampling import draw, repel, truncate
from backflip.seeds import Seeds
from backflip.settings import Sampling


@dataclass(frozen=True)
class Rollout:
    """B completions as tokens. `logps_BT` are nats under the sampled distribution; `finished_B` says which rows hold an
    end-of-text token or one of the stop strings; `allowed_BTS` which tokens could be drawn where not all could, eight to a
    byte. Of a conversation with an environment `acted_BT` is 1 where the policy wrote, and `rewards_BT` holds what it earned,
    each at the last token of an action."""

    tokens: TokenBatch
    logps_BT: Tensor
    finished_B: Tensor
    allowed_BTS: Tensor | None = None
    acted_BT: Tensor | None = None
    rewards_BT: Tensor | None = None


def damaged(name: str, row: int) -> NumericsError:
    """The error for probabilities that are not numbers, first met in `row` (from 0)."""
    return NumericsError(
        f"{name!r} gives probabilities that are not numbers (row {row + 1}); its weights are damaged or an "
        "update went wrong, so go back to an earlier checkpoint"
    )


class Draws:
    """The completions of N queries under way; job i draws from the generator ("row", rows[i]) of `seeds`.

    `token_NT`, `logp_NT` and `length_N` say what was drawn, `alive_N` who goes on, `ended_N` who has drawn the end-of-text
    token or one of the stop strings. `allowed_NTS`, where the draws are `restricted`, says which tokens could be drawn.
    """

    def __init__(
        self, queries: Sequence[Sequence[int]], settings: Sampling, *, seeds: Seeds, rows: Sequence[int], eos_id: int,
        fill_id: int, vocabulary: int, decode: Callable[[list[int]], str], device: torch.device, restricted: bool = False,
    ) -> None:  # fmt: skip
        n, limit = len(queries), settings.max_new_tokens
        self.settings, self.eos_id, self.fill_id, self.decode = settings, eos_id, fill_id, decode
        uniform = [torch.rand(limit, generator=seeds.torch("row", row)) for row in rows]
        self.uniform_NT = send(torch.stack(uniform), device)
        self.token_NT = torch.full((n, limit), fill_id, dtype=torch.long, device=device)
        self.logp_NT = torch.zeros(n, limit, device=device)
        self.length_N = torch.zeros(n, dtype=torch.long, device=device)
        self.alive_N = torch.ones(n, dtype=torch.bool, device=device)
        self.ended_N = torch.zeros(n, dtype=torch.bool, device=device)
        # No stop string is longer than this many tokens: each carries at least one of its bytes.
        self.tail = max((len(stop.encode()) for stop in settings.stop), default=0) + 1
        # How much of each completion has been searched for stop strings.
        self.searched = [0] * n
        self.seen_NV: Tensor | None = None
        if settings.repetition_penalty != 1.0:
            said = torch.tensor([(i, token) for i, ids in enumerate(queries) for token in ids], dtype=torch.long).view(-1, 2)
            self.seen_NV = torch.zeros(n, vocabulary, dtype=torch.bool, device=device)
            self.seen_NV[send(said, device).unbind(1)] = True
        self.allowed_NTS: Tensor | None = None
        if restricted:
            self.allowed_NTS = torch.zeros(n, limit, -(-vocabulary // 8), dtype=torch.uint8, device=device)

    def take(self, job_B: Tensor, logits_BV: Tensor, allowed_BV: Tensor | None = None) -> Tensor:
        """One more token for each of these jobs, (B,), of those allowed where not all are; one that is done gets a token that
        nobody keeps."""
        token_B = self.advance(job_B, logits_BV, allowed_BV)
        self.settle(job_B, self.decode)
        return token_B

    def advance(self, job_B: Tensor, logits_BV: Tensor, allowed_BV: Tensor | None = None) -> Tensor:
        """`take` without the search for stop strings: work for the device alone, which nobody has to wait for."""
        s, limit = self.settings, self.settings.max_new_tokens
        alive_B = self.alive_N[job_B]
        place_B = self.length_N[job_B].clamp(max=limit - 1)
        if self.seen_NV is not None:
            logits_BV = repel(logits_BV, self.seen_NV[job_B], s.repetition_penalty)
        if s.temperature != 1.0:
            logits_BV = logits_BV / s.temperature
        logits_BV = truncate(logits_BV, top_k=s.top_k, top_p=s.top_p, min_p=s.min_p)
        if self.allowed_NTS is not None and allowed_BV is not None:
            logits_BV = logits_BV.masked_fill(~allowed_BV, -torch.inf)
            kept_BS = self.allowed_NTS[job_B, place_B]
            self.allowed_NTS[job_B, place_B] = packed(allowed_BV).where(alive_B.unsqueeze(1), kept_BS)
        token_B, logp_B = draw(logits_BV, self.uniform_NT[job_B, place_B])
        self.token_NT[job_B, place_B] = token_B.where(alive_B, self.token_NT[job_B, place_B])
        self.logp_NT[job_B, place_B] = logp_B.float().where(alive_B, self.logp_NT[job_B, place_B])
        if self.seen_NV is not None:
            self.seen_NV[job_B, token_B] |= alive_B
        self.length_N[job_B] += alive_B
        ended_B = alive_B & (token_B == self.eos_id)
        self.ended_N[job_B] |= ended_B
        going_B = alive_B & (self.length_N[job_B] < limit)
        self.alive_N[job_B] = going_B if s.ignore_eos else going_B & ~ended_B
        return token_B

    def settle(self, job_B: Tensor, decode: Callable[[list[int]], str]) -> None:
        """Search what these jobs have drawn since the last search for stop strings; what came after one is taken back."""
        if not self.settings.stop:
            return
        jobs, lengths, rows = job_B.tolist(), self.length_N[job_B].tolist(), self.token_NT[job_B].tolist()
        found: list[tuple[int, int]] = []
        for job, length, row in zip(jobs, lengths, rows, strict=True):
            ends = range(self.searched[job] + 1, length + 1)
            end = next((n for n in ends if self._stops(decode(row[max(0, n - self.tail) : n]))), None)
            self.searched[job] = length
            if end is not None:
                found.append((job, end))
        if found:
            job_S, length_S = send(torch.tensor(found), job_B.device).unbind(1)
            after_ST = torch.arange(self.token_NT.shape[1], device=job_B.device) >= length_S.unsqueeze(1)
            self.token_NT[job_S] = self.token_NT[job_S].masked_fill(after_ST, self.fill_id)
            self.logp_NT[job_S] = self.logp_NT[job_S].masked_fill(after_ST, 0.0)
            self.length_N[job_S] = length_S
            self.ended_N[job_S], self.alive_N[job_S] = True, False

    def _stops(self, text: str) -> bool:
        return any(stop in text for stop in self.settings.stop)

    def room(self, n: int) -> Draws:
        """Tables of the same kind for `n` jobs, none of which is under way. They may be kept for long, so they hold on to
        nobody's way of decoding."""
        other = copy.copy(self)
        del other.decode
        for name, table in self._tables():
            setattr(other, name, table.new_zeros(n, *table.shape[1:]))
        other.searched = [0] * n
        return other

    def copy_(self, other: Draws) -> None:
        """Take over the jobs of `other`, as many as both have places for; the tables stay where they are in memory."""
        n = min(len(self.searched), len(other.searched))
        for name, table in self._tables():
            table[:n].copy_(getattr(other, name)[:n])
        self.alive_N[n:] = False
        self.searched[:n] = other.searched[:n]

    def _tables(self) -> list[tuple[str, Tensor]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Tensor)]
