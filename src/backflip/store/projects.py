"""Labelling projects, the answers that some of their questions are known to deserve, and the clips that questions show.

A project is the labelling of one purpose: its queries are the store's queries of that purpose. Queries with a known answer
stand under a purpose of their own (`gold_purpose`), so no reward model learns from them and no overlap limits them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import exists, func, insert, not_, select, union, update

from backflip.errors import DataError
from backflip.records import Query, Verdict
from backflip.store import jsonl, leases, rows, views
from backflip.store.accounts import record
from backflip.store.events import Log
from backflip.store.schema import events, golds, media, projects, queries, retractions, verdicts
from backflip.store.schema import views as shown
from backflip.store.store import Store

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REPEAT_GAP = 10  # own answers after which a question may be shown again
CLIP_BYTES = 32 * 2**20
TYPES: Mapping[str, Callable[[bytes], bool]] = {
    "video/webm": lambda b: b[:4] == b"\x1a\x45\xdf\xa3",
    "image/png": lambda b: b[:8] == b"\x89PNG\r\n\x1a\n",
    "image/jpeg": lambda b: b[:3] == b"\xff\xd8\xff",
    "image/webp": lambda b: b[:4] == b"RIFF" and b[8:12] == b"WEBP",
}
"""The media a store takes, and how each begins; nothing in which a script could hide."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """How the questions of one purpose are put to people.

    `question` is the line above the answers and `guideline` what `I` shows, both Markdown. `answers` says what people do with
    the completions: "compare" them or "rate" each. `overlap` is how many people answer each question; `gold_share` and
    `repeat_share` the shares of questions with a known answer and of those shown again; `floor_ms` below which an answer counts
    as fast. `reveal` says who wrote what after the vote; `whole_clip` asks for every frame to be seen before it.
    """

    id: str
    purpose: str
    title: str = ""
    question: str = ""
    guideline: str = ""
    answers: Literal["compare", "rate"] = "compare"
    overlap: int = 1
    gold_share: float = 0.0
    repeat_share: float = 0.0
    floor_ms: int = 600
    reveal: bool = False
    whole_clip: bool = True
    open: bool = True

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise DataError(f"project {self.id[:70]!r}: an id is up to 63 small letters, digits and hyphens")
        if not self.purpose or self.purpose.endswith(GOLD):
            raise DataError(f"project {self.id}: {self.purpose!r} cannot be its purpose")
        if self.answers not in ("compare", "rate"):
            raise DataError(f"project {self.id}: answers are 'compare' or 'rate', not {self.answers!r}")
        if self.overlap < 1 or self.floor_ms < 0:
            raise DataError(f"project {self.id}: overlap is at least 1 and floor_ms at least 0")
        if not (self.gold_share >= 0 and self.repeat_share >= 0 and self.gold_share + self.repeat_share <= 0.5):
            raise DataError(f"project {self.id}: gold_share and repeat_share are shares, together at most 0.5")

    def asks(self, query: Query) -> bool:
        """Whether a query is one of this project's."""
        return query.purpose in (self.purpose, gold_purpose(self.purpose))


GOLD = "-gold"


def gold_purpose(purpose: str) -> str:
    """The purpose of the questions of a purpose whose answer is known."""
    return purpose + GOLD


@dataclass(frozen=True, slots=True)
class Count:
    """How far a project is, for one person: questions in all, answered by them, and with room for them now or later;
    `waiting` is true where others hold what is left."""

    total: int
    answered: int
    open: int

    @property
    def waiting(self) -> bool:
        """Whether there is nothing to do now that there may be later."""
        return self.open > 0


@dataclass(frozen=True, slots=True)
class Totals:
    """How far a project is, for everybody: questions, those with an answer, answers, people who gave them; questions with a
    known answer, and answers to what was shown again. Only standing answers count; a skip is one."""

    questions: int
    answered: int
    answers: int
    people: int
    golds: int
    repeats: int


