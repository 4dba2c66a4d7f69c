"""Prompt → samples on this machine: our engine for the Llama family, transformers' forward pass for any other model.

Each row draws from a generator of its own, keyed by (seed, purpose, step, row), so a row's completion does not depend on
which rows share its batch, and drawing it again draws the same.

Legend: B rows, Q query columns, T response columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backflip.errors import ConfigError, DataError
from backflip.policies.language import LanguagePolicy
from backflip.policies.llama import LlamaForward
from backflip.policies.tokens import TokenBatch, pad
from backflip.policies.transfer import send
from backflip.records import Prompt, Sample
from backflip.rollout import engine, kept
from backflip.rollout.beam import beam_search, check_beams
from backflip.rollout.decoders import decoder_of
from backflip.rollout.draws import Draws, Rollout, damaged
from backflip.rollout.masking import Nucleus
from backflip.seeds import Seeds
from backflip.settings import Sampling


@torch.no_grad()
def generate(
    policy: LanguagePolicy, queries: Sequence[Sequence[int]], settings: Sampling, *, seeds: Seeds, width: int | None = None,
    first: int = 0, rows: Sequence[int] | None = None, fixed: bool | None = None, mask: Nucleus | None = None,
) -> Rollout:  # fmt: skip
    """One completion for each row of prompt ids; row i draws from the generator ("row", first + i) of `seeds`, or
    ("row", rows[i]).

    The response rectangle is as wide as the longest completion, or always `settings.max_new_tokens` with `ignore_eos`.
    Models of the Llama family go through our own engines, others through transformers. `fixed` asks for the engine whose
    tensors keep their shapes, which on CUDA is the one taken and elsewhere only slower. `mask` allows fewer tokens than the
    policy knows; both models then go through transformers. With `num_beams` above 1 nothing is
    drawn and the completions are those of `beam_search`. Raises NumericsError when the model's probabilities are not finite,
    ConfigError for beams together with settings of sampling.
    """
    dtype: torch.dtype | None = None if settings.precision == "model" else getattr(torch, settings.precision)
    if settings.num_beams > 1:
        check_beams(settings)
        with torch.autocast(policy.device.type, dtype, enabled=dtype is not None):
            return beam_search(
                policy, queries, width=settings.num_beams, max_new_tokens=settings.max_new_tokens,
                length_penalty=settings.length_penalty, slots=settings.slots, query_width=width, first=first,
            )  # fmt: skip
    rows = range(first, first + len(queries)) if rows is None else rows
    query_BQ, query_mask_BQ = (send(t, policy.device) for t in pad(queries, fill=policy.fill_id, left=True, width=width))
    draws = Draws(
        queries, settings, seeds=seeds, rows=rows, eos_id=policy.eos_id, fill_id=policy.fill_id, decode=policy.decode,
        vocabulary=policy.embeddings, device=policy.device, restricted=mask is not None,
    )  # fmt: skip
    if LlamaForward.fits(policy.model) and mask is None:
        if fixed or (fixed is None and policy.device.type == "cuda"):
            kept.run(policy.model, queries, draws, dtype=dtype)
        else:
            forward = LlamaForward(policy.model, dtype=dtype, frozen=True, packed=True)
            engine.run(forward, queries, draws, slots=settings.slots, device=policy.device)
    else:
        with torch.autocast(policy.device.type, dtype, enabled=dtype is not None):
            _through_transformers(policy, query_BQ, query_mask_BQ, draws, mask)
    longest = settings.max_new_tokens if settings.ignore_eos else int(draws.length_N.max())
    columns_T = torch.arange(longest, device=policy.device)
    mask_BT = (columns_T < draws.length_N.unsqueeze(1)).long()
    batch = TokenBatch(query_BQ, query_mask_BQ, draws.token_NT[:, :longest], mask_BT)
    logps_BT = draws.logp_NT[:, :longest]
    if not torch.isfinite(logps_BT).all():
        raise damaged(policy.name, rows[int((~torch.isfinite(logps_BT)).any(dim=1).nonzero()[0])])
    allowed_BTS = None if draws.allowed_NTS is None else draws.allowed_NTS[:, :longest]
    return Rollout(batch, logps_BT, draws.ended_N, allowed_BTS)


def _through_transformers(
    policy: LanguagePolicy, query_BQ: Tensor, query_mask_BQ: Tensor, draws: Draws, mask: Nucleus | None
) -> None:
    """Complete every query with the model's own forward pass, and the mask policy's beside it, `slots` rows at a time."""
    for jobs_B in torch.split(torch.arange(len(query_BQ), device=query_BQ.device), draws.settings.slots):
        decoder = decoder_of(policy, query_BQ[jobs_B], query_mask_BQ[jobs_B])
        guide = None if mask is None else decoder_of(mask.policy, query_BQ[jobs_B], query_mask_BQ[jobs_B])
        while True:
            allowed_BV = None
            if mask is not None and guide is not None:
                allowed_BV = mask.allowed(guide.logits_BV, draws.settings.temperature)
            token_B = draws.take(jobs_B, decoder.logits_BV, allowed_BV)
            alive_B = draws.alive_N[jobs_B]
            if not alive_B.any():
                break
            for each in (decoder, guide):
                if each is not None:
                    each.feed(token_B, alive_B)


def encode_prompts(policy: LanguagePolicy, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[list[int]]:
    """Ids of every prompt. Raises DataError for one that leaves no room for `max_new_tokens` in the model's context."""
    rows = [policy.encode(prompt) for prompt in prompts]
    for i, ids in enumerate(rows):
        if len(ids) + max_new_tokens > policy.context:
            raise DataError(
                f"prompt {i + 1} is {len(ids)} tokens long and with {max_new_tokens} new ones exceeds the model's context of "
                f"{policy.context}; shorten it or lower max_new_tokens: {prompts[i].plain[:60]!r}"
            )
    return rows


