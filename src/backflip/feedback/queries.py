"""What to ask: queries made from samples of one prompt."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.errors import UserError
from backflip.records import Query, Sample
from backflip.seeds import Seeds


def pair_queries(samples: Sequence[Sequence[Sample]], *, seeds: Seeds, purpose: str = "train") -> list[Query]:
    """One pair of different completions for each prompt, drawn at random from its group of samples.

    `samples[i]` are the samples of prompt i. A prompt whose samples all say the same is left out: there is nothing
    to compare. What is drawn for a prompt depends on `seeds`, `purpose`, the prompt and its samples alone, not on
    the other prompts. Raises UserError when a group mixes prompts.
    """
    return k_wise_queries(samples, 2, seeds=seeds, purpose=purpose)


def k_wise_queries(samples: Sequence[Sequence[Sample]], k: int, *, seeds: Seeds, purpose: str = "train") -> list[Query]:
    """Like `pair_queries` with `k` different completions to be ranked (InstructGPT asked for 4 to 9).

    A prompt with fewer than `k` different texts gives a query over those it has, if they are two at least.
    """
    if k < 2:
        raise UserError(f"a query compares at least two completions, not {k}")
    found = (_query(group, k, seeds, purpose) for group in samples)
    return [query for query in found if query is not None]


def _query(group: Sequence[Sample], k: int, seeds: Seeds, purpose: str) -> Query | None:
    by_text = {sample.text: sample for sample in reversed(group)}
    different = [by_text[text] for text in dict.fromkeys(sample.text for sample in group)]
    if len(different) < 2:
        return None
    prompt = group[0].prompt
    if any(sample.prompt != prompt for sample in group):
        raise UserError(f"the samples of one query answer one prompt, but {prompt.plain[:60]!r} stands with others")
    order = seeds.permutation(len(different), "queries", purpose, prompt.id)[:k]
    drawn = [different[i] for i in order]
    policies = tuple(sample.policy for sample in drawn)
    return Query(prompt, tuple(s.text for s in drawn), policies if any(policies) else (), purpose)
