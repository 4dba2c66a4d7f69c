"""Blind matches: two policies answer the same prompt, and a labeler says which answer is better.

A match of two identical texts is a tie whoever looks at it, so nobody is asked: it is filed under a purpose of its
own (`same_text_purpose`) together with the tie, and `standings` counts it. Leaving it out would overstate how far
two policies that mostly agree are apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backflip.config import unknown
from backflip.errors import DataError, UserError
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.seeds import Seeds

SAME_TEXT = "same-text"
"""The annotator of a tie between identical texts."""


class MatchStore(Protocol):
    """What `add_matches` needs of a feedback store."""

    def add_queries(self, queries: Iterable[Query]) -> int:
        """File queries; the number that were new."""

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> int:
        """File verdicts; the number that were new."""


@dataclass(frozen=True, slots=True)
class MatchesAdded:
    """The matches that wait for a labeler, and how many more were ties of identical texts."""

    queries: list[Query]
    same_text: int


def same_text_purpose(purpose: str) -> str:
    """The purpose under which matches of identical texts are filed: whoever answers `purpose` does not meet them."""
    return f"{purpose}-{SAME_TEXT}"


def match_queries(
    samples_by_policy: Mapping[str, Sequence[Sample]],
    *,
    seeds: Seeds,
    pairs: Iterable[tuple[str, str]] | None = None,
    purpose: str = "arena",
) -> list[Query]:
    """The questions to ask: one per prompt and pair of policies whose texts differ, prompt by prompt.

    Every policy brings one sample per prompt, for the same prompts in the same order. `pairs` names who meets whom
    (default: everybody). Which text stands on which side is random, keyed by prompt, names and texts, so neither
    the order of the policies nor of the prompts changes a question. Raises UserError for fewer than two policies or
    a pair that cannot play, DataError when the prompts differ.
    """
    matches = _matches(samples_by_policy, seeds=seeds, pairs=pairs, purpose=purpose)
    return [query for query in matches if query.purpose == purpose]


def add_matches(
    store: MatchStore,
    samples_by_policy: Mapping[str, Sequence[Sample]],
    *,
    seeds: Seeds,
    pairs: Iterable[tuple[str, str]] | None = None,
    purpose: str = "arena",
) -> MatchesAdded:
    """File every match: those of `match_queries` as questions, those of identical texts as ties already decided.

    Doing it twice files them once. Raises what `match_queries` raises.
    """
    matches = list(_matches(samples_by_policy, seeds=seeds, pairs=pairs, purpose=purpose))
    same = [query for query in matches if query.purpose != purpose]
    store.add_queries(matches)
    store.add_verdicts([Verdict(query.id, SAME_TEXT, "tie") for query in same])
    return MatchesAdded([query for query in matches if query.purpose == purpose], len(same))


def _matches(
    samples_by_policy: Mapping[str, Sequence[Sample]],
    *,
    seeds: Seeds,
    pairs: Iterable[tuple[str, str]] | None,
    purpose: str,
) -> Iterator[Query]:
    names = sorted(samples_by_policy)
    if len(names) < 2:
        raise UserError(f"a match needs two policies; {'only ' + repr(names[0]) if names else 'none'} was given")
    wanted = _pairs(names, pairs)
    prompts = _shared_prompts(samples_by_policy)
    for row, prompt in enumerate(prompts):
        for a, b in wanted:
            sides = [(samples_by_policy[name][row].text, name) for name in (a, b)]
            texts = (sides[0][0], sides[1][0])
            if seeds.integer("arena side", purpose, prompt.id, a, b, *texts) % 2:
                sides.reverse()
            yield Query(
                prompt,
                completions=(sides[0][0], sides[1][0]),
                policies=(sides[0][1], sides[1][1]),
                purpose=same_text_purpose(purpose) if texts[0] == texts[1] else purpose,
            )


def _pairs(names: list[str], pairs: Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """The pairs, each in alphabetical order and once."""
    if pairs is None:
        return list(itertools.combinations(names, 2))
    found: dict[tuple[str, str], None] = {}
    for a, b in pairs:
        for name in (a, b):
            if name not in names:
                raise unknown(name, names, "policy")
        if a == b:
            raise UserError(f"policy {a!r} cannot be matched with itself; a pair names two policies")
        found[(min(a, b), max(a, b))] = None
    return list(found)


def _shared_prompts(samples_by_policy: Mapping[str, Sequence[Sample]]) -> list[Prompt]:
    """The prompts that all policies answered. Raises DataError where they differ."""
    (first, samples), *others = samples_by_policy.items()
    for name, theirs in others:
        if len(theirs) != len(samples):
            raise DataError(
                f"policy {name!r} brings {len(theirs)} samples and {first!r} brings {len(samples)}; "
                "a match needs one sample of each for every prompt"
            )
        for row, (ours, other) in enumerate(zip(samples, theirs, strict=True)):
            if ours.prompt != other.prompt:
                raise DataError(
                    f"row {row}: {first!r} answered {ours.prompt.plain[:40]!r} but {name!r} answered "
                    f"{other.prompt.plain[:40]!r}; give the same prompts in the same order"
                )
    if not samples:
        raise DataError("there are no prompts to match policies on")
    return [sample.prompt for sample in samples]
