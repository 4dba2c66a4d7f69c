"""What `quality` says about answers: figures with their n and 95 % interval, and how each becomes plain JSON. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from backflip.maths.shares import Share
from backflip.records import Verdict

Words = Literal["agree_strong", "agree_moderate", "agree_little", "agree_none", "undefined"]
CHUNK = 1_000_000  # pairs of verdicts counted at once


@dataclass(frozen=True, slots=True)
class Agreement:
    """A figure of agreement with its 95 % interval; None where it is undefined, and then `why` says why.

    `n` is the number of units with two answers or more, `n_pairs` that of pairs of answers to them. `words` is the key of a
    sentence: strong or moderate by thresholds; "agree_none" where the interval reaches down to what chance would give, or the
    units are too few to tell; "agree_little" between; "undefined". `why_key` is "no_overlap" or "one_category", the key of the
    sentence in `why`.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_pairs: int
    words: Words
    why: str = ""
    why_key: str = ""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        names = ("value", "low", "high", "n", "n_pairs", "words", "why", "why_key")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Bias:
    """A share of n decided pairs that ½ would mean no bias, its 95 % interval, and the exact two-sided p-value against ½."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "p": self.p}


@dataclass(frozen=True, slots=True)
class Rater:
    """One labeler. Shares are of pairs; each has its n and 95 % interval.

    `consensus`: the same answer as most of the other people, where these have one. `gold`: the known answer. `left`: the
    completion shown first won. `longer`: the longer text won. `median_ms`: of answers whose time is known. `consistency`: the
    same answer when asked again. `reliability`: how often right, by Dawid & Skene. `person`: whether the figures of everybody
    and the consensus count this labeler.
    """

    name: str
    person: bool
    n_answers: int
    n_skips: int
    consensus: Share
    gold: Share
    left: Bias
    longer: Bias
    median_ms: Share
    consistency: Share
    reliability: Share

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        plain = {name: getattr(self, name) for name in ("name", "person", "n_answers", "n_skips")}
        figures = ("consensus", "gold", "median_ms", "consistency", "reliability")
        biases = {"left": self.left.to_json(), "longer": self.longer.to_json()}
        return plain | {name: getattr(self, name)._asdict() for name in figures} | biases


class Pair(NamedTuple):
    """How often two labelers gave the same answer to what both answered, with its 95 % interval."""

    a: str
    b: str
    value: float
    low: float
    high: float
    n: int


class Opinion(NamedTuple):
    """What one labeler said about a contested unit: "left", "tie" or "right" of it, and the verdict it is part of."""

    annotator: str
    answer: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Contested:
    """A unit on which people differ: completions `pair` of a query, how many said what, its entropy in nats, and all opinions.

    `adjudicated` holds the payload of the last "adjudicate" event about the query, if there is one.
    """

    query_id: str
    pair: tuple[int, int]
    counts: Mapping[str, int]
    entropy: float
    opinions: tuple[Opinion, ...]
    adjudicated: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        opinions = [{"annotator": o.annotator, "answer": o.answer, **_told(o.verdict)} for o in self.opinions]
        return {
            "query_id": self.query_id, "pair": list(self.pair), "counts": dict(self.counts), "n": sum(self.counts.values()),
            "entropy": self.entropy, "opinions": opinions,
            "adjudicated": None if self.adjudicated is None else dict(self.adjudicated),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quality:
    """Everything there is to say: figures of all people, each labeler, each two labelers, and what they differ on most.

    `n_units` units were answered by somebody, `n_overlapping` of them by two people or more.
    """

    alpha_nominal: Agreement
    alpha_ordinal: Agreement
    ac1: Agreement
    raw: Agreement
    n_units: int
    n_overlapping: int
    raters: tuple[Rater, ...]
    pairs: tuple[Pair, ...]
    contested: tuple[Contested, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        figures = ("alpha_nominal", "alpha_ordinal", "ac1", "raw")
        return {name: getattr(self, name).to_json() for name in figures} | {
            "n_units": self.n_units,
            "n_overlapping": self.n_overlapping,
            "raters": [rater.to_json() for rater in self.raters],
            "pairs": [pair._asdict() for pair in self.pairs],
            "contested": [unit.to_json() for unit in self.contested],
        }


def _told(verdict: Verdict) -> dict[str, Any]:
    """What a page shows of a verdict."""
    return {
        "choice": verdict.choice, "ranking": [list(group) for group in verdict.ranking],
        "scores": list(verdict.scores), "strength": verdict.strength, "code": verdict.code,
        "note": verdict.note, "ms": verdict.ms,
    }  # fmt: skip
