"""What to ask next, of many possible questions: rules, and a share drawn at random whatever the rule says.

Shapes: C candidate pairs of completions, K members of an ensemble. Scores arrive as arrays; no torch.

A rule gives each candidate a value, and the candidates of highest value are asked. Questions chosen for their value are no fair
sample: accuracy, agreement and everything else that is to be true of all questions is measured on the random share alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backflip.errors import UserError
from backflip.records import content_id
from backflip.seeds import Seeds

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rule = Literal["random", "disagreement", "information", "near-tie", "explore"]
RULES: tuple[Rule, ...] = get_args(Rule)
BLOCK = 1000


class Candidate(NamedTuple):
    """A possible question: a group of questions that should not crowd each other out (a prompt), and its two texts."""

    group: Hashable
    left: Hashable
    right: Hashable


@dataclass(frozen=True, slots=True)
class Asked:
    """One chosen question: candidate `index`, shown with its sides exchanged where `swap`; `value` is what the rule gave it.

    `random`: it belongs to the random share, on which alone honest measurement stands.
    """

    index: int
    swap: bool
    random: bool
    value: float


class Left(NamedTuple):
    """Candidates that were not considered, by why: the same text twice, a pair that stands there before, asked already."""

    same_text: int
    repeated: int
    asked_before: int


def values(rule: Rule, left_KC: ArrayLike, right_KC: ArrayLike, *, newness_C: ArrayLike | None = None) -> Floats:
    """What each candidate is worth by a rule, (C,), from the scores that each member gives to its two texts, in nats.

        random        0
        disagreement  Var_k p_k                                    Christiano et al. 2017, §2.2.4
        information   H(mean_k p_k) − mean_k H(p_k)                Houlsby et al. 2011 (BALD), in nats
        near-tie      −|mean_k (left − right)|                     uncertainty sampling, Lewis & Gale 1994
        explore       `newness_C`                                  how unlike what was asked before, see `newness`

    with p_k = σ(left_k − right_k) and H the entropy of a coin. Disagreement and information look for what members do not know
    for want of comparisons; a near-tie may also be two texts that are equally good, about which nothing is to be learned.
    Raises UserError for scores that do not fit, are not finite, or for a rule that lacks what it needs.
    """
    left, right = np.asarray(left_KC, dtype=np.float64), np.asarray(right_KC, dtype=np.float64)
    if left.ndim != 2 or left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise UserError(f"scores are finite numbers of members and candidates, not of shapes {left.shape} and {right.shape}")
    gap = left - right
    if rule == "random":
        return np.zeros(gap.shape[1])
    if rule == "explore":
        found = None if newness_C is None else np.asarray(newness_C, dtype=np.float64)
        if found is None or found.shape != gap.shape[1:] or not np.isfinite(found).all():
            raise UserError("rule 'explore' needs to know how new each candidate is")
        return found
    if not len(gap):
        raise UserError(f"rule {rule!r} needs the scores of a reward model")
    if rule == "near-tie":
        near: Floats = -np.abs(gap.mean(axis=0))
        return near
    if len(gap) < 2:
        raise UserError(f"rule {rule!r} needs the scores of two reward models at least, which differ in seed or data")
    p = 0.5 * (1.0 + np.tanh(0.5 * gap))
    if rule == "disagreement":
        variance: Floats = p.var(axis=0)
        return variance
    if rule == "information":
        information: Floats = np.maximum(0.0, _entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0))
        return information
    raise UserError(f"unknown rule {rule!r}; use {', '.join(RULES)}")


def newness(candidate_CF: ArrayLike, asked_AF: ArrayLike) -> Floats:
    """How far each candidate is from the nearest question that was asked, (C,), in standard deviations of the candidates.

    The features may be anything that says what a question is about, such as the scores of its two texts or hidden states. With
    nothing asked yet it is the distance from the candidates' mean. Raises UserError for features that do not fit.
    """
    candidate, asked = np.asarray(candidate_CF, dtype=np.float64), np.asarray(asked_AF, dtype=np.float64)
    if candidate.ndim != 2 or (asked.size and asked.shape[1:] != candidate.shape[1:]):
        raise UserError(f"candidates with features {candidate.shape} do not fit what was asked with {asked.shape}")
    if not len(candidate):
        return np.zeros(0)
    sd = candidate.std(axis=0)
    scale = np.where(sd > 0, sd, 1.0)
    points, seen = candidate / scale, asked / scale if asked.size else candidate.mean(axis=0, keepdims=True) / scale
    nearest = np.full(len(points), np.inf)
    for start in range(0, len(seen), BLOCK):  # so many at once: all distances at once may not fit in memory
        part = seen[start : start + BLOCK]
        nearest = np.minimum(nearest, ((part**2).sum(axis=1) - 2 * points @ part.T).min(axis=1))
    found: Floats = np.sqrt(np.maximum((points**2).sum(axis=1) + nearest, 0.0))
    return found


def choose(
    candidates: Sequence[Candidate], value_C: ArrayLike, *, budget: int, seeds: Seeds, random_share: float = 0.2,
    per_group: int | None = None, before: frozenset[tuple[Hashable, Hashable, Hashable]] = frozenset(),
) -> tuple[list[Asked], Left]:  # fmt: skip
    """Choose at most `budget` questions: ⌈random_share · budget⌉ at random, the rest of highest value.

    No text is compared with itself, no pair twice in either order, none that stands in `before` (as `pair_key` has it), and no
    group has more than `per_group` questions (None: as many as there are). The random share is drawn first, from everything
    that may be asked, so that what the rule likes is not missing from it. Equal values are settled by the seeds. Sides are
    exchanged for half of the questions of each kind, by the seeds, whichever text a rule or its maker put on the left. Fewer
    than `budget` come back only where there are fewer to ask.

    The same arguments choose the same. Raises UserError for values that do not fit or a setting outside its range.
    """
    value = np.asarray(value_C, dtype=np.float64)
    if value.shape != (len(candidates),) or not np.isfinite(value).all():
        raise UserError(f"{len(candidates)} candidates but values of shape {value.shape}, or not all of them finite")
    if budget < 1 or not 0 <= random_share <= 1 or (per_group is not None and per_group < 1):
        raise UserError("a budget and a limit of each prompt are at least 1, and the random share lies between 0 and 1")
    allowed, left = _allowed(candidates, before)
    order = [allowed[i] for i in seeds.permutation(len(allowed), "asking", "random")]
    room: dict[Hashable, int] = {}

    def take(wanted: list[int], most: int) -> list[int]:
        taken: list[int] = []
        for i in wanted:
            if len(taken) == most:
                break
            group = candidates[i].group
            if per_group is None or room.get(group, 0) < per_group:
                room[group] = room.get(group, 0) + 1
                taken.append(i)
        return taken

    at_random = take(order, min(budget, int(np.ceil(random_share * budget - 1e-9))))
    taken_already = set(at_random)
    rest = sorted((i for i in order if i not in taken_already), key=lambda i: -value[i])  # stable: the order settles ties
    by_value = take(rest, budget - len(at_random))
    found = [
        Asked(i, swap, random, float(value[i]))
        for random, taken in ((True, at_random), (False, by_value))
        for i, swap in zip(taken, _sides(len(taken), seeds, random), strict=True)
    ]
    return [found[i] for i in seeds.permutation(len(found), "asking", "order")], left


def pair_key(candidate: Candidate) -> tuple[Hashable, Hashable, Hashable]:
    """The identity of a pair, the same whichever side each text stands on."""
    first, second = sorted((candidate.left, candidate.right), key=repr)
    return candidate.group, first, second


def _allowed(candidates: Sequence[Candidate], before: frozenset[tuple[Hashable, Hashable, Hashable]]) -> tuple[list[int], Left]:
    seen: set[tuple[Hashable, Hashable, Hashable]] = set()
    allowed: list[int] = []
    same = repeated = already = 0
    for i, candidate in enumerate(candidates):
        key = pair_key(candidate)
        if candidate.left == candidate.right:
            same += 1
        elif key in before:
            already += 1
        elif key in seen:
            repeated += 1
        else:
            seen.add(key)
            allowed.append(i)
    return allowed, Left(same, repeated, already)


def _sides(n: int, seeds: Seeds, random: bool) -> list[bool]:
    """Half of n exchanged, the odd one by a coin, in an order by the seeds."""
    odd = seeds.integer("asking", "odd", int(random)) % 2 if n % 2 else 0
    return [place < n // 2 + odd for place in seeds.permutation(n, "asking", "sides", int(random))]


def _entropy(p: Floats) -> Floats:
    q = np.clip(p, 1e-300, 1.0)
    r = np.clip(1 - p, 1e-300, 1.0)
    found: Floats = -(p * np.log(q) + (1 - p) * np.log(r))
    return found


def text_features(texts: Sequence[str], *, size: int = 256) -> Floats:
    """Texts as counts of their words, hashed into `size` places and scaled to length 1: (C, size), for `newness`.

    Hashed features of Weinberger et al. 2009, the sign left out. Nothing is learned, so what a policy writes tomorrow has its
    place today. An empty text is all zeros.
    """
    found = np.zeros((len(texts), size))
    place: dict[str, int] = {}
    for row, text in zip(found, texts, strict=True):
        for word in text.lower().split():
            if word not in place:
                place[word] = int(content_id("word", word)[:8], 16) % size
            row[place[word]] += 1
    length = np.linalg.norm(found, axis=1, keepdims=True)
    scaled: Floats = found / np.where(length > 0, length, 1.0)
    return scaled
