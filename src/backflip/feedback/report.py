"""Everything there is to say about the answers in a store: how much, how good, with which habits, in circles or not.

Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from backflip.errors import DataError
from backflip.feedback.answers import LEFT, TIE, Answers, read
from backflip.feedback.figures import Quality
from backflip.feedback.habits import Habits, habits
from backflip.feedback.quality import quality
from backflip.maths.cycles import Cycles, cycles
from backflip.records import Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Projects, gold_purpose

MOST_ITEMS = 400
"""Items beyond which circles are not counted: a thousand simulated tournaments of them would take minutes."""
ASKED = "asked"
"""The kind of event that says by which rule questions were chosen; see `asked_event`."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What a store's answers of one purpose say. `notes` are sentences: what was left out and why, and what to keep in mind.

    `asked` counts the questions chosen by each rule, "random" among them; `circles` are of policies where questions name
    three or more, otherwise of completions (`circles_of`), None where neither makes a triple.
    """

    purpose: str
    questions: int
    answered: int
    answers: int
    skips: int
    quality: Quality
    habits: tuple[Habits, ...]
    circles: Cycles | None
    circles_of: Literal["policies", "completions"]
    asked: Mapping[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return {
            "purpose": self.purpose, "questions": self.questions, "answered": self.answered, "answers": self.answers,
            "skips": self.skips, "quality": self.quality.to_json(), "habits": [each.to_json() for each in self.habits],
            "circles": None if self.circles is None else self.circles._asdict(), "circles_of": self.circles_of,
            "asked": dict(self.asked), "notes": list(self.notes),
        }  # fmt: skip


def overview(store: Store, *, purpose: str = "train", seeds: Seeds, people: Collection[str] | None = None) -> Overview:
    """Read a store and say everything. `people` are the labelers who count as such (None: all of them).

    Questions that compare a text with itself are left out, whatever was answered, and counted in a note. Raises DataError
    where the purpose has no question, or no answer.
    """
    known = gold_purpose(purpose)
    found = {query.id: query for name in (purpose, known) for query in store.queries(name)}
    own = {id: query for id, query in found.items() if query.purpose == purpose}
    if not own:
        raise DataError(f"store {store.name} holds no questions of purpose {purpose!r}")
    usable = {id: query for id, query in found.items() if len(set(query.completions)) == len(query.completions)}
    given = [verdict for name in (purpose, known) for verdict in store.verdicts(purpose=name)]
    verdicts = [verdict for verdict in given if verdict.query_id in usable]
    if not any(verdict.query_id in own for verdict in verdicts):
        raise DataError(
            f"no question of purpose {purpose!r} in {store.name} has an answer yet; `backflip label` or the studio gets some"
        )
    golds = {id: answer for id, answer in Projects(store).golds().items() if id in usable}
    said = quality(
        usable, verdicts, seeds=seeds, events=store.events_of("adjudicate", 2**31), gold=golds, repeats=store.repeats(purpose),
        people=people,
    )  # fmt: skip
    asked_own = {id: query for id, query in usable.items() if query.purpose == purpose}
    answers = read(asked_own, [v for v in verdicts if v.query_id in asked_own], {}, ())
    circles, circles_of = _circles(answers, asked_own, seeds)
    meant = [verdict.query_id for verdict in verdicts if verdict.choice != "skip" and verdict.query_id in own]
    return Overview(
        purpose=purpose, questions=len(own), answered=len(set(meant)), answers=len(meant),
        skips=sum(v.choice == "skip" for v in verdicts if v.query_id in own), quality=said,
        habits=tuple(habits(answers, asked_own, people=people)), circles=circles, circles_of=circles_of,
        asked=_asked(store, own), notes=tuple(_notes(own, usable, given, answers, said)),
    )  # fmt: skip


def asked_event(rule: str, chosen: Sequence[tuple[str, bool, float]], purpose: str) -> dict[str, Any]:
    """The payload of the event that says how questions were chosen: (id, whether of the random share, value) each."""
    rows = [{"query_id": id, "random": random, "value": value} for id, random, value in chosen]
    return {"rule": rule, "purpose": purpose, "questions": rows}


def random_share(store: Store, purpose: str = "train") -> set[str]:
    """Ids of the questions that were drawn at random, whatever the rule: what is measured on them is true of all."""
    events = (event for event in store.events_of(ASKED, 2**31) if event.payload.get("purpose") == purpose)
    return {row["query_id"] for event in events for row in event.payload["questions"] if row["random"]}


def _asked(store: Store, own: Mapping[str, Query]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for event in store.events_of(ASKED, 2**31):
        for row in event.payload["questions"]:
            if row["query_id"] in own:
                counts["random" if row["random"] else str(event.payload["rule"])] += 1
    return dict(counts)


def _circles(
    answers: Answers, queries: Mapping[str, Query], seeds: Seeds
) -> tuple[Cycles | None, Literal["policies", "completions"]]:
    """Circles among policies where questions name three or more, else among the completions of a prompt."""
    names = [queries[id].policies for id in answers.query_ids]
    of: Literal["policies", "completions"] = "policies" if len({n for each in names for n in each}) >= 3 else "completions"
    place: dict[object, int] = {}
    item_U2 = np.full((len(answers.query_U), 2), -1, dtype=np.int64)
    for u, (q, i, j) in enumerate(zip(answers.query_U.tolist(), answers.i_U.tolist(), answers.j_U.tolist(), strict=True)):
        query = queries[answers.query_ids[q]]
        for side, k in enumerate((i, j)):
            item: object
            if of == "policies":
                item = query.policies[k] if query.policies else None
            else:
                item = (query.prompt.id, query.completions[k])
            if item is not None:
                item_U2[u, side] = place.setdefault(item, len(place))
    if not 3 <= len(place) <= MOST_ITEMS:
        return None, of
    left_N, right_N = item_U2[answers.unit_N].T
    kept_N = (left_N >= 0) & (right_N >= 0) & (left_N != right_N)
    p_N = np.where(answers.category_N == TIE, 0.5, (answers.category_N == LEFT).astype(np.float64))
    wins = np.zeros((len(place), len(place)))
    np.add.at(wins, (left_N[kept_N], right_N[kept_N]), p_N[kept_N])
    np.add.at(wins, (right_N[kept_N], left_N[kept_N]), 1 - p_N[kept_N])
    found = cycles(wins, rng=seeds.numpy("circles"))
    return (found if found.triples else None), of


def _notes(
    own: Mapping[str, Query], usable: Mapping[str, Query], given: Sequence[Verdict], answers: Answers, said: Quality
) -> list[str]:
    """What was left out, and what makes some figures say little."""
    notes = []
    same = [id for id in own if id not in usable]
    if same:
        lost = sum(verdict.query_id in set(same) for verdict in given)
        notes.append(
            f"{_count(len(same), 'question')} compare a text with itself; they and {_count(lost, 'answer')} are left out"
        )
    category_N = answers.category_N
    if len(category_N) and np.all(category_N == TIE):
        notes.append("every answer is a tie, so there is nothing for a reward model to learn from")
    elif len(category_N) and np.all(category_N == category_N[0]):
        notes.append("every answer is the same, so agreement cannot be told from chance")
    once = [
        name for name, n in zip(answers.names, np.bincount(answers.rater_V, minlength=len(answers.names)), strict=True) if n == 1
    ]
    if once:
        some = ", ".join(once[:5]) + (", …" if len(once) > 5 else "")
        notes.append(f"{_count(len(once), 'labeler')} gave one answer only ({some}); their own figures say nothing")
    ties = [
        name
        for r, name in enumerate(answers.names)
        if (answers.rater_N == r).sum() >= 5 and np.all(category_N[answers.rater_N == r] == TIE)
    ]
    if ties:
        notes.append(f"{', '.join(ties[:5])} called everything a tie")
    if said.n_overlapping == 0:
        notes.append("no question was answered by two people, so nothing is known of agreement; ask some of them twice")
    return notes


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
