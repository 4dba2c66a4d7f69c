"""Beam search: the likeliest completion that can be found with `width` beginnings of it under way at once.

A completion y is worth Σ_t log p(y_t) / |y|^α, |y| counting its end-of-text token: the `length_penalty` α of transformers,
where α = 0 is the log-probability, 1 the mean per token, and more favours longer ones. (GNMT, Wu et al. 2016, eq. 14, divides
by ((5 + |y|)/6)^α instead.)

    1  every beam is extended by every token, and the 2·width best sums of log-probabilities are looked at
    2  those of the first `width` that end the text, or reach the limit, are worth something now: the best one is kept
    3  the best `width` that do not end go on

2·width are enough, for each beam has one extension that ends it. A search is over at the limit, or when no beam under way can
become worth more than what is kept. Sums only fall, so a beam with sum S and n tokens becomes worth at most S / limit^α for
α > 0 and S / (n + 1)^α otherwise; that bound is never too low, so for every α stopping early changes nothing. At α = 0 it
is the beam's own sum; at a large α it lets most searches run to the limit.

A beam of width 1 has nothing to weigh its first completion against and stops at it: greedy decoding. A width of at least
V^(T−1), for V tokens and at most T of them, forgets no beginning and so finds the best completion there is. In between, a wider
beam may find a worse one, and a better one by this measure is often no better text (Stahlberg & Byrne 2019).

Legend: N queries, P queries under way (Q: some of them), K = width, C candidates of each, B = P·K, T response columns, V
vocabulary, X = K·V extensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backflip.errors import ConfigError
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import TokenBatch, pad
from backflip.policies.transfer import send
from backflip.rollout.decoders import Decoder, decoder_of
from backflip.rollout.draws import Rollout, damaged
from backflip.rollout.sampling import is_whole
from backflip.settings import Sampling


@torch.no_grad()
def beam_search(
    policy: LanguagePolicy, queries: Sequence[Sequence[int]], *, width: int, max_new_tokens: int, length_penalty: float = 1.0,
    slots: int = 64, query_width: int | None = None, first: int = 0,
) -> Rollout:  # fmt: skip
    """The best completion found for each row of prompt ids, with its log-probabilities under the model (temperature 1).

    Nothing is drawn. At most `slots` beams, or those of one query, are under way at once. `finished_B` says which rows hold
    the end-of-text token; `first` is the number of the first row for what errors say. Raises NumericsError when the model's
    probabilities are not finite, ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"a beam has a width of 1 or more, not {width}")
    query_BQ, mask_BQ = (send(t, policy.device) for t in pad(queries, fill=policy.fill_id, left=True, width=query_width))
    kept = _Kept.nothing(len(queries), max_new_tokens, policy.fill_id, policy.device)
    for job_P in torch.split(torch.arange(len(queries), device=policy.device), max(1, slots // width)):
        decoder = decoder_of(policy, query_BQ[job_P], mask_BQ[job_P])
        _search(decoder, kept, job_P, width=width, alpha=length_penalty, eos_id=policy.eos_id)
    if (kept.length_N == 0).any():
        raise damaged(policy.name, first + int((kept.length_N == 0).nonzero()[0]))
    longest = int(kept.length_N.max())
    mask_BT = (torch.arange(longest, device=policy.device) < kept.length_N.unsqueeze(1)).long()
    tokens = TokenBatch(query_BQ, mask_BQ, kept.token_NT[:, :longest], mask_BT)
    return Rollout(tokens, kept.logp_NT[:, :longest].float(), kept.ended_N)


def check_beams(settings: Sampling) -> None:
    """Raise ConfigError for settings that say how to draw, where nothing is drawn. `temperature` is passed over: it always
    has a value."""
    if not is_whole(settings):
        raise ConfigError(
            f"num_beams {settings.num_beams} searches for the likeliest completion, so top_k, top_p, min_p and "
            "repetition_penalty have nothing to do; leave them out, or set num_beams to 1 to sample"
        )
    if settings.stop or settings.ignore_eos:
        raise ConfigError(
            f"num_beams {settings.num_beams} ends a completion at its end-of-text token or at max_new_tokens and nowhere else; "
            "leave out stop and ignore_eos, or set num_beams to 1 to sample"
        )


@dataclass
class _Kept:
    """The best completion of each query so far: what it is worth (−∞: there is none), tokens, log-probabilities, length, and
    whether it has come to its end."""

    worth_N: Tensor
    token_NT: Tensor
    logp_NT: Tensor
    length_N: Tensor
    ended_N: Tensor

    @classmethod
    def nothing(cls, n: int, limit: int, fill: int, device: torch.device) -> _Kept:
        return cls(
            worth_N=torch.full((n,), -torch.inf, dtype=torch.float64, device=device),
            token_NT=torch.full((n, limit), fill, dtype=torch.long, device=device),
            logp_NT=torch.zeros(n, limit, dtype=torch.float64, device=device),
            length_N=torch.zeros(n, dtype=torch.long, device=device),
            ended_N=torch.zeros(n, dtype=torch.bool, device=device),
        )

    def offer(self, job_P: Tensor, worth_PC: Tensor, beams: _Beams, ends_PC: Tensor) -> None:
        """Take the best candidate of each query where it is worth more than what was kept."""
        best = worth_PC.max(dim=1)
        row_P = (best.values > self.worth_N[job_P]).nonzero().squeeze(1)
        job, place = job_P[row_P], best.indices[row_P]
        self.worth_N[job] = best.values[row_P]
        self.token_NT[job] = beams.token_PKT[row_P, place]
        self.logp_NT[job] = beams.logp_PKT[row_P, place]
        self.length_N[job] = beams.length
        self.ended_N[job] = ends_PC[row_P, place]


@dataclass
class _Beams:
    """Beginnings of completions, the best first, all of `length` tokens; the sum of an empty place is −∞. `parent_PK` is the
    place each had before its last token."""

    sum_PK: Tensor
    parent_PK: Tensor
    token_PKT: Tensor
    logp_PKT: Tensor
    length: int

    @classmethod
    def one(cls, kept: _Kept, job_P: Tensor, width: int) -> _Beams:
        """The empty text, once: the other places stay empty until a token makes them differ."""
        sum_PK = kept.worth_N.new_full((len(job_P), width), -torch.inf)
        sum_PK[:, 0] = 0.0
        token_PKT, logp_PKT = (x[job_P].unsqueeze(1).expand(-1, width, -1) for x in (kept.token_NT, kept.logp_NT))
        return cls(sum_PK, torch.zeros_like(sum_PK, dtype=torch.long), token_PKT, logp_PKT, length=0)

    @property
    def last_PK(self) -> Tensor:
        """The token each came by last."""
        return self.token_PKT[:, :, self.length - 1]

    def extended(self, logits_BV: Tensor, n: int) -> _Beams:
        """The `n` best of their extensions by one token, or all if there are fewer."""
        logp_PX = logits_BV.double().log_softmax(-1).view(len(self.sum_PK), -1)
        vocabulary = logits_BV.shape[-1]
        top = (logp_PX + self.sum_PK.repeat_interleave(vocabulary, dim=1)).topk(min(n, logp_PX.shape[1]))
        parent_PC, rows = top.indices // vocabulary, torch.arange(len(logp_PX), device=logp_PX.device).unsqueeze(1)
        token_PCT, logp_PCT = self.token_PKT[rows, parent_PC], self.logp_PKT[rows, parent_PC]
        token_PCT[:, :, self.length] = top.indices % vocabulary
        logp_PCT[:, :, self.length] = logp_PX.gather(1, top.indices)
        return _Beams(top.values, parent_PC, token_PCT, logp_PCT, self.length + 1)

    def at(self, row_Q: Tensor, place_QK: Tensor) -> _Beams:
        """Of these queries the beams in these places."""
        rows = row_Q.unsqueeze(1)
        return _Beams(
            self.sum_PK[rows, place_QK], self.parent_PK[rows, place_QK], self.token_PKT[rows, place_QK],
            self.logp_PKT[rows, place_QK], self.length,
        )  # fmt: skip


def _search(decoder: Decoder, kept: _Kept, job_P: Tensor, *, width: int, alpha: float, eos_id: int) -> None:
    """Search for all of `job_P` at once; what is found ends up in `kept`."""
    limit = kept.token_NT.shape[1]
    beams = _Beams.one(kept, job_P, width)
    decoder.select(torch.arange(len(job_P), device=job_P.device).repeat_interleave(width))
    while True:
        candidates = beams.extended(decoder.logits_BV, 2 * width)
        ends_PC, length = candidates.last_PK == eos_id, candidates.length
        worth_PC = candidates.sum_PK / length**alpha
        kept.offer(job_P, worth_PC.where(ends_PC | (length == limit), -torch.inf)[:, :width], candidates, ends_PC)
        if length == limit:
            return
        place_PK = ends_PC.int().argsort(dim=1, stable=True)[:, :width]
        best_P = candidates.sum_PK.gather(1, place_PK[:, :1]).squeeze(1)
        bound_P = best_P / (limit if alpha > 0 else length + 1) ** alpha
        worth_P = kept.worth_N[job_P]
        row_P = (worth_P == -torch.inf if width == 1 else worth_P < bound_P).nonzero().squeeze(1)
        if not len(row_P):
            return
        job_P, beams = job_P[row_P], candidates.at(row_P, place_PK[row_P])
        decoder.select((row_P.unsqueeze(1) * width + beams.parent_PK).flatten())
        decoder.feed(beams.last_PK.flatten(), torch.ones_like(beams.last_PK, dtype=torch.bool).flatten())
