"""Log lines: exact numbers, no torn ends, and rewinding gives the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import DataError, NumericsError, StorageError
from backflip.runs import logs
from backflip.runs.logs import JsonLog, numbers, read_lines

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def log(tmp_path: Path) -> JsonLog:
    return JsonLog(tmp_path / "metrics.jsonl")


def test_a_line_is_the_step_and_the_shortest_exact_numbers(log: JsonLog) -> None:
    log.append(3, [numbers(3, {"kl": 0.1, "n": 7, "flag": True})])
    assert log.path.read_text() == '{"step": 3, "kl": 0.1, "n": 7, "flag": 1}\n'


@settings(max_examples=50, deadline=None)
@given(st.lists(finite, min_size=1, max_size=5))
def test_every_float_comes_back_bit_for_bit(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = JsonLog(Path(folder) / "m.jsonl")
        log.append(1, [numbers(1, {str(i): v for i, v in enumerate(values)})])
        log.close()
        [row] = read_lines(log.path)
    assert [row[str(i)].hex() for i in range(len(values))] == [v.hex() for v in values]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_name(log: JsonLog, bad: float) -> None:
    with pytest.raises(NumericsError, match=r"metric 'loss' is (nan|-?inf) at step 5"):
        numbers(5, {"kl": 1.0, "loss": bad})
    with pytest.raises(NumericsError, match=r"metrics.jsonl, step 5"):
        log.append(5, [{"nested": [bad]}])
    assert not log.path.exists()


@settings(max_examples=40, deadline=None)
@given(total=st.integers(1, 12), kept=st.integers(-1, 12), torn=st.integers(0, 30))
def test_rewind_and_redo_equals_undisturbed(total: int, kept: int, torn: int) -> None:
    kept = min(kept, total)

    def write(log: JsonLog, steps: range) -> None:
        for step in steps:
            log.append(step, [{"a": step / 7}, {"b": "ü\n"}])

    with tempfile.TemporaryDirectory() as folder:
        calm, torn_log = JsonLog(Path(folder) / "calm"), JsonLog(Path(folder) / "torn")
        write(calm, range(total + 1))
        write(torn_log, range(total + 1))
        torn_log.close()
        with open(torn_log.path, "ab") as file:
            file.write(b'{"step": 99, "a": 0.123456789012345'[:torn])
        torn_log.rewind(kept)
        write(torn_log, range(kept + 1, total + 1))
        calm.close()
        torn_log.close()
        assert torn_log.path.read_bytes() == calm.path.read_bytes()


def test_zeros_after_a_power_cut_are_cut_off(log: JsonLog) -> None:
    log.append(1, [{"a": 1}])
    log.append(2, [{"a": 2}])
    log.close()
    with open(log.path, "ab") as file:
        file.write(b"\0" * 40 + b"\n" + b"\0" * 9)
    log.rewind(1)
    assert log.path.read_text() == '{"step": 1, "a": 1}\n'


def test_damage_in_the_middle_is_named_not_dropped(log: JsonLog) -> None:
    log.path.write_text('{"step": 1}\n{"step": oops}\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2 is damaged"):
        log.rewind(3)
    with pytest.raises(DataError, match="line 2"):
        read_lines(log.path)
    log.rewind(1)  # what is damaged lies after the cut
    assert read_lines(log.path) == [{"step": 1}]


def test_appending_to_a_torn_file_does_not_glue_lines(log: JsonLog) -> None:
    log.path.write_text('{"step": 1}\n{"st')
    log.append(2, [{}])
    log.close()
    assert read_lines(log.path) == [{"step": 1}, {"step": 2}]


def test_a_full_disk_in_the_middle_of_a_line_leaves_no_half_line(log: JsonLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(1, [{"a": 1}])
    real = os.write
    calls = iter([4])

    def fill_up(fd: int, data: bytes) -> int:
        for size in calls:
            return real(fd, data[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs.os, "write", fill_up)
    with pytest.raises(StorageError, match="disk is full"):
        log.append(2, [{"a": 2}])
    monkeypatch.undo()
    assert log.path.read_text() == '{"step": 1, "a": 1}\n'
    log.append(2, [{"a": 2}])
    assert len(read_lines(log.path)) == 2


def test_hostile_text_makes_one_valid_line(log: JsonLog) -> None:
    log.append(1, [{"completion": "a\nb\u2028\ud800 \x00 </script>"}])
    log.close()
    assert log.path.read_bytes().count(b"\n") == 1
    assert read_lines(log.path)[0]["completion"] == "a\nb\u2028\ud800 \x00 </script>"
    assert json.loads(log.path.read_bytes())["step"] == 1
