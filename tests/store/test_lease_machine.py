"""Claim, answer, undo, replay, expiry and crash in any order, against a model in plain Python."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from backflip.errors import DataError
from backflip.records import Prompt, Query
from backflip.store import Store
from backflip.store.leases import LEASE_S, Claim
from tests.store.backends import Backend

PEOPLE = ("ann", "bob", "cat")
OVERLAP = 2
person = st.sampled_from(PEOPLE)


class Labelling(RuleBasedStateMachine):
    """The model: who holds which query until when, and who has a standing answer to it through which view.

    `met` collects the cases that came up, so that a machine which never reaches one is noticed.
    """

    met: ClassVar[set[str]] = set()
    backend: ClassVar[Backend]

    @initialize()
    def open(self) -> None:
        self.place = self.backend.new()
        self.now = 1000.0
        self.queries = [Query(Prompt(f"p{i}"), ("x", "y")) for i in range(3)]
        self.leases: dict[tuple[str, str], tuple[str, float]] = {}  # (query, person) → view, end
        self.answers: dict[tuple[str, str], tuple[str, str]] = {}  # (query, person) → view, chosen
        self.claims: list[Claim] = []
        self.sent: list[tuple[str, Claim, str, tuple]] = []  # key, claim, chosen, outcome
        self.events = 0
        self.reopen()
        self.store.add_queries(self.queries)

    def reopen(self) -> None:
        self.store = Store(self.place, clock=lambda: self.now)

    def live(self) -> dict[tuple[str, str], str]:
        return {place: view for place, (view, until) in self.leases.items() if until > self.now}

    def groups(self, claim: Claim, chosen: str) -> list[list[str]]:
        handle = dict(zip((claim.query.completions[i] for i in claim.view.places), claim.view.handles, strict=True))
        return [[handle[chosen]], [handle["y" if chosen == "x" else "x"]]]

    @rule(name=person)
    def claim(self, name: str) -> None:
        taken = [*self.answers, *self.live()]
        room = [
            query for query in self.queries
            if (query.id, name) not in taken and len({who for asked, who in taken if asked == query.id}) < OVERLAP
        ]  # fmt: skip
        found = self.store.claim(name, overlap=OVERLAP)
        assert (found and found.query) == (room[0] if room else None)
        self.met.add("claimed" if found else "refused")
        if found:
            assert found.until == self.now + LEASE_S
            self.leases[found.query.id, name] = (found.view.id, found.until)
            self.claims.append(found)

    @rule(data=st.data(), chosen=st.sampled_from("xy"))
    def answer(self, data: st.DataObject, chosen: str) -> None:
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims))
        place, key = (claim.query.id, claim.view.annotator), f"key {len(self.sent)}"
        late = self.live().get(place) != claim.view.id
        given = self.store.answer(claim.view.id, claim.view.annotator, self.groups(claim, chosen), key=key)
        self.events += 1
        if place in self.answers:
            assert given.verdict_id is None
            self.met.add("surplus")
        else:
            self.met.add("late" if late else "in time")
            assert (given.verdict_id is not None, given.late) == (True, late)
            self.answers[place] = (claim.view.id, chosen)
            self.leases.pop(place, None)
        self.sent.append((key, claim, chosen, (given.event_id, given.verdict_id)))

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.sent:
            key, claim, chosen, outcome = data.draw(st.sampled_from(self.sent))
            again = self.store.answer(claim.view.id, claim.view.annotator, self.groups(claim, chosen), key=key)
            assert ((again.event_id, again.verdict_id), again.repeated) == (outcome, True)
            self.met.add("repeated")

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims))
        place, key = (claim.query.id, claim.view.annotator), f"undo {self.events}"
        if self.answers.get(place, ("",))[0] != claim.view.id:
            with pytest.raises(DataError, match="no answer that could be taken back"):
                self.store.undo(claim.view.id, claim.view.annotator, key=key)
            return
        self.store.undo(claim.view.id, claim.view.annotator, key=key)
        self.events += 1
        self.met.add("undone")
        del self.answers[place]
        self.leases[place] = (claim.view.id, self.now + LEASE_S)

    @rule(data=st.data(), gone=st.booleans())
    def heartbeat_or_release(self, data: st.DataObject, gone: bool) -> None:
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims))
        place, view = (claim.query.id, claim.view.annotator), claim.view
        live = self.live().get(place) == view.id
        if gone and live:
            assert self.store.release(view.id, view.annotator) is True
            del self.leases[place]
        elif not gone:
            assert self.store.heartbeat(view.id, view.annotator) == (self.now + LEASE_S if live else None)
            self.met.add("extended" if live else "lapsed")
            if live:
                self.leases[place] = (view.id, self.now + LEASE_S)

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S, 2 * LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def crash(self) -> None:
        self.store._db.close()  # nothing is finished or put away
        self.reopen()

    @invariant()
    def the_store_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        chosen = {"left": "x", "right": "y"}
        stored = {(v.query_id, v.annotator): chosen[v.choice] for v in self.store.verdicts()}
        assert stored == {place: choice for place, (_, choice) in self.answers.items()}
        assert len(self.store.events()) == self.events
        for name in PEOPLE:
            held = {(claim.query.id, name): claim.view.id for claim in self.store.held(name)}
            assert held == {place: view for place, view in self.live().items() if place[1] == name}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.verify()
            assert self.store.rebuild() is False
            self.store.close()


def test_any_order_of_events_agrees_with_the_model(backend: Backend) -> None:
    Labelling.backend = backend
    Labelling.met.clear()
    examples = settings(max_examples=backend.examples + 3, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Labelling, settings=examples)
    assert Labelling.met == {"claimed", "refused", "in time", "late", "surplus", "repeated", "undone", "extended", "lapsed"}
