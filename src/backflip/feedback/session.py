"""One person answering one query after another: what is shown where, what is stored, what undo takes back.

Knows nothing of terminals or pages. Every answer is on the disk when `answer` returns. Which completion stands in
which place depends on the annotator and the query alone, so a query shown again looks the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from backflip.records import Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store


class Session:
    """The queries of a store as one annotator meets them, oldest first, those already answered behind them.

    A query whose completions all say the same is a tie whoever looks, so nobody is shown it. Places count from 0: the
    left (or uppermost) completion on the screen has place 0.
    """

    def __init__(self, store: Store, annotator: str) -> None:
        queries = {query.id: query for query in store.queries() if _differ(query)}
        self.store, self.annotator, self.total = store, annotator, len(queries)
        mine = (v for v in store.verdicts() if v.annotator == annotator and v.query_id in queries)
        self._answered = [(queries[v.query_id], v.id) for v in mine]
        self._open = deque(query for query in store.unanswered(annotator) if query.id in queries)

    @property
    def current(self) -> Query | None:
        """The query to show, or None when all are answered."""
        return self._open[0] if self._open else None

    @property
    def answered(self) -> int:
        """How many queries this annotator has answered, earlier sessions included."""
        return self.total - len(self._open)

    @property
    def order(self) -> tuple[int, ...]:
        """Which completion of the current query stands in each place."""
        query = self._question()
        return tuple(Seeds(0).permutation(len(query.completions), "sides", self.annotator, query.id))

    def prefer(self, place: int, ms: int) -> None:
        """Store that the completion of a pair standing in `place` is better, decided in `ms` milliseconds."""
        self._store(Verdict(self._question().id, self.annotator, "left" if self.order[place] == 0 else "right"), ms)

    def tie(self, ms: int) -> None:
        """Store that the two completions are equally good."""
        self._store(Verdict(self._question().id, self.annotator, "tie"), ms)

    def skip(self, ms: int) -> None:
        """Store that this annotator passes the query over."""
        self._store(Verdict(self._question().id, self.annotator, "skip"), ms)

    def rank(self, places: Sequence[Sequence[int]], ms: int) -> None:
        """Store a ranking: groups of places from best to worst."""
        order = self.order
        ranking = tuple(tuple(order[place] for place in group) for group in places)
        self._store(Verdict(self._question().id, self.annotator, "ranking", ranking=ranking), ms)

    def undo(self) -> bool:
        """Take the last standing verdict back and make its query the current one; False when there is none."""
        if not self._answered:
            return False
        query, verdict_id = self._answered.pop()
        self.store.retract(verdict_id, self.annotator)
        if query not in self._open:
            self._open.appendleft(query)
        return True

    def _question(self) -> Query:
        if self.current is None:
            raise ValueError("every query is answered")
        return self.current

    def _store(self, verdict: Verdict, ms: int) -> None:
        query = self._question()
        stamped = Verdict(
            verdict.query_id,
            verdict.annotator,
            verdict.choice,
            ranking=verdict.ranking,
            shown_first=self.order[0],
            ms=ms,
            at=time.time(),
        )
        self.store.add_verdicts([stamped])
        self._answered.append((query, stamped.id))
        self._open.popleft()


def _differ(query: Query) -> bool:
    return len(set(query.completions)) > 1
