"""The terminal labeler without a terminal: keys, what is shown, what is stored, what undo takes back."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from backflip.errors import DataError
from backflip.feedback import screen, terminal
from backflip.feedback.keys import decode
from backflip.feedback.session import Session
from backflip.records import Message, Prompt, Query
from backflip.store import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "feedback.db") as opened:
        yield opened


def fill(store: Store, n: int, *texts: str) -> list[Query]:
    names = tuple(f"secret-policy-{i}" for i in range(len(texts)))
    queries = [Query(Prompt(f"prompt {i}"), texts, policies=names) for i in range(n)]
    store.add_queries(queries)
    return queries


def console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def shown(query: Query, width: int = 100, progress: str = "1 of 1") -> str:
    out = console(width)
    out.print(screen.question(query, range(len(query.completions)), progress, width))
    return out.file.getvalue()  # type: ignore[attr-defined]


def press(session: Session, keys: Iterable[str]) -> str:
    """Label with these keys, then quit; what appeared on the screen."""
    out = console()
    given_keys = itertools.chain(keys, itertools.repeat("q"))
    terminal.by_key(session, lambda: next(given_keys), out)
    return out.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (b"\x1b[D\x1b[C\x1b[B\x1b[A", ["left", "right", "down", "up"], b""),
        (b"\x1bOD\x1bOC", ["left", "right"], b""),
        (b"\x1b[1;2D", ["left"], b""),
        (b"tS=q", ["t", "s", "=", "q"], b""),
        (b"\x7f\x08\r\n", ["backspace", "backspace", "enter", "enter"], b""),
        (b"l\x1b", ["l"], b"\x1b"),
        (b"l\x1b[1;", ["l"], b"\x1b[1;"),
        (b"\x1b[3~\x1b[Hx\x1bx\x01", ["x", "x"], b""),
        ("é中".encode(), ["é", "中"], b""),
        ("中".encode()[:2], [], "中".encode()[:2]),
        (b"\x1b[\xe4", [], b"\x1b[\xe4"),
        (b"\xff\x80abl", ["a", "b", "l"], b""),
    ],
)
def test_keys(data: bytes, keys: list[str], rest: bytes) -> None:
    assert decode(data) == (keys, rest)


@settings(max_examples=100)
@given(st.lists(st.sampled_from([b"\x1b[D", b"\x1bOC", b"l", "中".encode(), b"\r", b"\x1b[1;5A"])), st.integers(0, 20))
def test_keys_do_not_depend_on_where_the_bytes_were_cut(parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)
    first, rest = decode(data[:cut])
    second, left = decode(rest + data[cut:])
    assert (first + second, left) == decode(data)


@pytest.mark.parametrize(
    ("text", "k", "groups"),
    [
        ("2 1=3", 3, [[1], [0, 2]]),
        ("213", 3, [[1], [0], [2]]),
        ("3>1>2", 3, [[2], [0], [1]]),
        ("1=2=3", 3, [[0, 1, 2]]),
        ("10 1 2 3 4 5 6 7 8=9", 10, [[9], [0], [1], [2], [3], [4], [5], [6], [7, 8]]),
    ],
)
def test_rankings(text: str, k: int, groups: list[list[int]]) -> None:
    assert terminal.parse_ranking(text, k) == groups


@pytest.mark.parametrize("text", ["", "1 2", "1 2 2", "1 2 4", "=1 2 3", "1 2 3=", "1==2 3", "a b c", "1 2 x 3", "0 1 2"])
def test_what_is_no_ranking_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write each of 1 to 3 once"):
        terminal.parse_ranking(text, 3)


def test_model_output_cannot_drive_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil\u2066 [bold]x[/bold] :smile: \r\b\x00\ud800\x7f"
    text = shown(Query(Prompt(hostile), (hostile, "fine\tb")))
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r", "\b", "\x00", "\ud800", "\x7f", "\t"}
    assert "␛[2J" in text
    assert "[bold]x[/bold] :smile:" in text
    assert "<U+202E>evil" in text


@given(st.text(max_size=30))
def test_safe_text_has_no_control_character_left(text: str) -> None:
    assert not screen._CONTROL.search(screen.safe(text))
    assert screen.safe(screen.safe(text)) == screen.safe(text)


def test_the_screen_is_blind_and_shows_progress() -> None:
    query = Query(Prompt((Message("user", "Why?"),)), ("because", ""), policies=("secret-a", "secret-b"))
    text = shown(query, progress="23 of 60")
    assert "secret" not in text
    assert query.id not in text
    for part in ("23 of 60", "user: Why?", "because", "(no text)", "← left", "right →", "u undo"):
        assert part in text


@pytest.mark.parametrize("width", [20, 40, 71, 72, 200])
def test_wide_characters_stay_within_the_terminal(width: int) -> None:
    from rich.cells import cell_len

    text = shown(Query(Prompt("春眠不觉晓" * 9), ("处处闻啼鸟" * 20, "夜来风雨声 " * 20)), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    beside = any("╮╭" in line for line in text.splitlines())
    assert beside == (width >= screen.SIDE_BY_SIDE)


def test_keys_become_verdicts_on_what_was_shown(store: Store) -> None:
    queries = fill(store, 5, "a", "b")
    session = Session(store, "ann")
    orders = []
    for key in ("left", "right", "down", "s", "="):
        orders.append(session.order)
        press(session, [key])
    choices = [v.choice for v in store.verdicts()]
    assert [v.query_id for v in store.verdicts()] == [q.id for q in queries]
    assert choices[2:] == ["tie", "skip", "tie"]
    assert [("left", "right").index(c) for c in choices[:2]] == [orders[0][0], orders[1][1]]
    assert [v.shown_first for v in store.verdicts()] == [order[0] for order in orders]
    assert all(v.at > 1.7e9 and v.ms >= 0 and v.annotator == "ann" for v in store.verdicts())


def test_sides_are_balanced_and_stay(store: Store) -> None:
    fill(store, 300, "a", "b")
    sides = []
    session = Session(store, "ann")
    while session.current is not None:
        sides.append(session.order[0])
        session._open.popleft()
    assert 105 < sum(sides) < 195  # 5 standard deviations
    assert Session(store, "ann").order[0] == sides[0]


def test_every_answer_is_stored_before_the_next_query_is_shown(store: Store) -> None:
    fill(store, 3, "a", "b")
    stored = []

    def read() -> str:
        stored.append(len(store.verdicts()))
        return "left"

    terminal.by_key(Session(store, "ann"), read, console())
    assert stored == [0, 1, 2]


def test_undo_shows_the_query_again_and_reaches_into_the_last_session(store: Store) -> None:
    queries = fill(store, 3, "a", "b")
    press(Session(store, "ann"), ["l", "s"])
    session = Session(store, "ann")
    assert (session.answered, session.total) == (2, 3)
    text = press(session, ["u", "backspace", "u", "t"])
    assert [(v.query_id, v.choice) for v in store.verdicts()] == [(queries[0].id, "tie")]
    assert session.current == queries[1]
    assert "taken back" in text
    assert "there is nothing to undo" in text


def test_an_undone_answer_can_be_given_again(store: Store) -> None:
    (query,) = fill(store, 1, "a", "b")
    session = Session(store, "ann")
    session.tie(5)
    assert session.undo()
    session.tie(5)
    assert [v.query_id for v in store.verdicts()] == [query.id]


def test_annotators_do_not_meet(store: Store) -> None:
    fill(store, 2, "a", "b")
    press(Session(store, "ann"), ["l", "l"])
    session = Session(store, "bob")
    assert session.answered == 0
    press(session, ["u", "s"])
    assert sorted(v.annotator for v in store.verdicts()) == ["ann", "ann", "bob"]


def test_more_than_two_are_ranked_by_number(store: Store) -> None:
    fill(store, 2, "a", "b", "c")
    session = Session(store, "ann")
    order = session.order
    text = press(session, [*"x3", "backspace", *"2s1=3", "enter", "s"])
    first, second = store.verdicts()
    assert first.ranking == ((order[1],), (order[0], order[2]))
    assert second.choice == "skip"
    assert "2 1=3" in text


def test_a_half_ranking_is_asked_again_with_the_reason(store: Store) -> None:
    fill(store, 1, "a", "b", "c")
    session = Session(store, "ann")
    text = press(session, ["1", "enter", *"123", "backspace", "backspace", "backspace", "u", "3", "q"])
    assert store.verdicts() == []
    assert "is no ranking" in text
    assert "there is nothing to undo" in text


def test_lines_instead_of_keys(store: Store) -> None:
    fill(store, 4, "a", "b")
    fill(store, 1, "x", "y", "z")
    session = Session(store, "ann")
    out = console()
    terminal.by_line(session, ["L\n", "u\n", "right\n", "\n", " t \n", "skip\n", "=\n", "1 2 3\n", "l\n"], out)
    assert [v.choice for v in store.verdicts()][1:] == ["tie", "skip", "tie", "ranking"]
    assert session.current is None
    assert "5 of 5" in out.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_that_is_no_answer_is_named_and_the_others_are_kept(store: Store) -> None:
    fill(store, 2, "a", "b")
    with pytest.raises(DataError, match=r"standard input, line 3: 'lef' is no answer; give l, r, t, s, u or q"):
        terminal.by_line(Session(store, "ann"), ["l\n", "\n", "lef\n"], console())
    assert len(store.verdicts()) == 1
    with pytest.raises(DataError, match="line 1: there is nothing to undo"):
        terminal.by_line(Session(store, "bob"), ["u\n"], console())


def test_a_finished_session_takes_no_answer(store: Store) -> None:
    fill(store, 1, "a", "b")
    session = Session(store, "ann")
    session.skip(1)
    with pytest.raises(ValueError, match="every query is answered"):
        session.tie(1)
