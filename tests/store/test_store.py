"""The store: append-only, idempotent, ordered, exact after undo, export and a second opening."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import DataError, UserError
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from tests.store.backends import Backend


def question(i: int, purpose: str = "train") -> Query:
    return Query(Prompt(f"prompt {i}"), (f"a{i}", f"b{i}"), policies=("sft", "ppo"), purpose=purpose)


@pytest.fixture
def store(place: str):
    with Store(place) as opened:
        yield opened


def test_a_verdict_becomes_the_comparison_it_states(store: Store) -> None:
    query = question(0)
    store.add_queries([query])
    store.add_verdicts([Verdict(query.id, "ann", "right", at=3.5)])
    (found,) = store.comparisons()
    assert (found.chosen, found.rejected, found.annotator) == ("b0", "a0", "ann")
    assert (found.left_policy, found.right_policy, found.p_left) == ("sft", "ppo", 0.0)


def test_the_same_content_is_stored_once(store: Store) -> None:
    query = question(0)
    assert store.add_queries([query, query]) == 1
    assert store.add_queries([query, question(1)]) == 1
    verdict = Verdict(query.id, "ann", "left", at=1.0)
    assert (store.add_verdicts([verdict]), store.add_verdicts([verdict, verdict])) == (1, 0)
    assert store.verdicts() == [verdict]


def test_everything_comes_back_in_the_order_it_was_added(store: Store) -> None:
    queries = [question(i) for i in (5, 1, 9, 3)]
    store.add_queries(queries)
    answers = [Verdict(q.id, "ann", "left") for q in reversed(queries)]
    store.add_verdicts(answers)
    assert store.queries() == queries
    assert store.verdicts() == answers
    assert [c.prompt.text for c in store.comparisons()] == ["prompt 3", "prompt 9", "prompt 1", "prompt 5"]


def test_ranked_verdicts_share_one_unit_of_weight(store: Store) -> None:
    query = Query(Prompt("p"), ("x", "y", "z"))
    store.add_queries([query])
    store.add_verdicts([Verdict(query.id, "ann", "ranking", ranking=((2,), (0, 1)))])
    found = [(c.left, c.right, c.p_left) for c in store.comparisons()]
    assert found == [("x", "y", 0.5), ("x", "z", 0.0), ("y", "z", 0.0)]
    assert sum(c.weight for c in store.comparisons()) == pytest.approx(1.0)


def test_purposes_stay_apart(store: Store) -> None:
    train, arena = question(0), question(0, "arena")
    store.add_queries([train, arena])
    store.add_verdicts([Verdict(q.id, "ann", "left") for q in (train, arena)])
    assert [c.query_id for c in store.comparisons()] == [train.id]
    assert [c.query_id for c in store.comparisons(purpose="arena")] == [arena.id]
    assert len(store.comparisons(purpose=None)) == 2
    assert store.queries("arena") == [arena]
    assert [v.query_id for v in store.verdicts(purpose="arena")] == [arena.id]


def test_unanswered_by_somebody_and_by_anybody(store: Store) -> None:
    queries = [question(0), question(1), question(2, "test")]
    store.add_queries(queries)
    store.add_verdicts([Verdict(queries[0].id, "ann", "left"), Verdict(queries[1].id, "bob", "skip")])
    assert store.unanswered("ann") == queries[1:]
    assert store.unanswered("bob") == [queries[0], queries[2]]
    assert store.unanswered() == [queries[2]]
    assert store.unanswered("ann", purpose="train") == [queries[1]]
    assert store.answered_by("ann") == {queries[0].id}


def test_a_retracted_verdict_is_kept_but_not_counted(store: Store, backend: Backend, place: str) -> None:
    query = question(0)
    store.add_queries([query])
    first = Verdict(query.id, "ann", "left", at=1.0)
    store.add_verdicts([first])
    store.retract(first.id, "ann")
    store.retract(first.id, "ann")
    assert (store.verdicts(), store.comparisons(), store.unanswered("ann")) == ([], [], [query])
    second = Verdict(query.id, "ann", "right", at=2.0)
    store.add_verdicts([second])
    assert store.verdicts() == [second]
    with backend.stranger(place) as raw:
        counts = [raw.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("verdicts", "retractions")]
    assert counts == [2, 1]


def test_reading_by_cursor_sees_each_verdict_once(store: Store) -> None:
    queries = [question(i) for i in range(6)]
    store.add_queries(queries)
    seen, read = 0, []
    assert store.cursor == 0
    for start in (0, 2, 4):
        store.add_verdicts([Verdict(q.id, "ann", "left") for q in queries[start : start + 2]])
        now = store.cursor
        store.add_verdicts([Verdict(queries[start].id, "late", "left")])
        read += store.comparisons(since=seen, until=now)
        seen = now
    read += store.comparisons(since=seen)
    assert len(read) == len(store.comparisons()) == 9
    assert [(c.query_id, c.annotator) for c in read] == [(c.query_id, c.annotator) for c in store.comparisons()]
    assert [v.query_id for v in store.verdicts(since=seen)] == [queries[4].id]


def test_a_verdict_on_an_unknown_query_is_refused_with_its_whole_batch(store: Store) -> None:
    query = question(0)
    store.add_queries([query])
    with pytest.raises(DataError, match="query nowhere is not in the store"):
        store.add_verdicts([Verdict(query.id, "ann", "left"), Verdict("nowhere", "ann", "left")])
    assert store.verdicts() == []


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict("?", "ann", "left"), "give a ranking"),
        (Verdict("?", "ann", "ranking", ranking=((0,), (1,))), "does not place each of 3"),
    ],
)
def test_a_verdict_that_does_not_fit_its_query_is_refused(store: Store, verdict: Verdict, message: str) -> None:
    query = Query(Prompt("p"), ("x", "y", "z"))
    store.add_queries([query])
    with pytest.raises(DataError, match=message):
        store.add_verdicts([Verdict(query.id, verdict.annotator, verdict.choice, ranking=verdict.ranking)])
    assert store.verdicts() == []


def test_retracting_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="verdict v9 is not in the store"):
        store.retract("v9", "ann")


@pytest.mark.parametrize("prompt", [Prompt("p", {"x": {1, 2}}), Prompt("half \ud800 a character")])
def test_what_is_no_json_is_refused_in_a_sentence(store: Store, prompt: Prompt) -> None:
    with pytest.raises(DataError, match="query cannot be stored"):
        store.add_queries([question(0), Query(prompt, ("a", "b"))])
    assert store.queries() == []


def test_the_database_itself_refuses_to_forget(store: Store, backend: Backend, place: str) -> None:
    query = question(0)
    store.add_queries([query])
    verdict = Verdict(query.id, "ann", "left")
    store.add_verdicts([verdict])
    store.retract(verdict.id, "ann")
    columns = {"queries": "body", "verdicts": "body", "retractions": "at", "backflip_schema": "version"}
    with backend.stranger(place) as raw:
        for table, column in columns.items():
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                with pytest.raises(backend.refused, match=f"{table} is append-only: {statement[:6]} refused"):
                    raw.execute(statement)


def test_a_store_opens_again_by_path_and_by_address(tmp_path: Path) -> None:
    path = tmp_path / "wörter 100%.db"
    with Store(path) as first:
        first.add_queries([question(0)])
    with Store(f"sqlite:///{path}") as second:
        assert second.queries() == [question(0)]
    with Store(path, read_only=True) as third:
        assert third.queries() == [question(0)]


@pytest.mark.parametrize("address", ["postgresql+asyncpg://u:word@h/db", "mysql://u:word@host/db", "sqlite://", ":memory:", ""])
def test_other_addresses_are_refused_in_a_sentence_without_the_password(address: str) -> None:
    with pytest.raises(UserError, match=r"only a file path, sqlite:///path and postgresql|give a path such as") as told:
        Store(address)
    assert "word" not in str(told.value)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
one_query = st.builds(
    Query,
    st.builds(Prompt, anything, st.dictionaries(anything, st.none() | st.integers(-9, 9) | anything, max_size=2)),
    st.lists(anything, min_size=2, max_size=2).map(tuple),
    purpose=st.sampled_from(["train", "test"]),
)
answers = st.tuples(text, st.sampled_from(["left", "right", "tie", "skip"]), st.floats(0, 9), st.booleans())


def test_export_and_import_lose_nothing(backend: Backend) -> None:
    @settings(max_examples=backend.examples, deadline=None)
    @given(st.lists(st.tuples(one_query, st.lists(answers, max_size=3)), max_size=4))
    def check(rows: list[tuple[Query, list[tuple]]]) -> None:
        with tempfile.TemporaryDirectory() as folder, Store(backend.new()) as a, Store(backend.new()) as b:
            for query, given_answers in rows:
                a.add_queries([query])
                for who, choice, at, undo in given_answers:
                    verdict = Verdict(query.id, who, choice, at=at)
                    a.add_verdicts([verdict])
                    if undo:
                        a.retract(verdict.id, "undoer")
            first, second = Path(folder) / "a.jsonl", Path(folder) / "b.jsonl"
            written = a.export_jsonl(first)
            assert b.import_jsonl(first) == written
            assert b.import_jsonl(first) == 0
            assert (b.queries(), b.verdicts(), b.cursor) == (a.queries(), a.verdicts(), a.cursor)
            assert b.comparisons(purpose=None) == a.comparisons(purpose=None)
            b.export_jsonl(second)
            assert first.read_bytes() == second.read_bytes()

    check()
