"""What is counted in `test-time`: accuracy by the number of tries, by the length of thinking and by the length allowed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from backflip.lab.many_tries import as_curve, difference, doublings, log_linear, majority_at_k, pass_at_k
from backflip.maths.ratings import best_of_n
from backflip.records import Comparison, Prompt, Sample
from backflip.worlds.arithmetic import read
from backflip.worlds.arithmetic.notation import CLOSE, OPEN, WAIT, read_problem

FEW = 30
"""Groups of fewer completions are not told."""
ALLOWED = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80)
"""Lengths in tokens that a completion may be allowed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A test problem and the tries at it, columns of one length: whether each is right, its answer, the verifier's score, its
    tokens in all and those of its thought (None outside the template)."""

    prompt: str
    answer: str
    right: list[bool]
    votes: list[str | None]
    scores: list[float]
    lengths: list[int]
    thoughts: list[int | None]

    @property
    def digits(self) -> int:
        """Digits of each number."""
        found = read_problem(self.prompt)
        if found is None:
            raise ValueError(f"{self.prompt!r} is not a problem of this world")
        return len(str(found.numbers[0]))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return asdict(self)


def judged(prompt: Prompt, samples: Sequence[Sample], scores: Sequence[float]) -> Problem:
    """A problem with its tries; one that was cut off is wrong and has no vote."""
    answer = prompt.columns["answer"]
    votes = [read(s.text).answer if s.finished else None for s in samples]
    return Problem(
        prompt.plain, answer, [vote == answer for vote in votes], votes, list(scores), [s.n_tokens for s in samples],
        [thought(s.text) for s in samples],
    )  # fmt: skip


def thought(text: str) -> int | None:
    """Tokens between the think tags; None for a completion outside the template.

    >>> thought("<think>a06waita06</think><answer>a6</answer>")
    7
    """
    if not read(text).well_formed:
        return None
    return len(text[len(OPEN) : text.index(CLOSE)].replace(WAIT, "w"))


def pairs_of(prompt: Prompt, samples: Sequence[Sample], most: int, rng: random.Random) -> list[Comparison]:
    """Right completions of a problem above wrong ones, different pairs in random order, `most` at most; all one question."""
    answer = prompt.columns["answer"]
    sides: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for sample in samples:
        sides[sample.finished and read(sample.text).answer == answer][sample.text] = None
    pairs = [(good, bad) for good in sides[True] for bad in sides[False]]
    rng.shuffle(pairs)
    return [Comparison(prompt, good, bad, p_left=1.0, query_id=prompt.id) for good, bad in pairs[:most]]


def by_tries(problems: Sequence[Problem], most: int, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """Accuracy against the number of tries: any of k right (the exact checker picks), the verifier's favourite, the longest
    thought, the vote, and the vote in which a try weighs exp(score), its odds against another in the verifier's eyes."""
    ks = doublings(min(most, len(problems[0].right)))
    rows: dict[str, list[list[float]]] = {"checker": [], "verifier": [], "longest": [], "majority": [], "weighed": []}
    for p in problems:
        n, c = len(p.right), sum(p.right)
        rows["checker"].append([pass_at_k(n, c, k) for k in ks])
        right, lengths = np.asarray(p.right, dtype=float), [-1 if t is None else t for t in p.thoughts]
        rows["verifier"].append([best_of_n(p.scores, right, k) for k in ks])
        rows["longest"].append([best_of_n(lengths, right, k) for k in ks])
        vote = partial(majority_at_k, p.votes, p.answer, ks, draws=draws, generator=generator)
        rows["majority"].append(vote())
        rows["weighed"].append(vote(weights=np.exp(np.asarray(p.scores) - max(p.scores)).tolist()))
    return {name: as_curve(ks, values) for name, values in rows.items()}


def told_apart(problems: Sequence[Problem], *, equal_thoughts: bool = False) -> float | None:
    """How often the verifier scores a right try of a problem above a wrong one, ties half, the mean over problems that have both
    (the area under the ROC curve within a problem); None where no problem has.

    With `equal_thoughts` only tries are compared whose thoughts are equally long, so that the length tells nothing.
    """
    found = []
    for p in problems:
        right, scores = np.asarray(p.right), np.asarray(p.scores)
        lengths = np.asarray([-1 if t is None else t for t in p.thoughts])
        compared = np.logical_and.outer(right, ~right)
        if equal_thoughts:
            compared &= np.equal.outer(lengths, lengths)
        if compared.any():
            gaps = np.subtract.outer(scores, scores)[compared]
            found.append(float(((gaps > 0) + 0.5 * (gaps == 0)).mean()))
    return float(np.mean(found)) if found else None


def by_thinking(problems: Sequence[Problem]) -> dict[str, Any]:
    """Accuracy of one try by the tokens of its thought, for each number of digits, and the log-linear fit over all lengths.

    Each row is a length with `n` ≥ 30 completions. The fit is through all rows, weighed alike, on log₂(1 + tokens).
    """
    rows = []
    for digits in sorted({p.digits for p in problems}):
        of_size = [p for p in problems if p.digits == digits]
        for tokens in sorted({t for p in of_size for t in p.thoughts if t is not None}):
            hits = [[r for r, t in zip(p.right, p.thoughts, strict=True) if t == tokens] for p in of_size]
            n = sum(map(len, hits))
            if n >= FEW:
                rows.append({"digits": digits, "tokens": tokens, "n": n, "value": sum(map(sum, hits)) / n})
    enough = len({row["tokens"] for row in rows}) > 1
    fit = log_linear([1 + row["tokens"] for row in rows], [row["value"] for row in rows])._asdict() if enough else None
    return {"rows": rows, "fit": fit}


def by_allowance(problems: Sequence[Problem]) -> dict[str, Any]:
    """Accuracy of one try where a completion counts only if it is no longer than a number of tokens, and the log-linear fit."""
    longest = max(length for p in problems for length in p.lengths)
    allowed = [a for a in ALLOWED if a < longest] + [longest]
    rows = [
        [sum(r and n <= most for r, n in zip(p.right, p.lengths, strict=True)) / len(p.right) for most in allowed]
        for p in problems
    ]
    return as_curve(allowed, rows)


def gain_of_thinking(problems: Sequence[Problem]) -> dict[str, float] | None:
    """What thinking longer goes along with, at equal problems: accuracy of the tries whose thought is longer than the problem's
    median, less that of the shorter ones, averaged over problems that have both; None where none has."""
    gains = []
    for p in problems:
        tried = [(t, r) for t, r in zip(p.thoughts, p.right, strict=True) if t is not None]
        if not tried:
            continue
        middle = float(np.median([t for t, _ in tried]))
        long, short = ([r for t, r in tried if (t > middle) == kind] for kind in (True, False))
        if long and short:
            gains.append(sum(long) / len(long) - sum(short) / len(short))
    if not gains:
        return None
    return difference(gains) | {"problems": float(len(gains))}
