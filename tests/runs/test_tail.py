"""Following a log: nothing torn, nothing twice, nothing missed, and a rewind is always noticed."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.runs import tail
from backflip.runs.logs import JsonLog


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def test_only_what_is_new_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert tail.read(path) == tail.Tail([])
    path.write_text(line(1) + line(2)[:5])
    first = tail.read(path)
    assert first.rows == [{"step": 1}]
    assert (first.reset, first.damaged, first.more) == (False, 0, False)
    assert tail.read(path, first.cursor) == tail.Tail([], first.cursor)
    path.write_text(line(1) + line(2) + line(3))
    second = tail.read(path, first.cursor)
    assert second.rows == [{"step": 2}, {"step": 3}]
    assert not second.reset


def test_a_rewind_is_noticed_whatever_was_written_since(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append(step, [{"loss": step / 8}])
    cursor = tail.read(log.path).cursor
    log.rewind(1)
    shorter = tail.read(log.path, cursor)
    assert (shorter.reset, [row["step"] for row in shorter.rows]) == (True, [1])
    for step in (2, 3):
        log.append(step, [{"loss": step / 16 + 0.5}])
    assert log.path.stat().st_size > int(cursor.split("-")[0])
    assert tail.read(log.path, cursor).reset
    same = tail.read(log.path).cursor
    text = log.path.read_text()
    log.path.write_text(text.replace("0.625", "0.626"))  # as long as before, the last line as before
    assert tail.read(log.path, same).reset
    log.path.write_text(text)  # a resumed run that writes the very same lines takes nothing back
    assert tail.read(log.path, same) == tail.Tail([], same)
    log.close()
    log.path.unlink()
    assert tail.read(log.path, same) == tail.Tail([], "", reset=True)


@pytest.mark.parametrize("cursor", ["x", "-1-0123456789abcdef", "9" * 40, "5", "0-0", "2-zzzzzzzzzzzzzzzz", "٣-0123456789abcdef"])
def test_a_cursor_nobody_gave_starts_over(tmp_path: Path, cursor: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1))
    found = tail.read(path, cursor)
    assert (found.rows, found.reset) == ([{"step": 1}], True)


def test_damaged_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    bad = [b"\0\0\0", b'{"step": 1', b"[]", b'{"step": "1"}', b'{"step": true}', b"", b"\xff", b"[" * 100_000, b"7" * 5000]
    path.write_bytes(b'{"step": 1}\n' + b"\n".join(bad) + b'\n{"step": 2, "loss": NaN}\n{"step": 3')
    found = tail.read(path)
    assert [row["step"] for row in found.rows] == [1, 2]
    assert math.isnan(found.rows[1]["loss"])
    assert found.damaged == len(bad)
    for most, steps, wrong in ((1 << 20, [1, 2], len(bad)), (1 << 14, [2], 1)):
        rows, damaged = tail.last_rows(path, most)
        assert ([row["step"] for row in rows], damaged) == (steps, wrong)


def test_halves_of_characters_become_something_a_page_can_show(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(line(1, text="a\ud800b\u00fc\U0001f600", turns=[{"x\udfff": "\udfff"}]))
    [row] = tail.read(path).rows
    assert row == {"step": 1, "text": "a\ufffdb\u00fc\U0001f600", "turns": [{"x\ufffd": "\ufffd"}]}
    assert json.dumps(row, ensure_ascii=False).encode()


def test_large_logs_come_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(i, pad="x" * 40) for i in range(500)) + line(500, pad="y" * 9000) + line(501))
    found, cursor, parts = [], "", 0
    while True:
        part = tail.read(path, cursor, most=1000)
        assert not part.reset
        found += part.rows
        cursor, parts = part.cursor, parts + 1
        if not part.more:
            break
    assert [row["step"] for row in found] == list(range(502))
    assert parts > 20
    assert tail.read_all(path).rows == found
    ends, wrong = tail.last_rows(path, most=500)
    assert ([row["step"] for row in ends], wrong) == ([501], 0)


def test_what_is_no_file_has_no_rows(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_text(line(1))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("pipe", "link", ".", "missing"):
        assert tail.read(tmp_path / name).rows == []
        assert tail.last_rows(tmp_path / name) == ([], 0)


WRITES = st.tuples(st.just("write"), st.lists(st.integers(0, 9), max_size=4))
TEARS = st.tuples(st.just("tear"), st.integers(0, 12))
REWINDS = st.tuples(st.just("rewind"), st.integers(0, 12))
LOOKS = st.tuples(st.just("look"), st.integers(1, 40))


@given(st.lists(st.one_of(WRITES, TEARS, REWINDS, LOOKS), max_size=25))
def test_what_a_reader_holds_is_what_the_file_says(moves: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = JsonLog(Path(place) / "metrics.jsonl")
        held: list[dict[str, object]] = []
        cursor, step = "", 0

        def look(most: int) -> None:
            nonlocal cursor
            found = tail.read(log.path, cursor, most=most)
            if found.reset:
                held.clear()
            held.extend(found.rows)
            cursor = found.cursor
            if found.more:
                look(most)

        for move, argument in moves:
            if move == "write":
                for value in argument:  # type: ignore[attr-defined]
                    step += 1
                    log.append(step, [{"x": value}])
            elif move == "tear":
                log.close()
                with open(log.path, "ab") as file:
                    file.write(line(step + 1, x=1).encode()[: int(argument)])  # type: ignore[call-overload]
            elif move == "rewind":
                step = min(step, int(argument))  # type: ignore[call-overload]
                log.rewind(step)
            else:
                look(int(argument))  # type: ignore[call-overload]
        look(1 << 20)
        log.close()
        whole = log.path.read_bytes().split(b"\n")[:-1] if log.path.exists() else []
        assert held == [json.loads(each) for each in whole]