class Projects:
    """The projects of a store. Writing methods can be handed to `store.submit`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Project]:
        """Every project, in the order they were made."""
        with self._store._db.read() as connection:
            bodies = connection.scalars(select(projects.c.body).order_by(projects.c.at, projects.c.id))
            return [Project(**json.loads(body)) for body in bodies]

    def get(self, id: str) -> Project | None:
        """A project by its id."""
        with self._store._db.read() as connection:
            body = connection.scalar(select(projects.c.body).where(projects.c.id == id))
        return None if body is None else Project(**json.loads(body))

    def save(self, project: Project, *, by: str) -> None:
        """Make a project, or change the one of this id. Raises DataError when the purpose is another project's or changes."""
        body = dataclasses.asdict(project)
        with self._store._log() as log:
            owner = log.connection.scalar(select(projects.c.id).where(projects.c.purpose == project.purpose))
            known = log.connection.scalar(select(projects.c.purpose).where(projects.c.id == project.id))
            if owner not in (None, project.id):
                raise DataError(f"questions of purpose {project.purpose} are asked by project {owner} already")
            if known not in (None, project.purpose):
                raise DataError(f"project {project.id} asks questions of purpose {known}; that cannot change")
            values = {"purpose": project.purpose, "body": json.dumps(body, ensure_ascii=False)}
            if known is None:
                log.connection.execute(insert(projects), {"id": project.id, "at": log.now, **values})
            else:
                log.connection.execute(update(projects).where(projects.c.id == project.id).values(**values))
            record(log, by, "project changed" if known else "project made", project=body)

    # ----------------------------------------------------------------------------------------------------- labelling

    def claim(self, project: Project, annotator: str, n: int, *, seed: int, render: str) -> list[leases.Claim]:
        """Up to `n` questions for `annotator` to answer, leased: mostly new ones, some with a known answer, some again.

        Which kind comes when depends on the project, the person and the store's last row, so nobody can learn the pattern.
        """
        with self._store._log() as log:
            kinds = self._kinds(log, project, annotator, n, seed)
            special = [self._special(log, project, kind, annotator, seed, render) for kind in kinds]
            plain = leases.claim(
                log, annotator, special.count(None), purpose=project.purpose, overlap=project.overlap, seed=seed, render=render
            )
        rest = iter(plain)
        return [claim for claim in (known or next(rest, None) for known in special) if claim is not None]

    def _kinds(self, log: Log, project: Project, annotator: str, n: int, seed: int) -> list[str]:
        """What the next `n` questions of somebody are: "gold", "repeat" or "new"."""
        if project.gold_share + project.repeat_share == 0:
            return ["new"] * n
        count = int(log.connection.scalar(select(func.count()).select_from(shown).where(shown.c.annotator == annotator)) or 0)
        drawn = (random.Random(f"{seed}/{project.id}/{annotator}/{count + i}").random() for i in range(n))
        return [
            "gold" if x < project.gold_share else "repeat" if x < project.gold_share + project.repeat_share else "new"
            for x in drawn
        ]

    @staticmethod
    def _special(log: Log, project: Project, kind: str, annotator: str, seed: int, render: str) -> leases.Claim | None:
        """A question of a kind that is not "new"; None where there is none."""
        if kind == "gold":
            purpose = gold_purpose(project.purpose)
            return next(iter(leases.claim(log, annotator, purpose=purpose, overlap=10**9, seed=seed, render=render)), None)
        again = views.show_again(log, annotator, project.purpose, gap=REPEAT_GAP, render=render) if kind == "repeat" else None
        return None if again is None else leases.Claim(*again, log.now + leases.LEASE_S)

    def count(self, project: Project, annotator: str) -> Count:
        """How far the project is, for `annotator`. Looks at every question of the project, so it is not for every click."""
        here = queries.c.purpose == project.purpose
        standing = not_(exists().where(retractions.c.verdict_id == verdicts.c.id))
        answers = verdicts.join(queries, queries.c.id == verdicts.c.query_id)
        mine = (
            select(verdicts.c.query_id).select_from(answers).where(here, standing, verdicts.c.annotator == annotator).distinct()
        )
        full = (
            select(verdicts.c.query_id).select_from(answers).where(here, standing).group_by(verdicts.c.query_id)
            .having(func.count(verdicts.c.annotator.distinct()) >= project.overlap)
        )  # fmt: skip
        done = union(mine, full).subquery()
        with self._store._db.read() as connection:

            def number(of: Any) -> int:
                return int(connection.scalar(select(func.count()).select_from(of)) or 0)

            total = number(select(queries.c.row).where(here).subquery())
            return Count(total, number(mine.subquery()), total - number(done))

    def totals(self, project: Project) -> Totals:
        """How far the project is, for everybody."""
        here = queries.c.purpose == project.purpose
        standing = not_(exists().where(retractions.c.verdict_id == verdicts.c.id))
        given = verdicts.join(queries, queries.c.id == verdicts.c.query_id)
        again = events.join(shown, shown.c.id == events.c.view_id).join(queries, queries.c.id == shown.c.query_id)
        with self._store._db.read() as connection:

            def number(what: Any, of: Any, *where: Any) -> int:
                return int(connection.scalar(select(what).select_from(of).where(*where)) or 0)

            return Totals(
                questions=number(func.count(), queries, here),
                answered=number(func.count(verdicts.c.query_id.distinct()), given, here, standing),
                answers=number(func.count(), given, here, standing),
                people=number(func.count(verdicts.c.annotator.distinct()), given, here, standing),
                golds=number(func.count(), golds.join(queries), queries.c.purpose == gold_purpose(project.purpose)),
                repeats=number(func.count(), again, here, events.c.kind == "repeat")
                - number(func.count(), again, here, events.c.kind == "unrepeat"),
            )

    def add_entries(self, entries: Iterable[tuple[str, jsonl.Entry]], *, by: str) -> int:
        """Store records with the place each came from; the number that was new. All of them are stored or, on an error, none."""
        given = list(entries)
        with self._store._log() as log:
            new = jsonl.insert_all(log, given)
            record(log, by, "imported", rows=len(given), new=new)
            return new

    # ---------------------------------------------------------------------------------------------------- known answers

    def set_golds(self, known: Iterable[tuple[Query, str]], *, by: str) -> int:
        """Store questions with the choice that each deserves ("left", "right" or "tie"); the number that were new.

        The queries are filed under the project's gold purpose by their own `purpose`. Raises DataError for another choice.
        """
        given = list(known)
        with self._store._log() as log:
            new = 0
            for query, choice in given:
                if choice not in ("left", "right", "tie") or len(query.completions) != 2:
                    raise DataError(f"a known answer is left, right or tie, to a pair; not {choice!r}")
                rows.insert_query(log.connection, query, "query")
                known_already = select(golds.c.query_id).where(golds.c.query_id == query.id)
                if log.connection.scalar(known_already) is None:
                    log.connection.execute(insert(golds), {"query_id": query.id, "expected": choice})
                    new += 1
            record(log, by, "known answers added", n=new)
            return new

    def golds(self) -> dict[str, str]:
        """The choice that each question with a known answer deserves, by query id."""
        with self._store._db.read() as connection:
            return {row.query_id: row.expected for row in connection.execute(select(golds))}

    # ----------------------------------------------------------------------------------------------------------- media

    def add_media(self, content: bytes, type: str) -> str:
        """Keep a clip or picture; its name, the SHA-256 of its bytes. Raises DataError for another type or one too large."""
        begins = TYPES.get(type)
        if begins is None or not begins(content):
            raise DataError(f"media are {', '.join(TYPES)}; what was given is not {type if begins else 'one of them'}")
        if len(content) > CLIP_BYTES:
            raise DataError(f"a clip has at most {CLIP_BYTES // 2**20} MiB; this one has {len(content) / 2**20:.1f}")
        id = hashlib.sha256(content).hexdigest()
        with self._store._log() as log:
            if log.connection.scalar(select(media.c.id).where(media.c.id == id)) is None:
                log.connection.execute(insert(media), {"id": id, "type": type, "content": content, "at": log.now})
        return id

    def media(self, id: str) -> tuple[str, bytes] | None:
        """Type and bytes of a clip."""
        with self._store._db.read() as connection:
            row = connection.execute(select(media.c.type, media.c.content).where(media.c.id == id)).first()
        return None if row is None else (row.type, bytes(row.content))

    # ---------------------------------------------------------------------------------------------------------- lookups

    def own_answers(self, project: Project, annotator: str) -> list[Verdict]:
        """The standing verdicts of one person on a project's questions, in the order they were given."""
        wanted = (
            select(verdicts.c.row, verdicts.c.body).select_from(verdicts.join(queries))
            .where(
                queries.c.purpose == project.purpose, verdicts.c.annotator == annotator,
                not_(exists().where(retractions.c.verdict_id == verdicts.c.id)),
            )
            .order_by(verdicts.c.row)
        )  # fmt: skip
        with self._store._db.read() as connection:
            return [rows.parsed(Verdict, verdicts, row, body) for row, body in connection.execute(wanted)]

    def shown(self, view_id: str, annotator: str) -> tuple[views.View, Query] | None:
        """A view of this person's and its query."""
        with self._store._db.read() as connection:
            try:
                return views._view_of(connection, view_id, annotator)[:2]
            except DataError:
                return None
