"""Reading a store part by part, counting what a project has, and what of foreign lines is no record: on each kind of database."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store, jsonl
from backflip.store.accounts import Accounts
from backflip.store.projects import Project, Projects, Totals


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    """A store with nine answers by two people, one of them taken back, and three to other questions among them."""
    with Store(place) as opened:
        for i in range(12):
            query = Query(Prompt(f"q{i}"), ("a", "b"), purpose="other" if i % 4 == 3 else "train")
            opened.add_queries([query])
            opened.add_verdicts([Verdict(query.id, "ann" if i < 6 else "bob", "left", at=i + 1.0)])
        opened.retract(opened.verdicts()[1].id, "ann")
        yield opened


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 9, 100])
def test_parts_are_the_whole(store: Store, limit: int) -> None:
    since, found = 0, []
    while True:
        until = store.page_end(since, limit, "train")
        part = store.verdicts(since, "train", until)
        assert len(part) <= limit
        found += part
        if until == store.cursor:
            break
        assert len(part) == limit, "only the last part is short"
        since = until
    assert found == store.verdicts(purpose="train")
    assert store.page_end(until, limit, "train") == until
    assert store.page_end(10**6, limit) == 10**6, "a cursor never goes back"


def test_events_of_a_kind_are_read_both_ways(store: Store) -> None:
    accounts = Accounts(store)
    for i in range(5):
        accounts.add(f"p{i}", "viewer", by="test")
    whole = [event for event in store.events() if event.kind == "admin"]
    assert len(whole) == 5
    assert store.events_of("admin", 99) == whole
    assert store.events_of("admin", 2, since=whole[0].id) == whole[1:3]
    assert store.events_of("admin", 2, before=2**62) == whole[3:]
    assert store.events_of("admin", 2, before=whole[3].id) == whole[1:3]
    assert store.events_of("verdict", 3) == [event for event in store.events() if event.kind == "verdict"][:3]


def test_what_a_project_has_is_counted(store: Store) -> None:
    projects = Projects(store)
    project = Project(id="main", purpose="train", repeat_share=0.5)
    assert projects.totals(project) == Totals(questions=9, answered=8, answers=8, people=2, golds=0, repeats=0)
    projects.set_golds([(Query(Prompt("g"), ("a", "b"), purpose="train-gold"), "left")], by="test")
    claim = store.claim("cat")
    assert claim is not None
    store.answer(claim.view.id, "cat", [list(claim.view.handles)], key="k1")
    again = store.claim_again("cat", gap=0)
    assert again is not None
    store.answer(again.view.id, "cat", [list(again.view.handles)], key="k2")
    assert projects.totals(project) == Totals(questions=9, answered=9, answers=9, people=3, golds=1, repeats=1)
    store.undo(again.view.id, "cat", key="k3")
    assert projects.totals(project).repeats == 0
    assert projects.totals(Project(id="empty", purpose="empty")) == Totals(0, 0, 0, 0, 0, 0)


def test_what_a_role_allowed_ends_with_it_and_nothing_changed_is_no_change(store: Store) -> None:
    accounts = Accounts(store)
    accounts.add("ann", "admin", by="test")
    accounts.issue("invitation", "ann", by="ann", seconds=60, body={"role": "viewer"})
    token = accounts.read("token", accounts.issue("token", "ann", by="ann", seconds=60, body={"scopes": ["read"]}))
    before = store.events()
    assert accounts.change("ann", by="test").role == "admin"
    assert store.events() == before
    accounts.change("ann", by="test", role="viewer")
    assert accounts.held("invitation") == []
    assert len(accounts.held("token")) == 1, "what it opens depends on the role when it is used"
    assert token is not None
    accounts.touch_soon(token)
    store.submit(int).result()
    assert accounts.held("token")[0].used is not None


def test_lines_written_to_a_file_are_what_is_exported(store: Store, tmp_path: Any) -> None:
    store.export_jsonl(tmp_path / "x.jsonl")
    file = io.StringIO()
    assert store.write_jsonl(file) == 25
    assert file.getvalue() == (tmp_path / "x.jsonl").read_text(encoding="utf-8")


def test_records_of_others_are_stored_with_who_brought_them(store: Store) -> None:
    query = Query(Prompt("new"), ("a", "b"))
    lines = [("line 1", query), ("line 2", Verdict(query.id, "eve", "tie"))]
    assert Projects(store).add_entries(lines, by="owner") == 2
    assert Projects(store).add_entries(lines, by="owner") == 0
    last = store.events()[-1]
    assert (last.actor, last.payload) == ("owner", {"what": "imported", "rows": 2, "new": 0})
    with pytest.raises(DataError, match="line 2"):
        Projects(store).add_entries(
            [("line 1", Query(Prompt("n"), ("a", "b"))), ("line 2", Verdict("x", "eve", "tie"))], by="owner"
        )
    assert len(store.queries()) == 13


DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
QUERY = {"prompt": {"text": "x", "columns": {}}, "completions": ["a", "b"]}
VERDICT = {"query_id": "q", "annotator": "ann", "choice": "left"}
FOREIGN = [
    {"kind": "query", "query": {**QUERY, "completions": [1, 2]}},
    {"kind": "query", "query": {**QUERY, "policies": ["a", None]}},
    {"kind": "query", "query": {**QUERY, "purpose": 5}},
    {"kind": "query", "query": {**QUERY, "prompt": {"text": [{"role": "user", "content": 5}]}}},
    {"kind": "query", "query": {**QUERY, "prompt": {"text": "x", "columns": ["k"]}}},
    {"kind": "query", "query": {**QUERY, "prompt": {"text": "x", "columns": {"k": float("nan")}}}},
    {"kind": "query", "query": {**QUERY, "prompt": {"text": "x", "columns": {"k": [{"l": float("inf")}]}}}},
    {"kind": "query", "query": {**QUERY, "prompt": {"text": "x", "columns": {"k": DEEP}}}},
    {"kind": "verdict", "verdict": {**VERDICT, "annotator": 5}},
    {"kind": "verdict", "verdict": {**VERDICT, "note": None}},
    {"kind": "verdict", "verdict": {**VERDICT, "ms": "5"}},
    {"kind": "verdict", "verdict": {**VERDICT, "ms": True}},
    {"kind": "verdict", "verdict": {**VERDICT, "at": float("inf")}},
    {"kind": "verdict", "verdict": {**VERDICT, "choice": "ranking", "ranking": [["0"], ["1"]]}},
    {"kind": "verdict", "verdict": {**VERDICT, "choice": "rating", "scores": [10**400, 1]}},
    {"kind": "retraction", "retraction": {"verdict_id": 5, "annotator": "ann", "at": 1.0}},
    {"kind": "retraction", "retraction": {"verdict_id": "v", "annotator": "ann", "at": "now"}},
    {"kind": "retraction", "retraction": {"verdict_id": "v", "annotator": "ann", "at": 10**400}},
]


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_with_the_wrong_kind_of_value_is_no_record(line: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"line 7: not a (query|verdict|retraction) that backflip wrote"):
        jsonl.entry(line, "line 7")


def test_whatever_columns_json_can_hold_is_kept() -> None:
    columns = {"a": 1, "b": [1.5, None, True, {"c": "d"}], "e": {"f": {"g": []}}, "n": 10**30}
    entry = jsonl.entry({"kind": "query", "query": {**QUERY, "prompt": {"text": "x", "columns": columns}}}, "line 1")
    assert isinstance(entry, Query)
    assert entry.prompt.columns == columns
