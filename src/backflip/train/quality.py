"""How good a reward model is, and where: accuracy in slices, calibration, length, distance from the policy, strange texts.

Legend: N comparisons, B texts, D hidden width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from backflip.maths.calibration import (
    Bin,
    Coefficient,
    Temperature,
    calibration_bins,
    fit_temperature,
    logistic_slope,
    strangeness,
    usual,
)
from backflip.maths.length_control import length_difference
from backflip.maths.shares import Share, shares
from backflip.policies.language import LanguagePolicy
from backflip.records import Comparison, Prompt
from backflip.rewards.ensemble import Ensemble, Learned
from backflip.rewards.protocol import score
from backflip.train.comparisons import RewardReport, judge
from backflip.train.examples import Example, log_likelihoods

Floats = NDArray[np.float64]
QUARTERS = 4
FEW = 10
"""Comparisons that an annotator needs to be told alone."""
DAY = 86_400.0
AT_ONCE = 64
"""Texts that a policy reads together."""
MOST_USUAL = 2000
"""Texts from which it is told what is usual."""


class Slice(NamedTuple):
    """A part of the comparisons: what it is, where it lies on the axis, and how often the model is right there."""

    name: str
    x: float
    right: Share


class Strange(NamedTuple):
    """Texts beyond the 95th percentile of those learned from: their share, and whether the model is less right about them."""

    share: float
    n: int
    slices: list[Slice]


@dataclass(frozen=True)
class Quality:
    """What `examine` found. `slices` holds lists by what divides the comparisons; one that the data do not allow is missing.

    `model_length` and `people_length` are by how many nats a standard deviation more of relative length moves the model's
    predictions, and the labels.
    """

    report: RewardReport
    slices: dict[str, list[Slice]]
    temperature: Temperature
    bins: list[Bin]
    model_length: Coefficient
    people_length: Coefficient
    strange: Strange | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "report": self.report._asdict(),
            "slices": {name: _rows(slices) for name, slices in self.slices.items()},
            "temperature": self.temperature._asdict(),
            "bins": [each._asdict() for each in self.bins],
            "model_length": self.model_length._asdict(),
            "people_length": self.people_length._asdict(),
        } | (
            {}
            if self.strange is None
            else {"strange": {"share": self.strange.share, "n": self.strange.n, "slices": _rows(self.strange.slices)}}
        )

    def headlines(self) -> dict[str, float]:
        """The numbers that stand beside a report in a run's result."""
        return {
            "temperature": self.temperature.value,
            "log_loss_at_temperature": self.temperature.after,
            "length_coefficient": self.model_length.value,
            "length_coefficient_of_people": self.people_length.value,
        } | ({} if self.strange is None else {"strange_share": self.strange.share})


