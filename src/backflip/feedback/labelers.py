"""Who answers a query: anything with a name and an `answer`; here, an oracle that knows the true reward.

The oracle errs like a person in a known way, so that an experiment can tell learning from luck: it prefers A to B
with probability (1−ε)·σ((u_A−u_B)/τ) + ε/2, the constant error ε being that of Christiano et al. (2017), §2.2.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from backflip.errors import NumericsError, UserError
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store

CHUNK = 32  # answers written at once: an interruption costs at most so many, a write costs one flush of the disk


class Labeler(Protocol):
    """Somebody who answers queries; code that consumes the answers never knows who."""

    @property
    def name(self) -> str:
        """Who the verdicts are from; one labeler answers a query once."""
        ...

    def answer(self, query: Query) -> Verdict:
        """The verdict on one query."""
        ...


class Oracle:
    """A simulated annotator with the hidden utility u(prompt, completion), higher is better.

    Of two completions it prefers A with probability (1−ε)·σ((u_A−u_B)/τ) + ε/2 where ε is `noise` in [0, 1] and τ
    is `temperature` ≥ 0, in units of u (0: the better one, up to ε; a coin where they are equal). It calls a tie
    when |u_A−u_B| < `tie_width`, before any error.

    Of more than two it draws a ranking from Plackett–Luce, P(best = i) ∝ exp(u_i/τ) and so on among the rest, by
    sorting u_i/τ plus Gumbel noise; with probability ε the order is uniform instead. Neighbours in the ranking
    closer than `tie_width` share a place. For two completions this is the formula above.

    Every draw depends on `seeds`, `name` and the query alone: asked again, in any order, it answers the same.
    `answer` raises NumericsError when the utility of a completion is not finite.

    >>> from backflip.records import Prompt
    >>> oracle = Oracle(lambda prompt, text: len(text), seeds=Seeds(0), noise=0.0, temperature=0.0)
    >>> oracle.answer(Query(Prompt("Say hi"), ("hi", "hello"))).choice
    'right'
    """

    def __init__(
        self,
        utility: Callable[[Prompt, str], float],
        *,
        seeds: Seeds,
        name: str = "oracle",
        noise: float = 0.1,
        temperature: float = 1.0,
        tie_width: float = 0.0,
    ) -> None:
        if not 0.0 <= noise <= 1.0:
            raise UserError(f"an oracle's noise is a probability, not {noise}")
        if not (temperature >= 0.0 and tie_width >= 0.0):
            raise UserError(f"temperature {temperature} and tie_width {tie_width} of an oracle cannot be negative")
        self.name = name
        self._utility, self._seeds = utility, seeds
        self._noise, self._temperature, self._tie_width = noise, temperature, tie_width

    def answer(self, query: Query) -> Verdict:
        """left, right or tie for two completions, a ranking for more; `at` and `ms` are 0: nobody took time."""
        u_K = [self._value(query, text) for text in query.completions]
        rng = self._seeds.numpy("oracle", self.name, query.id)
        shown_first = int(rng.integers(len(u_K)))
        if len(u_K) > 2:
            return Verdict(query.id, self.name, "ranking", ranking=self._ranking(u_K, rng), shown_first=shown_first)
        if abs(u_K[0] - u_K[1]) < self._tie_width:
            return Verdict(query.id, self.name, "tie", shown_first=shown_first)
        left = rng.random() < preference_probability(u_K[0] - u_K[1], self._noise, self._temperature)
        return Verdict(query.id, self.name, "left" if left else "right", shown_first=shown_first)

    def _value(self, query: Query, text: str) -> float:
        value = float(self._utility(query.prompt, text))
        if not math.isfinite(value):
            raise NumericsError(
                f"the utility of labeler {self.name!r} is {value} for completion {text[:60]!r} of query {query.id}"
            )
        return value

    def _ranking(self, u_K: list[float], rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
        shuffled = [int(i) for i in rng.permutation(len(u_K))]  # settles equal values when nothing else does
        gumbel_K = rng.gumbel(size=len(u_K)) * self._temperature
        if rng.random() < self._noise:
            order = shuffled
        else:
            order = sorted(shuffled, key=lambda i: u_K[i] + gumbel_K[i], reverse=True)
        groups = [[order[0]]]
        for above, below in itertools.pairwise(order):
            if abs(u_K[above] - u_K[below]) < self._tie_width:
                groups[-1].append(below)
            else:
                groups.append([below])
        return tuple(tuple(group) for group in groups)


def preference_probability(difference: float, noise: float, temperature: float) -> float:
    """P(A ≻ B) = (1−ε)·σ((u_A−u_B)/τ) + ε/2, of `difference` = u_A−u_B (Christiano et al. 2017, §2.2.3).

    At τ = 0 the sigmoid is a step, ½ at zero.

    >>> preference_probability(0.0, 0.1, 1.0), preference_probability(5.0, 0.0, 0.0)
    (0.5, 1.0)
    """
    if temperature == 0.0:
        sigmoid = 0.5 if difference == 0 else float(difference > 0)
    else:
        sigmoid = 0.5 * (1.0 + math.tanh(0.5 * difference / temperature))  # tanh saturates where exp overflows
    return (1.0 - noise) * sigmoid + 0.5 * noise


def opinions(labeler: Labeler, queries: Iterable[Query]) -> list[float | None]:
    """How far somebody prefers the first completion of each query of two, ½ for a tie, None where passed over.

    Nothing is stored.
    """
    found: list[float | None] = []
    for query in queries:
        beliefs = labeler.answer(query).comparisons(query)
        found.append(beliefs[0].p_left if beliefs else None)
    return found


def answer_all(store: Store, labeler: Labeler, queries: Iterable[Query]) -> int:
    """Have `labeler` answer every query it has not answered yet, and store query and verdict; the number of new ones.

    The answers are written every few queries, so after an interruption a second call does only the rest.
    """
    asked = {query.id: query for query in queries}
    store.add_queries(asked.values())
    done = store.answered_by(labeler.name)
    left = iter([query for id, query in asked.items() if id not in done])
    new = 0
    while chunk := list(itertools.islice(left, CHUNK)):
        answers: list[Verdict] = []
        try:
            for query in chunk:
                answers.append(labeler.answer(query))
        finally:  # whatever stops the labeler, the answers it gave are kept
            new += store.add_verdicts(answers)
    return new
