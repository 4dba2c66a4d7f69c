"""What a reward model is asked for: comparisons made ready for one of the losses, and the loss of a part of a batch.

Legend: B completions that are scored, each once; N comparisons, rankings or targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from backflip.errors import ConfigError, DataError
from backflip.maths.choices import RankingTies, best_of_k, davidson, plackett_luce, rao_kupper, rating_regression
from backflip.maths.preference import bradley_terry
from backflip.records import Comparison, Prompt
from backflip.seeds import Seeds
from backflip.settings import Reward
from backflip.train.comparisons import Question
from backflip.train.rankings import Key, Ranked, Scale, Target, elo_targets, rankings, rating_targets, scales

BY_TIE_MODEL = {"rao-kupper": rao_kupper, "davidson": davidson}


class Pair(NamedTuple):
    """A comparison and where its sides are found."""

    left: Key
    right: Key
    comparison: Comparison

    @property
    def weight(self) -> float:
        """The comparison's."""
        return self.comparison.weight


@dataclass(frozen=True)
class Unit:
    """What stands in one batch together: the comparisons of a question, and what the loss makes of them.

    `texts` are the completions to be read, each with its prompt; `weight` is the unit's part of the loss's denominator.
    """

    pairs: tuple[Pair, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    targets: tuple[Target, ...] = ()
    texts: Mapping[Key, Prompt] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Σ of the weights of whatever the loss counts."""
        return sum(p.weight for p in self.pairs) + sum(r.weight for r in self.ranked) + sum(t.weight for t in self.targets)


def check_objective(settings: Reward) -> None:
    """Refuse settings that do not go together. Raises ConfigError, saying which and what to do."""
    pairwise = settings.loss == "bradley-terry"
    if settings.ties in BY_TIE_MODEL and not pairwise:
        raise ConfigError(f"ties {settings.ties!r} is a model of pairs; with loss {settings.loss!r} set ties to half or drop")
    if settings.error_rate and not pairwise:
        raise ConfigError(f"error_rate is about pairs; with loss {settings.loss!r} set it to 0")
    if settings.strength_margins and (not pairwise or settings.ties in BY_TIE_MODEL):
        raise ConfigError("strength_margins are for the loss bradley-terry with ties half or drop; leave them out")
    if settings.batching == "pair" and not pairwise:
        raise ConfigError(f"loss {settings.loss!r} needs whole questions in a batch; set batching to question")


def units(questions: Sequence[Question], settings: Reward, seeds: Seeds) -> list[Unit]:
    """The questions as the loss wants them; one that says nothing to it is left out.

    Raises ConfigError for settings that do not go together, DataError when no question says anything, and for comparisons
    that are no rankings where the loss needs some.
    """
    check_objective(settings)
    everything = [c for question in questions for c in question]
    if settings.batching == "pair":
        questions = [[c] for c in everything]
    known: dict[str, Scale | None] = {}
    elo: dict[Key, float] = {}
    if settings.loss == "regression" and settings.ratings == "annotator":
        known = scales(everything)
    if settings.loss == "elo":
        elo = elo_targets(everything, seeds, k=settings.elo_k)
    made = [_unit(question, settings, known, elo) for question in questions]
    useful = [unit for unit in made if unit.weight > 0]
    if not useful:
        raise DataError(f"there are no comparisons to learn from: {_why_none(everything, settings)}")
    return useful


def voiceless(comparisons: Sequence[Comparison], settings: Reward) -> dict[str, int]:
    """How many comparisons, by reason, the loss makes nothing of: those of annotators without a scale, ties that are dropped."""
    found = {"of annotators whose ratings are all alike": 0, "without ratings": 0, "ties": 0}
    if settings.loss == "regression":
        known = scales(comparisons) if settings.ratings == "annotator" else {}
        for c in comparisons:
            rated = c.left_rating is not None or c.right_rating is not None
            found["without ratings"] += not rated
            found["of annotators whose ratings are all alike"] += rated and bool(known) and known.get(c.annotator) is None
    elif settings.ties == "drop" and settings.loss == "bradley-terry":
        found["ties"] = sum(c.p_left == 0.5 for c in comparisons)
    return {why: n for why, n in found.items() if n}


def _why_none(comparisons: Sequence[Comparison], settings: Reward) -> str:
    if settings.loss == "regression":
        return "the loss regression needs ratings that differ; give columns completions and ratings, or use bradley-terry"
    return f"all {len(comparisons)} are ties, which ties {settings.ties!r} leaves out"


def _unit(question: Question, settings: Reward, known: dict[str, Scale | None], elo: dict[Key, float]) -> Unit:
    pairs: tuple[Pair, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    targets: tuple[Target, ...] = ()
    prompt = question[0].prompt
    of = prompt.id  # once: it is worked out from the prompt's content
    if settings.loss == "bradley-terry":
        kept = [c for c in question if c.weight > 0 and not (settings.ties == "drop" and c.p_left == 0.5)]
        pairs = tuple(Pair((of, c.left), (of, c.right), c) for c in kept)
        keys = [key for pair in pairs for key in (pair.left, pair.right)]
    else:
        keys = [(of, text) for c in question for text in (c.left, c.right)]
    if settings.loss == "regression":
        targets = tuple(rating_targets(question, known))
        keys = [target.completion for target in targets]
    elif settings.loss == "elo":
        targets = tuple(Target(key, elo[key], 1.0) for key in dict.fromkeys(keys))
    elif settings.loss != "bradley-terry":
        found = rankings(question, whole=settings.loss == "plackett-luce")
        ranked = tuple(r for r in found if settings.ties != "drop" or len(r.groups) > 1)
    return Unit(pairs, ranked, targets, dict.fromkeys(keys, prompt))


def loss_of(batch: Sequence[Unit], place: Mapping[Key, int], scores_B: Tensor, settings: Reward, denominator: float) -> Tensor:
    """These units' share of the batch's loss; `place` says where among the scores each completion stands."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=scores_B.dtype, device=scores_B.device)

    if settings.loss == "bradley-terry":
        return _pairwise([pair for unit in batch for pair in unit.pairs], place, scores_B, settings, denominator)
    if settings.loss in ("regression", "elo"):
        targets = [target for unit in batch for target in unit.targets]
        return rating_regression(
            scores_B[[place[t.completion] for t in targets]], column([t.value for t in targets]),
            weight_N=column([t.weight for t in targets]), denominator=denominator,
        )  # fmt: skip
    ranked = [each for unit in batch for each in unit.ranked]
    ties: RankingTies = "drop" if settings.ties == "drop" else "half"
    loss = plackett_luce if settings.loss == "plackett-luce" else best_of_k
    return loss(
        scores_B, [[[place[key] for key in group] for group in each.groups] for each in ranked], ties=ties,
        weight_N=column([each.weight for each in ranked]), denominator=denominator,
    ).loss  # fmt: skip


def _pairwise(pairs: Sequence[Pair], place: Mapping[Key, int], scores_B: Tensor, settings: Reward, denominator: float) -> Tensor:
    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=scores_B.dtype, device=scores_B.device)

    left_N = scores_B[[place[pair.left] for pair in pairs]]
    right_N = scores_B[[place[pair.right] for pair in pairs]]
    told = [pair.comparison for pair in pairs]
    p_N, weight_N = column([c.p_left for c in told]), column([c.weight for c in told])
    if settings.ties in BY_TIE_MODEL:
        return BY_TIE_MODEL[settings.ties](
            left_N, right_N, p_N, tie_width=settings.tie_width, error_rate=settings.error_rate, weight_N=weight_N,
            denominator=denominator,
        ).loss  # fmt: skip
    margin_N = column([c.margin + _asked(c, settings.strength_margins) for c in told])
    return bradley_terry(
        left_N, right_N, p_N, margin_N=margin_N, error_rate=settings.error_rate, weight_N=weight_N, denominator=denominator
    ).loss


def _asked(comparison: Comparison, margins: Sequence[float]) -> float:
    """By how much more the winner is to win for its stated strength."""
    if not margins or not comparison.strength or comparison.p_left == 0.5:
        return 0.0
    return margins[min(comparison.strength, len(margins)) - 1]
