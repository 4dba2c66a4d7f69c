"""What every loop that learns from comparisons shares: questions, what is held out, and the report on it.

Legend: N comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backflip.errors import DataError
from backflip.maths.preference import bradley_terry
from backflip.maths.ratings import wilson
from backflip.records import Comparison, Prompt
from backflip.seeds import Seeds

Question = list[Comparison]
"""All comparisons that came from one question: they stand in one batch together."""
SAME = "of a text with itself"
WEIGHTLESS = "of weight 0"


class RewardReport(NamedTuple):
    """How good a reward model is on comparisons it has not seen; accuracies leave ties out, intervals are 95 % Wilson.

    `calibration_error` is the mean distance between predicted and observed preference over ten equal bins of prediction;
    `length_correlation` that of score difference and length difference; `shorter_accuracy` is the bar a model must beat:
    always preferring the shorter text.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    n: int
    log_loss: float
    calibration_error: float
    shorter_accuracy: float
    shorter_low: float
    shorter_high: float
    length_correlation: float


class Sound(NamedTuple):
    """Comparisons that can teach something, and how many were left out for each reason."""

    kept: list[Comparison]
    left_out: dict[str, int]


def sound(comparisons: Sequence[Comparison], say: Callable[[str], None] = lambda sentence: None) -> Sound:
    """Leave out what compares a text with itself and what weighs nothing, counted and said.

    Raises DataError when nothing is left, or when all that is left are ties: then every text is as good as every other.
    """
    kept: list[Comparison] = []
    left_out = {SAME: 0, WEIGHTLESS: 0}
    for comparison in comparisons:
        if comparison.left == comparison.right:
            left_out[SAME] += 1
        elif comparison.weight == 0:
            left_out[WEIGHTLESS] += 1
        else:
            kept.append(comparison)
    left_out = {why: n for why, n in left_out.items() if n}
    told = ", ".join(f"{n} {why}" for why, n in left_out.items())
    if not kept:
        why = f"left out were {told}" if told else "every verdict was a skip, or the store is empty"
        raise DataError(f"there are no comparisons to learn from; {why}")
    if all(c.p_left == 0.5 and c.left_rating == c.right_rating for c in kept):
        raise DataError(f"all {len(kept)} comparisons are ties, so no text is better than another; give some that are decided")
    if told:
        say(f"left out: {told}, of {len(comparisons)} comparisons")
    return Sound(kept, left_out)


def binarized(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Of each decided pair A above B: "GOOD: A" above "BAD: A", and "BAD: B" above "GOOD: B" (Askell et al. 2021, section 4.3).

    A model pretrained so learns to tell what is said of a text from the text, and transfers better than from the pair.
    """
    made = []
    for c in comparisons:
        if c.p_left != 0.5:
            for text, first, second in ((c.chosen, "GOOD: ", "BAD: "), (c.rejected, "BAD: ", "GOOD: ")):
                query = f"{c.query_id}/{first}" if c.query_id else ""
                made.append(Comparison(c.prompt, first + text, second + text, 1.0, weight=c.weight, query_id=query))
    return made


def for_sentinel(prompt: Prompt, share: float, seeds: Seeds) -> bool:
    """Whether comparisons on this prompt are the sentinel's, of which there are `share`; it depends on the prompt alone."""
    return seeds.integer("sentinel", prompt.id) < share * 2**63


def split_questions(comparisons: Sequence[Comparison], holdout: float, seeds: Seeds) -> tuple[list[Question], list[Question]]:
    """Comparisons grouped by question and split into those to learn from and those held out.

    All questions on one prompt fall on the same side, so that no held-out prompt was seen in training.
    """
    questions: dict[tuple[str, str], Question] = {}
    for i, comparison in enumerate(comparisons):
        key = (comparison.query_id or f"row {i}", comparison.prompt.id)
        questions.setdefault(key, []).append(comparison)
    prompts = list(dict.fromkeys(question[0].prompt.id for question in questions.values()))
    order = seeds.permutation(len(prompts), "holdout")
    held = {prompts[i] for i in order[: int(len(prompts) * holdout)]}
    sides: tuple[list[Question], list[Question]] = ([], [])
    for question in questions.values():
        sides[question[0].prompt.id in held].append(question)
    return sides


def judge(left: Sequence[float], right: Sequence[float], comparisons: Sequence[Comparison]) -> RewardReport:
    """How scores of the left and the right completions agree with what is believed about them."""
    left_N, right_N = (torch.tensor(list(scores), dtype=torch.float64) for scores in (left, right))
    believed = torch.tensor([c.p_left for c in comparisons], dtype=torch.float64)
    longer = torch.tensor([float(len(c.left) - len(c.right)) for c in comparisons], dtype=torch.float64)
    decided = believed != 0.5
    n = int(decided.sum())
    gap = left_N - right_N
    right_way = _hits(gap, believed)[decided].sum().item()
    shorter = _hits(-longer, believed)[decided].sum().item()
    interval, bar = _interval(right_way, n), _interval(shorter, n)
    return RewardReport(
        accuracy=right_way / max(n, 1),
        accuracy_low=interval[0],
        accuracy_high=interval[1],
        n=n,
        log_loss=bradley_terry(left_N, right_N, believed).loss.item(),
        calibration_error=_calibration_error(torch.cat([gap, -gap]).sigmoid(), torch.cat([believed, 1 - believed])),
        shorter_accuracy=shorter / max(n, 1),
        shorter_low=bar[0],
        shorter_high=bar[1],
        length_correlation=_correlation(gap, longer),
    )


def _interval(hits: float, n: int) -> tuple[float, float]:
    """Wilson's interval of `hits` out of `n`; everything is possible when all were ties."""
    return wilson(hits / n, n) if n else (0.0, 1.0)


def _hits(difference: Tensor, believed: Tensor) -> Tensor:
    """1 where the sign agrees with the belief, ½ where there is no difference."""
    return torch.where(difference == 0, 0.5, ((difference > 0) == (believed > 0.5)).double())


def _calibration_error(predicted: Tensor, observed: Tensor, bins: int = 10) -> float:
    """Σ over bins of share · |mean prediction − mean belief| (expected calibration error, Guo et al. 2017).

    Each comparison should stand there from both sides: files put the chosen text first, and where every belief is 1 no
    prediction below 1 would ever look right.
    """
    place = (predicted * bins).long().clamp(max=bins - 1)
    gaps = [
        ((predicted[place == b].mean() - observed[place == b].mean()).abs() * (place == b).double().mean()).item()
        for b in range(bins)
        if (place == b).any()
    ]
    return sum(gaps)


def _correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's r; 0 where either side does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = (x.square().sum() * y.square().sum()).sqrt()
    return ((x * y).sum() / scale).item() if scale > 0 else 0.0
