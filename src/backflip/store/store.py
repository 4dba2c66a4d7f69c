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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, ParamSpec, Self, TypeVar

from sqlalchemy import Select, exists, func, not_, select

from backflip.errors import UserError
from backflip.records import Comparison, Query, Verdict
from backflip.store import adjudications, jsonl, leases, projections, rows, views
from backflip.store.database import Database
from backflip.store.dialects import file_of, place_of
from backflip.store.events import Event, Log, event
from backflip.store.schema import events, retractions, verdicts
from backflip.store.schema import queries as asked
from backflip.store.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

_standing = not_(exists().where(retractions.c.verdict_id == verdicts.c.id))
_LAST_VERDICT = select(func.max(verdicts.c.row))
_MARKS = select(*(select(func.max(table.c.row)).scalar_subquery() for table in (asked, verdicts, retractions)))


class Marks(NamedTuple):
    """The highest row of the queries, verdicts and retractions of a store: equal marks, nothing was added or taken back."""

    queries: int = 0
    verdicts: int = 0
    retractions: int = 0


class Store:
    """What was asked, shown and answered, in one SQLite file or PostgreSQL database; no answer is ever changed or deleted.

    `place` is a path, an `sqlite:///` address or `postgresql://user@host:5432/database`. A file that is not there is made, as
    are the tables in an empty database, and both are brought to the newest schema if an older backflip made them. With
    `read_only` the store must exist, is not changed, and can be read while another process writes. `clock` says the time,
    seconds since 1970. A `with` block closes it.

    Raises UserError for another kind of address and StorageError when the file or the database cannot be used.
    """

    def __init__(self, place: str | Path, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._db = Database(place_of(place), read_only=read_only)
        self._thread = Writer(self._db.batch, self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What messages call the store: its path, or its address without a password."""
        return self._db.place.name

    @property
    def path(self) -> Path:
        """The file of the store. Raises UserError for one on a server."""
        return file_of(self._db.place)

    def close(self) -> None:
        """Finish what was submitted, and let go of the file or the server."""
        self._thread.close()
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
        with self._log() as log:
            return sum(rows.insert_verdict(log, verdict, "verdict") for verdict in given)

    def retract(self, verdict_id: str, annotator: str) -> None:
        """Take a verdict back, in the name of `annotator`. Once retracted a verdict stays so.

        Raises DataError when there is no such verdict.
        """
        with self._log() as log:
            rows.insert_retraction(log, (verdict_id, annotator, log.now), "retraction")

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a writing method of this store called by its writer thread, up to 64 of them to one flush of the disk.

            store.submit(store.answer, view_id, "ann", [[handle], [other]], key=key).result()

        The future ends when the write is on the disk, with the method's result or exception. Raises StorageError when
        the store is closed.
        """
        return self._thread.submit(partial(work, *args, **kwargs))

    # ----------------------------------------------------------------------------------- people in front of a page

    def claim(
        self, annotator: str, *, purpose: str = "train", overlap: int = 1, seed: int = 0, render: str = ""
    ) -> leases.Claim | None:
        """Lease to `annotator` the oldest query of `purpose` that has room for them; None when there is none.

        There is room while fewer than `overlap` people have a standing verdict on it or are looking at it, and this
        person neither has nor is. The lease lasts `leases.LEASE_S` seconds. The completions are placed by `seed`, the
        annotator and the query; `render` is the version of whatever draws the page. Raises UserError when `overlap` < 1.
        """
        if overlap < 1:
            raise UserError(f"a query wants at least one answer, not an overlap of {overlap}")
        with self._log() as log:
            found = leases.claim(log, annotator, purpose=purpose, overlap=overlap, seed=seed, render=render)
            return found[0] if found else None

    def held(self, annotator: str) -> list[leases.Claim]:
        """What `annotator` has claimed and may still answer in time, for a page that is loaded again."""
        with self._db.read() as connection:
            return leases.held_by(connection, annotator, self._clock())

    def heartbeat(self, view_id: str, annotator: str) -> float | None:
        """Have a lease last `leases.LEASE_S` seconds from now; its new end, or None when it has run out."""
        with self._log() as log:
            return leases.heartbeat(log, view_id, annotator)

    def release(self, view_id: str, annotator: str) -> bool:
        """Give a lease back unanswered; False when it was not there any more."""
        with self._log() as log:
            return leases.release(log, view_id, annotator)

    def claim_again(self, annotator: str, *, purpose: str = "train", gap: int = 10, render: str = "") -> leases.Claim | None:
        """Show `annotator` a question that they answered at least `gap` answers ago once more, the places the other way round.

        Each question is shown again to a person once; None when there is none. The answer is an event of kind "repeat", which
        says how consistent the person is and counts nowhere else. Nobody's place is taken, so there is no lease to keep.
        """
        with self._log() as log:
            found = views.show_again(log, annotator, purpose, gap=gap, render=render)
            return None if found is None else leases.Claim(*found, log.now + leases.LEASE_S)

    def answer(
        self, view_id: str, annotator: str, groups: Sequence[Sequence[str]] = (), *, key: str, ms: int = 0, note: str = "",
        client_t: float | None = None, strength: int = 0, code: str = "", scores: Mapping[str, float] | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> views.Answer:  # fmt: skip
        """Store what `annotator` thinks of a view: groups of its handles from best to worst, equal ones together.

        [[a], [b]] prefers a, [[a, b]] is a tie and [] a skip; `scores`, a number for every handle, make it a rating instead.
        `strength` and `code` are as in `Verdict`, `seen` is how they looked. `ms` is the time from seeing to answering,
        `client_t` the page's clock, `key` the page's name for this answer: sent again it changes nothing. An answer after the
        lease has run out counts and is marked late; one to a query that this person has already answered is kept as surplus.

        Raises DataError for an unknown view or handle, another person's view, and a key used for something else.
        """
        given = views.Given(groups, scores or {}, strength, code, note, ms, seen or {})
        with self._log() as log:
            return views.answer(log, view_id, annotator, given, key=key, client_t=client_t)

    def undo(self, view_id: str, annotator: str, *, key: str, client_t: float | None = None) -> views.Answer:
        """Take back the standing answer to a view and lease the view again, so that it can be answered anew.

        `key` is as in `answer`. Raises DataError when the view has no standing answer by `annotator`.
        """
        with self._log() as log:
            return views.undo(log, view_id, annotator, key=key, client_t=client_t, lease_s=leases.LEASE_S)

    def note(
        self, kind: str, actor: str, payload: Mapping[str, Any], *, key: str, view_id: str | None = None,
        client_t: float | None = None,
    ) -> int:  # fmt: skip
        """Store an event of a kind in `events.NOTES` with any JSON `payload`; its id. `key` is as in `answer`.

        Raises DataError for another kind, a payload that is no JSON, an unknown view, and a key used for something else.
        """
        with self._log() as log:
            return views.note(log, kind, actor, payload, key=key, view_id=view_id, client_t=client_t)

    def adjudicate(self, verdict: Verdict, *, key: str, client_t: float | None = None) -> int:
        """Store what the verdict's annotator decides about a query on which others differ, beside their answers: an event of
        kind "adjudicate", of which the last about a query counts; its id. `key` is as in `answer`; the verdict's times, code and
        strength are not kept.

        Raises DataError for an unknown query, a verdict that does not fit it or decides nothing, and a key used for something
        else.
        """
        with self._log() as log:
            return adjudications.adjudicate(log, verdict, key=key, client_t=client_t)

    # ------------------------------------------------------------------------------------------------- reading

    def queries(self, purpose: str | None = None, since: int = 0, until: int | None = None) -> list[Query]:
        """Every query (of one purpose) of rows `since` < row ≤ `until`, in the order they were added."""
        wanted = select(asked.c.row, asked.c.body).where(asked.c.row > since)
        return self._query_list(wanted if until is None else wanted.where(asked.c.row <= until), purpose)

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

    def retracted(self, since: int = 0, until: int | None = None) -> list[Verdict]:
        """The verdicts that the retractions of rows `since` < row ≤ `until` took back, in the order they were taken back."""
        wanted = select(verdicts.c.row, verdicts.c.body).join(retractions, retractions.c.verdict_id == verdicts.c.id)
        wanted = wanted.where(retractions.c.row > since).order_by(retractions.c.row)
        with self._db.read() as connection:
            found = connection.execute(wanted if until is None else wanted.where(retractions.c.row <= until))
            return [rows.parsed(Verdict, verdicts, row, body) for row, body in found]

    def adjudications(self, purpose: str | None = None) -> list[adjudications.Adjudication]:
        """Everything that was decided about queries (of one purpose), in order; the last about a query counts."""
        with self._db.read() as connection:
            return adjudications.adjudications(connection, purpose)

    def comparisons(
        self, since: int = 0, purpose: str | None = "train", until: int | None = None, *, adjudicated: bool = False
    ) -> list[Comparison]:
        """What the standing verdicts of rows `since` < row ≤ `until` say, in the order they were added.

        To read what is new, take the `cursor` first, so that nothing is read twice while somebody writes:

            now = store.cursor
            fresh = store.comparisons(since=seen, until=now)
            seen = now

        A verdict retracted after it was read this way is not announced; read from 0 to leave it out.

        With `adjudicated`, where somebody decided about a query (`adjudicate`) their decision stands once in place of all answers
        to it. Such a decision changes what was read before, so this is read from 0: UserError for another `since`.
        """
        if adjudicated and since:
            raise UserError(f"a decision changes what was read before: read adjudicated comparisons from 0, not from {since}")
        wanted = self._verdict_rows(select(verdicts.c.row, verdicts.c.body, asked.c.body), since, purpose, until)
        found: list[Comparison] = []
        questions: dict[str, Query] = {}
        with self._db.read() as connection:
            decided = adjudications.latest(adjudications.adjudications(connection, purpose) if adjudicated else ())
            for row, body, query_body in connection.execute(wanted):
                verdict = rows.parsed(Verdict, verdicts, row, body)
                if verdict.query_id in decided:
                    if verdict.query_id in questions:
                        continue
                    verdict = decided[verdict.query_id].verdict
                if verdict.query_id not in questions:
                    questions[verdict.query_id] = rows.parsed(Query, asked, row, query_body)
                found += verdict.comparisons(questions[verdict.query_id])
        return found

    @property
    def cursor(self) -> int:
        """The highest row number of a verdict so far (0: none)."""
        with self._db.read() as connection:
            return int(connection.scalar(_LAST_VERDICT) or 0)

    @property
    def marks(self) -> Marks:
        """How far the store is, read at one moment: take it first, then read `until` there what came since the last ones.

            now = store.marks
            questions = store.queries(since=seen.queries, until=now.queries)
            answers = store.verdicts(since=seen.verdicts, until=now.verdicts)
            gone = store.retracted(since=seen.retractions, until=now.retractions)
            seen = now

        An answer that was taken back meanwhile may be missing already when its retraction is read next time.
        """
        with self._db.read() as connection:
            return Marks(*(int(row or 0) for row in connection.execute(_MARKS).one()))

    def page_end(self, since: int, limit: int, purpose: str | None = None) -> int:
        """The `until` up to which at most `limit` standing verdicts come after `since`: to read them part by part.

        Where fewer are left it is the `cursor`. Rows are numbered in the order in which they are committed, so what is written
        meanwhile comes after it, and parts neither overlap nor leave anything out.
        """
        wanted = self._verdict_rows(select(verdicts.c.row), since, purpose, None).limit(limit)
        with self._db.read() as connection:
            found = connection.scalars(wanted).all()
            return found[-1] if len(found) == limit else max(since, int(connection.scalar(_LAST_VERDICT) or 0))

    def repeats(self, purpose: str = "train") -> list[tuple[Verdict, Verdict]]:
        """(first, second) for every question of a purpose that somebody has answered twice (see `claim_again`)."""
        with self._db.read() as connection:
            return views.repeats(connection, purpose)

    # ----------------------------------------------------------------------------------------- export and import

    def export_jsonl(self, path: str | Path) -> int:
        """Write the whole store, retracted verdicts included, as JSON lines; the number of lines.

        The file appears at once and complete, or not at all. `import_jsonl` into an empty store gives the same
        store. Raises StorageError when the file cannot be written.
        """
        with self._db.read() as connection:
            return jsonl.write_file(connection, Path(path))

    def write_jsonl(self, file: IO[str]) -> int:
        """Write what `export_jsonl` writes to an open file; the number of lines."""
        with self._db.read() as connection:
            return jsonl.write_lines(connection, file)

    def import_jsonl(self, path: str | Path) -> int:
        """Add what an export holds and this store does not; the number of new rows.

        Every line is good and stored, or nothing is. Raises DataError with the file and line otherwise.
        """
        entries = jsonl.read_file(Path(path))
        with self._log() as log:
            return jsonl.insert_all(log, entries)

    # ----------------------------------------------------------------------------------------- history and soundness

    def events(self, since: int = 0) -> list[Event]:
        """Everything that was done after the event `since`, in order. A store of schema 1 has no events before it is migrated."""
        with self._db.read() as connection:
            return [event(row) for row in connection.execute(select(events).where(events.c.id > since).order_by(events.c.id))]

    def events_of(self, kind: str, limit: int, *, since: int = 0, before: int | None = None) -> list[Event]:
        """At most `limit` events of one kind, in order: the first after the event `since`, or the last before `before`."""
        wanted = select(events).where(events.c.kind == kind, events.c.id > since)
        if before is None:
            wanted = wanted.order_by(events.c.id)
        else:
            wanted = wanted.where(events.c.id < before).order_by(events.c.id.desc())
        with self._db.read() as connection:
            return sorted((event(row) for row in connection.execute(wanted.limit(limit))), key=lambda each: each.id)

    def verify(self) -> projections.Verified:
        """Look at everything: file, references, chain of events, projections, every record. Raises StorageError."""
        with self._db.read() as connection:
            return projections.verify(connection, self.name)

    def rebuild(self) -> bool:
        """Make verdicts and retractions again from the events; False when they were as they should be.

        Raises StorageError when the chain of events is broken.
        """
        with self._db.write() as connection:
            return projections.rebuild(connection, self.name)

    # --------------------------------------------------------------------------------------------------- inside

    @contextmanager
    def _log(self) -> Iterator[Log]:
        with self._db.write() as connection:
            log = self._db.batch_log(lambda: Log(connection, 0.0))
            log.now = self._clock()
            try:
                yield log
            except BaseException:  # what this piece of work wrote is undone, so the log no longer knows where it ends
                log.forget()
                raise

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
