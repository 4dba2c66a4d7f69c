"""The store: what was asked and what was answered, kept for ever, read by cursor.

>>> import tempfile, pathlib
>>> from backflip.records import Prompt, Query, Verdict
>>> folder = tempfile.TemporaryDirectory()
>>> store = Store(pathlib.Path(folder.name) / "feedback.db")
>>> query = Query(Prompt("Say hi"), ("hi", "no"))
>>> store.add_queries([query, query])
1
>>> store.add_verdicts([Verdict(query.id, "ann", "left")])
1
>>> store.comparisons()[0].chosen
'hi'
>>> store.close(); folder.cleanup()
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Select, exists, func, not_, select

from backflip.records import Comparison, Query, Verdict
from backflip.store import jsonl, rows
from backflip.store.database import Database, file_of
from backflip.store.schema import queries as asked
from backflip.store.schema import retractions, verdicts

_standing = not_(exists().where(retractions.c.verdict_id == verdicts.c.id))


class Store:
    """Queries, verdicts and retractions in one SQLite file; nothing is ever changed or deleted.

    `place` is a path or an `sqlite:///` address; the file is made if it is not there. With `read_only` the store
    must exist, and can be read while another process writes. A `with` block closes it.

    Raises UserError for another kind of address and StorageError when the file cannot be used.
    """

    def __init__(self, place: str | Path, *, read_only: bool = False) -> None:
        self.path = file_of(place)
        self._db = Database(self.path, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ------------------------------------------------------------------------------------------------- writing

    def add_queries(self, queries: Iterable[Query]) -> int:
        """Store what is not there yet; the number that was new. All of them are stored or, on an error, none."""
        given = list(queries)  # first: whoever makes them may be slow, and a write keeps others waiting
        with self._db.write() as connection:
            return sum(rows.insert_query(connection, query, "query") for query in given)

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> int:
        """Store what is not there yet; the number that was new. All of them are stored or, on an error, none.

        Raises DataError when a verdict's query is not in the store or the verdict does not fit it.
        """
        given = list(verdicts)
        with self._db.write() as connection:
            return sum(rows.insert_verdict(connection, verdict, "verdict") for verdict in given)

    def retract(self, verdict_id: str, annotator: str) -> None:
        """Take a verdict back, in the name of `annotator`. Once retracted a verdict stays so.

        Raises DataError when there is no such verdict.
        """
        with self._db.write() as connection:
            rows.insert_retraction(connection, (verdict_id, annotator, time.time()), "retraction")

    # ------------------------------------------------------------------------------------------------- reading

    def queries(self, purpose: str | None = None) -> list[Query]:
        """Every query (of one purpose), in the order they were added."""
        return self._query_list(select(asked.c.row, asked.c.body), purpose)

    def unanswered(self, annotator: str | None = None, purpose: str | None = None) -> list[Query]:
        """Queries without a standing verdict by `annotator`, or by anybody if None; a skip is a verdict too."""
        answers = exists().where(verdicts.c.query_id == asked.c.id, _standing)
        if annotator is not None:
            answers = answers.where(verdicts.c.annotator == annotator)
        return self._query_list(select(asked.c.row, asked.c.body).where(not_(answers)), purpose)

    def answered_by(self, annotator: str) -> set[str]:
        """Ids of the queries on which this annotator has a standing verdict."""
        with self._db.read() as connection:
            return set(connection.scalars(select(verdicts.c.query_id).where(verdicts.c.annotator == annotator, _standing)))

    def verdicts(self, since: int = 0, purpose: str | None = None, until: int | None = None) -> list[Verdict]:
        """Standing verdicts of rows `since` < row ≤ `until` in the order they were added."""
        wanted = self._verdict_rows(select(verdicts.c.row, verdicts.c.body), since, purpose, until)
        with self._db.read() as connection:
            return [rows.parsed(Verdict, verdicts, row, body) for row, body in connection.execute(wanted)]

    def comparisons(self, since: int = 0, purpose: str | None = "train", until: int | None = None) -> list[Comparison]:
        """What the standing verdicts of rows `since` < row ≤ `until` say, in the order they were added.

        To read what is new, take the `cursor` first, so that nothing is read twice while somebody writes:

            now = store.cursor
            fresh = store.comparisons(since=seen, until=now)
            seen = now

        A verdict retracted after it was read this way is not announced; read from 0 to leave it out.
        """
        wanted = self._verdict_rows(select(verdicts.c.row, verdicts.c.body, asked.c.body), since, purpose, until)
        found: list[Comparison] = []
        questions: dict[str, Query] = {}
        with self._db.read() as connection:
            for row, body, query_body in connection.execute(wanted):
                verdict = rows.parsed(Verdict, verdicts, row, body)
                if verdict.query_id not in questions:
                    questions[verdict.query_id] = rows.parsed(Query, asked, row, query_body)
                found += verdict.comparisons(questions[verdict.query_id])
        return found

    @property
    def cursor(self) -> int:
        """The highest row number of a verdict so far (0: none)."""
        with self._db.read() as connection:
            return int(connection.scalar(select(func.max(verdicts.c.row))) or 0)

    # ----------------------------------------------------------------------------------------- export and import

    def export_jsonl(self, path: str | Path) -> int:
        """Write the whole store, retracted verdicts included, as JSON lines; the number of lines.

        The file appears at once and complete, or not at all. `import_jsonl` into an empty store gives the same
        store. Raises StorageError when the file cannot be written.
        """
        with self._db.read() as connection:
            return jsonl.write_file(connection, Path(path))

    def import_jsonl(self, path: str | Path) -> int:
        """Add what an export holds and this store does not; the number of new rows.

        Every line is good and stored, or nothing is. Raises DataError with the file and line otherwise.
        """
        entries = jsonl.read_file(Path(path))
        with self._db.write() as connection:
            return jsonl.insert_all(connection, entries)

    # --------------------------------------------------------------------------------------------------- inside

    def _query_list(self, wanted: Select[Any], purpose: str | None) -> list[Query]:
        if purpose is not None:
            wanted = wanted.where(asked.c.purpose == purpose)
        with self._db.read() as connection:
            return [rows.parsed(Query, asked, row, body) for row, body in connection.execute(wanted.order_by(asked.c.row))]

    @staticmethod
    def _verdict_rows(wanted: Select[Any], since: int, purpose: str | None, until: int | None) -> Select[Any]:
        wanted = wanted.select_from(verdicts.join(asked)).where(verdicts.c.row > since, _standing).order_by(verdicts.c.row)
        if purpose is not None:
            wanted = wanted.where(asked.c.purpose == purpose)
        return wanted if until is None else wanted.where(verdicts.c.row <= until)
