"""The questions and standing answers of some purposes, kept in memory and brought up to date by what is new in the store.

A hundred thousand answers take seconds to read and a moment to count, so whoever counts them again and again keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from backflip.records import Query, Verdict
from backflip.store import rows
from backflip.store.schema import events, retractions, verdicts
from backflip.store.schema import queries as asked
from backflip.store.store import Marks, Store

_ENDS = select(
    *(select(func.max(table.c.row)).scalar_subquery() for table in (asked, verdicts, retractions)),
    select(func.max(events.c.id)).scalar_subquery(),
)


class Moment(NamedTuple):
    """How far a store is: its marks and its last event. At equal moments everything in it is the same."""

    marks: Marks = Marks()
    event: int = 0


def moment(store: Store) -> Moment:
    """How far a store is now."""
    with store._db.read() as connection:
        return _moment(connection)


def question(store: Store, query_id: str) -> tuple[Query, list[Verdict]] | None:
    """One question and the standing answers to it, in the order they were given; None when it was never asked."""
    with store._db.read() as connection:
        found = connection.execute(select(asked.c.row, asked.c.body).where(asked.c.id == query_id)).first()
        if found is None:
            return None
        gone = select(retractions.c.verdict_id)
        wanted = select(verdicts.c.row, verdicts.c.body).where(verdicts.c.query_id == query_id, verdicts.c.id.not_in(gone))
        given = connection.execute(wanted.order_by(verdicts.c.row))
        return rows.parsed(Query, asked, *found), [rows.parsed(Verdict, verdicts, row, body) for row, body in given]


class Following:
    """`queries` by id and standing `verdicts` by row, in the order they were added, as they were when `catch_up` was last called.

    Not for several threads at once.
    """

    def __init__(self, store: Store, purposes: Sequence[str]) -> None:
        self._store, self._purposes = store, tuple(purposes)
        self.queries: dict[str, Query] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.seen = Moment()

    def catch_up(self) -> Moment:
        """Read what is new, as it is at one moment; that moment. Raises StorageError, and then nothing has changed."""
        before = self.seen.marks
        with self._store._db.read() as connection:
            now = _moment(connection)
            here = asked.c.purpose.in_(self._purposes)
            new = select(asked.c.id, asked.c.row, asked.c.body).where(asked.c.row > before.queries, here).order_by(asked.c.row)
            questions = {id: rows.parsed(Query, asked, row, body) for id, row, body in connection.execute(new)}
            given = select(verdicts.c.row, verdicts.c.body).select_from(verdicts.join(asked)).where(here)
            fresh = given.where(verdicts.c.row > before.verdicts).order_by(verdicts.c.row)
            answers = {row: rows.parsed(Verdict, verdicts, row, body) for row, body in connection.execute(fresh)}
            taken_back = select(verdicts.c.row).join(retractions, retractions.c.verdict_id == verdicts.c.id)
            gone = connection.scalars(taken_back.where(retractions.c.row > before.retractions)).all()
        self.queries |= questions
        self.verdicts |= answers
        for row in gone:
            self.verdicts.pop(row, None)
        self.seen = now
        return now


def _moment(connection: Connection) -> Moment:
    *ends, last = (int(end or 0) for end in connection.execute(_ENDS).one())
    return Moment(Marks(*ends), last)
