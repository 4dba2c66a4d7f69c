"""The ratings of a store, kept for whoever asks: worked out in a thread of their own, and again when something was answered.

Matches and verdicts stay in memory in their small form (`arena.Games`) and only what is new is read. While newer ratings are
worked out, and where they cannot be, the last good ones are given, with their time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from backflip.errors import BackflipError, NumericsError
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.store import Marks

if TYPE_CHECKING:
    from backflip.arena.games import Games
    from backflip.arena.ratings import Known, Standings

RESAMPLES = 1000
PATIENCE_S = 0.3  # how long a question waits for newer ratings before it is given older ones
MOST_KEPT, MOST_PURPOSES = 64, 8
SEEDS = Seeds(0)  # those of `backflip arena`, so that page and terminal say the same

By = Literal["all", "people", "machines"]


class Wanted(NamedTuple):
    """Which ratings: of which matches, by whose answers, at equal length or not, and who stands at 1000.

    `anchor` None is the usual one (`arena.order.usual_anchor`), "" the mean of all.
    """

    purpose: str = "arena"
    by: By = "all"
    length_controlled: bool = False
    anchor: str | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """Ratings and what they are made of: answers that count, by how many annotators on how many prompts.

    `links` are the matches that would join what cannot be compared yet, each with the number that nobody has answered so far.
    `marks` says how far the store was, `changes` how far its matches, `at` when that was (seconds since 1970) and `seconds`
    how long it took.
    """

    table: Standings
    votes: int
    annotators: int
    prompts: int
    links: tuple[tuple[str, str, int], ...]
    marks: Marks
    changes: int
    people: frozenset[str]
    at: float
    seconds: float


@dataclass(slots=True)
class _Ledger:
    games: Games
    seen: Marks
    known: dict[str, Known]


class Board:
    """Every method may be called from any thread."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._ledgers: OrderedDict[str, _Ledger] = OrderedDict()
        self._kept: OrderedDict[Wanted, Rated] = OrderedDict()
        self._running: dict[Wanted, Future[Rated]] = {}
        self._failed: dict[Wanted, tuple[Any, BackflipError]] = {}

    async def rated(self, wanted: Wanted, people: frozenset[str]) -> tuple[Rated, bool, str]:
        """The ratings; whether newer ones are on their way; and why newer ones could not be worked out, or "".

        `people` are the annotators who are people and not machines. Raises what `arena.standings` raises when there are no
        earlier ratings to give instead.
        """
        if wanted.by == "all":
            people = frozenset()
        marks = await asyncio.to_thread(lambda: self._store.marks)
        now = (marks, people)
        kept = self._kept.get(wanted)
        if kept is not None and (kept.marks, kept.people) == now:
            return kept, False, ""
        state, problem = self._failed.get(wanted, (None, None))
        if state != now or problem is None:
            problem = None
            done = asyncio.shield(asyncio.wrap_future(self._work(wanted, people)))
            try:
                kept = await (done if kept is None else asyncio.wait_for(done, PATIENCE_S))
            except TimeoutError:
                pass  # it goes on; whoever asks next has it
            except BackflipError as raised:
                problem = raised
        if kept is None:
            assert problem is not None
            raise problem
        return kept, (kept.marks, kept.people) != now and problem is None, "" if problem is None else str(problem)

    async def with_games(self, purpose: str, work: Callable[[Games], Any]) -> Any:
        """What `work` makes of the matches of a purpose, as they are now; it is called in the board's thread."""

        def do() -> Any:
            return work(self._ledger(purpose, self._store.marks).games)

        return await asyncio.wrap_future(self._pool().submit(do))

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._thread is None:  # one thread: ratings are worked out one after the other
                self._thread = ThreadPoolExecutor(1, "board")
            return self._thread

    def _work(self, wanted: Wanted, people: frozenset[str]) -> Future[Rated]:
        """The ratings that are being worked out now, or from now on."""
        pool = self._pool()
        with self._lock:
            running = self._running.get(wanted)
            if running is None or running.done():
                running = self._running[wanted] = pool.submit(self._rate, wanted, people)
        running.add_done_callback(lambda _done: self._running.pop(wanted, None))
        return running

    def _rate(self, wanted: Wanted, people: frozenset[str]) -> Rated:
        began, at, now = time.monotonic(), self._clock(), self._store.marks
        try:
            ledger, kept = self._ledger(wanted.purpose, now), self._kept.get(wanted)
            if kept is not None and (kept.changes, kept.people) == (ledger.games.changes, people):
                rated = dataclasses.replace(kept, marks=now, at=at)  # other questions were answered
            else:
                rated = _rate(ledger, wanted, people, at, began)
        except (ArithmeticError, ValueError) as problem:
            said = NumericsError(f"the ratings could not be worked out: {problem}")
            raise self._note_failure(wanted, (now, people), said) from problem
        except BackflipError as problem:
            raise self._note_failure(wanted, (now, people), problem) from None
        else:
            self._failed.pop(wanted, None)
            self._kept[wanted] = rated
            self._kept.move_to_end(wanted)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return rated

    def _note_failure(self, wanted: Wanted, state: Any, problem: BackflipError) -> BackflipError:
        """Remember that there is no result for this state of the store, so that nobody tries again before it changes."""
        if len(self._failed) >= MOST_KEPT:
            self._failed.clear()
        self._failed[wanted] = (state, problem)
        return problem

    def _ledger(self, purpose: str, now: Marks) -> _Ledger:
        """The matches of a purpose, brought up to the store; only the board's thread calls this."""
        from backflip.arena.games import Games
        from backflip.arena.matches import same_text_purpose

        ledger = self._ledgers.setdefault(purpose, _Ledger(Games(purpose), Marks(), {}))
        self._ledgers.move_to_end(purpose)
        while len(self._ledgers) > MOST_PURPOSES:
            gone, _ = self._ledgers.popitem(last=False)
            for old in [each for each in self._kept if each.purpose == gone]:
                del self._kept[old]
        seen, both = ledger.seen, (purpose, same_text_purpose(purpose))
        if now.queries > seen.queries:
            ledger.games.ask(query for each in both for query in self._store.queries(each, seen.queries, now.queries))
        if now.verdicts > seen.verdicts:
            for each in both:
                ledger.games.answer(self._store.verdicts(seen.verdicts, each, now.verdicts))
        if now.retractions > seen.retractions:
            ledger.games.take_back(self._store.retracted(seen.retractions, now.retractions))
        ledger.seen = now
        return ledger


def _rate(ledger: _Ledger, wanted: Wanted, people: frozenset[str], at: float, began: float) -> Rated:
    from backflip.arena.order import missing_links, usual_anchor
    from backflip.arena.ratings import rate

    counts = {"all": None, "people": lambda name: name in people, "machines": lambda name: name not in people}[wanted.by]
    games = ledger.games.played(counts)
    playing = sorted({name for game in games for name in (game.left, game.right)})
    table = rate(
        ledger.games, seeds=SEEDS, counts=counts, length_controlled=wanted.length_controlled, resamples=RESAMPLES,
        anchor=usual_anchor(playing) if wanted.anchor is None else wanted.anchor or None,
        known=ledger.known.setdefault(wanted.by, {}),
    )  # fmt: skip
    links = tuple((a, b, ledger.games.open(a, b)) for a, b in missing_links(table.components))
    return Rated(
        table, ledger.games.votes(counts), len(ledger.games.annotators(counts)), len({game.prompt for game in games}), links,
        ledger.seen, ledger.games.changes, people, at, time.monotonic() - began,
    )  # fmt: skip