def _rows(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    return [{"name": each.name, "x": each.x} | each.right._asdict() for each in slices]


def examine(
    model: Learned,
    comparisons: Sequence[Comparison],
    *,
    learned_from: Sequence[Comparison] = (),
    distances: Sequence[float] | None = None,
) -> Quality:
    """How good `model` is on comparisons, best ones that it has not seen.

    `learned_from` tells what texts are usual; with fewer than 20 different ones nothing is said of strange ones. `distances` is
    how far the texts of each comparison are from the policy the model was made for, in nats (`log_ratios`). Raises ValueError
    for another number of distances than comparisons.
    """
    prompts = [c.prompt for c in comparisons]
    left_N, right_N = (np.array(score(model, prompts, side), dtype=np.float64) for side in _sides(comparisons))
    gap_N = left_N - right_N
    p_N = np.array([c.p_left for c in comparisons], dtype=np.float64)
    longer_N = length_difference([len(c.left) for c in comparisons], [len(c.right) for c in comparisons])
    cut = _Cut(comparisons, gap_N, p_N)
    strange = _strange(model, comparisons, learned_from, cut)
    return Quality(
        report=judge(left_N.tolist(), right_N.tolist(), comparisons),
        slices=_slices(cut, comparisons, gap_N, p_N, longer_N, distances),
        temperature=fit_temperature(gap_N, p_N),
        bins=calibration_bins(gap_N, p_N),
        model_length=logistic_slope(longer_N, 0.5 * (1 + np.tanh(gap_N / 2))),
        people_length=logistic_slope(longer_N, p_N),
        strange=strange,
    )


def log_ratios(policy: LanguagePolicy, reference: LanguagePolicy, comparisons: Sequence[Comparison]) -> list[float]:
    """How much likelier each pair of texts is under the policy than under its reference: log π(y|x)/ρ(y|x) in nats, the mean of
    the two texts.

    A text counts with the token that ends it, and each policy reads it with a tokenizer of its own. NaN where a text does not
    fit into a context.
    """
    pairs = [(c.prompt, text) for c in comparisons for text in (c.left, c.right)]
    ours, theirs = (_logps(model, pairs) for model in (policy, reference))
    ratios = [own - other for own, other in zip(ours, theirs, strict=True)]
    return [0.5 * (left + right) for left, right in zip(ratios[::2], ratios[1::2], strict=True)]


def _logps(policy: LanguagePolicy, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
    """log π(text|prompt) of each pair, in nats."""
    rows = [Example(policy.encode(prompt), policy.encode_completion(text)) for prompt, text in pairs]
    known = [i for i, row in enumerate(rows) if row.length <= policy.context]
    found = [math.nan] * len(rows)
    with torch.no_grad():
        for start in range(0, len(known), AT_ONCE):
            part = known[start : start + AT_ONCE]
            for i, logp in zip(part, log_likelihoods(policy, [rows[i] for i in part]).tolist(), strict=True):
                found[i] = logp
    return found


def _sides(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    return [c.left for c in comparisons], [c.right for c in comparisons]


class _Cut:
    """Decided comparisons, whether the model is right about each, and their parts as shares; a question is a cluster."""

    def __init__(self, comparisons: Sequence[Comparison], gap_N: Floats, p_N: Floats) -> None:
        self.decided_N = p_N != 0.5
        self.right_N = np.where(gap_N == 0, 0.5, (gap_N > 0) == (p_N > 0.5)).astype(np.float64)
        number: dict[Hashable, int] = {}
        keys = [(c.query_id or i, c.prompt.id) for i, c in enumerate(comparisons)]
        self.question_N = np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)

    def parts(self, names: Sequence[str], xs: Sequence[float], part_N: NDArray[np.int64]) -> list[Slice]:
        """The share that is right in each part; −1 is in none. Parts without a decided comparison are left out."""
        kept = self.decided_N & (part_N >= 0)
        cells, where = np.unique(part_N[kept] * (len(self.question_N) + 1) + self.question_N[kept], return_inverse=True)
        hits, totals = np.bincount(where, weights=self.right_N[kept]), np.bincount(where).astype(np.float64)
        group = cells // (len(self.question_N) + 1)
        found = shares(group, hits, totals, len(names)) if len(cells) else [Share(None, None, None, 0)] * len(names)
        return [Slice(name, float(x), share) for name, x, share in zip(names, xs, found, strict=True) if share.n]

    def quarters(self, values_N: Floats, form: Callable[[float], str]) -> list[Slice]:
        """Parts of about equal size along a value; NaN is in none. Nothing where the value hardly varies."""
        fine = self.decided_N & np.isfinite(values_N)
        if fine.sum() < QUARTERS:
            return []
        edges = np.unique(np.quantile(values_N[fine], np.linspace(0, 1, QUARTERS + 1)))
        if len(edges) < 2:
            return []
        inner = np.searchsorted(edges[1:-1], np.nan_to_num(values_N), side="right")
        part_N = np.where(np.isfinite(values_N), inner, -1).astype(np.int64)
        names = [f"{form(low)} to {form(high)}" for low, high in itertools.pairwise(edges)]
        xs = [float(np.mean(values_N[fine & (part_N == i)])) if (fine & (part_N == i)).any() else 0.0 for i in range(len(names))]
        return self.parts(names, xs, part_N)


def _slices(
    cut: _Cut, comparisons: Sequence[Comparison], gap_N: Floats, p_N: Floats, longer_N: Floats, distances: Sequence[float] | None
) -> dict[str, list[Slice]]:
    winner_N = np.where(p_N >= 0.5, longer_N, -longer_N)
    strengths = np.array([c.strength or -1 for c in comparisons], dtype=np.int64)
    asked = np.array([_stated(c) for c in comparisons], dtype=np.float64)
    at = np.array([c.at or math.nan for c in comparisons], dtype=np.float64)
    found = {
        "predicted difference": cut.quarters(np.abs(gap_N), "{:.2f}".format),
        "stated strength": cut.parts([f"strength {s}" for s in range(5)], range(5), strengths),
        "stated margin": cut.quarters(asked, "{:.2g}".format),
        "length of the preferred text": _by_length(cut, winner_N),
        "annotator": _by_name(cut, [c.annotator for c in comparisons]),
        "policies": _by_name(cut, [" and ".join(sorted({c.left_policy, c.right_policy} - {""})) for c in comparisons]),
    }
    if np.isfinite(at).any():
        found["age of the label"] = cut.quarters((np.nanmax(at) - at) / DAY, "{:.2g} days".format)
    if distances is not None:
        if len(distances) != len(comparisons):
            raise ValueError(f"{len(distances)} distances for {len(comparisons)} comparisons")
        found["distance from the policy"] = cut.quarters(np.array(distances, dtype=np.float64), "{:.1f} nats".format)
    return {name: slices for name, slices in found.items() if slices}


def _stated(comparison: Comparison) -> float:
    """By how much the labeler said the texts differ: a margin, or a difference in rating; NaN when nothing was said."""
    if comparison.margin:
        return comparison.margin
    if comparison.left_rating is None or comparison.right_rating is None:
        return math.nan
    return abs(comparison.left_rating - comparison.right_rating)


LENGTHS = ("much shorter", "shorter", "as long", "longer", "much longer")


def _by_length(cut: _Cut, winner_N: Floats) -> list[Slice]:
    """By how the preferred text's length stands to the other's; "much" is from one and a half times on."""
    edges = np.array([-0.2, 0.0, 0.2])
    part_N = np.searchsorted(edges, winner_N, side="left")
    part_N = np.where(winner_N == 0, 2, np.where(part_N >= 2, part_N + 1, part_N)).astype(np.int64)
    return cut.parts(LENGTHS, (-2, -1, 0, 1, 2), part_N)


def _by_name(cut: _Cut, names: Sequence[str]) -> list[Slice]:
    """By who it was, those of few comparisons together as "others"; nothing where nobody is named."""
    decided = [name for name, kept in zip(names, cut.decided_N.tolist(), strict=True) if kept and name]
    counts = {name: decided.count(name) for name in sorted(set(decided))}
    told = [name for name, n in counts.items() if n >= FEW]
    rest = len(counts) - len(told)
    place = {name: i for i, name in enumerate(told)} | {name: len(told) for name, n in counts.items() if n < FEW}
    labels = [*told, *([f"{rest} others"] if rest else [])]
    return cut.parts(labels, range(len(labels)), np.array([place.get(name, -1) for name in names], dtype=np.int64))


def _strange(
    model: Learned, comparisons: Sequence[Comparison], learned_from: Sequence[Comparison], cut: _Cut
) -> Strange | None:  # fmt: skip
    """Half of the texts learned from say what is usual, the other half where the 5 % strangest of the usual begin."""
    texts = list({(c.prompt.id, text): (c.prompt, text) for c in learned_from for text in (c.left, c.right)}.values())[
        :MOST_USUAL
    ]
    if len(texts) < 20:
        return None
    states_BD = _hidden(model, texts)
    known = usual(states_BD[::2])
    limit = float(np.quantile(strangeness(states_BD[1::2], known), 0.95))
    both = [strangeness(_hidden(model, [(c.prompt, t) for c, t in zip(comparisons, side, strict=True)]), known)
            for side in _sides(comparisons)]  # fmt: skip
    stranger_N: Floats = np.maximum(*both)
    share = float(np.mean([np.mean(each > limit) for each in both]))
    return Strange(share, 2 * len(comparisons), cut.quarters(stranger_N, "{:.0f}".format))


def _hidden(model: Learned, texts: Sequence[tuple[Prompt, str]]) -> Floats:
    one = model.members[0] if isinstance(model, Ensemble) else model
    return one.hidden([prompt for prompt, _ in texts], [text for _, text in texts]).double().numpy()