def generate_samples(
    policy: LanguagePolicy, prompts: Sequence[Prompt], *, n: int, seeds: Seeds, settings: Sampling, chunk: int = 1024
) -> list[list[Sample]]:
    """`n` completions for each prompt, as records: one list per prompt, in the prompts' order.

    `chunk` rows are kept as tensors at a time; it changes memory, never which random numbers a row gets. Raises ConfigError
    for several completions by beam search, which would all be the same.
    """
    if n > 1 and settings.num_beams > 1:
        raise ConfigError(
            f"beam search writes the same completion of a prompt every time, so {n} of them say nothing new; set num_beams to 1 "
            "to sample, or ask for one completion"
        )
    rows = encode_prompts(policy, prompts, max_new_tokens=settings.max_new_tokens)
    jobs = [(p, rows[p]) for p in range(len(prompts)) for _ in range(n)]
    samples: list[list[Sample]] = [[] for _ in prompts]
    for start in range(0, len(jobs), chunk):
        part = jobs[start : start + chunk]
        rollout = generate(policy, [ids for _, ids in part], settings, seeds=seeds, first=start)
        for i, (p, _) in enumerate(part):
            samples[p].append(_record(policy, prompts[p], rollout, i, settings.stop))
    return samples


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _record(policy: LanguagePolicy, prompt: Prompt, rollout: Rollout, i: int, stops: Sequence[str]) -> Sample:
    """Row i as a record; what follows the end-of-text token is not part of the sample."""
    length = int(rollout.tokens.mask_BT[i].sum())
    ids = rollout.tokens.response_BT[i, :length].tolist()
    if policy.eos_id in ids:
        ids = ids[: ids.index(policy.eos_id) + 1]
    return Sample(
        prompt=prompt,
        text=cut(policy.decode(ids), stops),
        policy=policy.name,
        tokens=tuple(ids),
        logps=tuple(rollout.logps_BT[i, : len(ids)].tolist()),
        finished=bool(rollout.finished_B[i]),
    )
