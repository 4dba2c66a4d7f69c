"""Wishes from outside: who may ask what, what a damaged file does, how a run waits, and what is left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import ConfigError, Interrupted, StorageError
from backflip.runs import Run, atomic, control


def opened(folder: Path, **changes: object) -> Run:
    return Run.open(folder, **{"kind": "ppo", "settings": {"steps": 3}, "quiet": True, **changes})  # type: ignore[arg-type]


def save(run: Run, step: int) -> None:
    run.log(step, {"loss": 1.0 / step})
    with run.checkpoints.writing(step) as place:
        (place / "n").write_text(str(step))


def later(act: Any, *arguments: object, after: float = 0.3) -> threading.Timer:
    """Something that happens while the test waits."""
    timer = threading.Timer(after, act, arguments)
    timer.start()
    return timer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "POLL_S", 0.01)


def test_a_wish_to_stop_ends_the_run_like_sigterm_and_is_used_up(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        save(run, 1)
        assert not run.stopping
        assert not run.asked
        wish = control.stop(tmp_path, by="ann")
        assert control.standing(tmp_path) == wish
        assert run.asked
        assert run.stopping
        save(run, 2)
        with pytest.raises(Interrupted, match=r"^stopped at step 2 because ann asked; run the same command again") as caught:
            run.obey(2)
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert control.standing(tmp_path) is None
    assert not (tmp_path / "control.json").exists()
    with opened(tmp_path) as again:
        assert again.resume().step == 2  # type: ignore[union-attr]
        assert not again.asked
        again.obey(2)


def test_a_pause_lasts_until_it_is_taken_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path, quiet=False) as run:
        save(run, 1)
        control.pause(tmp_path, by="ann")
        assert run.asked
        assert not run.stopping
        resumed = later(lambda: (seen.append((tmp_path / ".paused").exists()), control.resume(tmp_path)))
        seen: list[bool] = []
        before = time.monotonic()
        run.obey(1)
        assert time.monotonic() - before > 0.25
        resumed.join()
        assert seen == [True]
        assert not (tmp_path / ".paused").exists()
        assert not run.asked
    said = capfd.readouterr().err.splitlines()
    assert said == [
        f"{tmp_path.name}: paused by ann; it goes on when it is resumed, Ctrl-C ends it", f"{tmp_path.name}: going on",
    ]  # fmt: skip
    assert control.resume(tmp_path) is None


def test_a_step_that_is_not_saved_is_gone_on_from(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        save(run, 1)
        control.stop(tmp_path)
        run.log(2, {"loss": 0.5})
        run.obey(2)  # the wish came after this step's look, so the step was not saved
        assert run.asked
        save(run, 3)
        with pytest.raises(Interrupted, match="at step 3 because someone asked"):
            run.obey(3)


def test_a_stop_ends_a_pause_and_the_latest_wish_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        save(run, 1)
        control.stop(tmp_path, by="ann")
        control.pause(tmp_path, by="bob")
        assert run.asked
        assert not run.stopping
        asked = later(control.stop, tmp_path, "cleo")
        with pytest.raises(Interrupted, match="because cleo asked"):
            run.obey(1)
        asked.join()
        assert not (tmp_path / ".paused").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_pause_which_still_stands_at_the_next_start(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with opened(tmp_path) as run:
        save(run, 1)
        control.pause(tmp_path, by="ann")
        assert run.asked
        sent = later(os.kill, os.getpid(), number)
        with pytest.raises(Interrupted, match=r"^stopped at step 1; run") as caught:
            run.obey(1)
        sent.join()
        assert caught.value.exit_code == code
    with opened(tmp_path) as again:
        assert again.asked
        assert control.resume(tmp_path) is not None
        assert not again.asked


def test_a_second_ctrl_c_ends_a_pause_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as run:
        save(run, 1)
        control.pause(tmp_path)
        assert run.asked

        def twice(_: float) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(control.time, "sleep", twice)
        with pytest.raises(KeyboardInterrupt):
            run.obey(1)
        assert not (tmp_path / ".paused").exists()


def test_only_a_running_run_can_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        control.pause(tmp_path)
    opened(tmp_path).close()
    for ask, word in ((control.pause, "pause"), (control.stop, "stop")):
        with pytest.raises(ConfigError, match=f"is not running, so it cannot be asked to {word}"):
            ask(tmp_path)
    assert not (tmp_path / "control.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"wish": "fly"}', b'{"wish": ["stop"]}', b'{"by": "ann"}', b"\xff\xfe", b"[" * 3000,
        b'{"wish": "stop", "by": "' + b"a" * 5000 + b'"}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_wish_changes_nothing(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path) as run:
        (tmp_path / "control.json").write_bytes(content)
        assert control.standing(tmp_path) is None
        assert not run.asked
        run.obey()


def test_what_is_no_file_is_no_wish(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        for make in (os.mkdir, os.mkfifo, lambda place: os.symlink("/dev/zero", place)):
            make(tmp_path / "control.json")
            assert control.standing(tmp_path) is None
            assert not run.asked
            os.rmdir(tmp_path / "control.json") if make is os.mkdir else os.unlink(tmp_path / "control.json")


def test_a_name_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert control.pause(tmp_path, by="\x1b[31m\n a\u202enn ").by == "[31m ann"
        assert control.pause(tmp_path, by="\n").by == "someone"
        (tmp_path / "control.json").write_text(json.dumps({"wish": "stop", "by": "x" * 500 + "\x07", "at": 7}))
        assert control.standing(tmp_path) == control.Wish("stop", "x" * 80, "7")


def test_a_full_disk_refuses_the_wish_and_ends_no_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as run:
        monkeypatch.setattr(atomic.os, "replace", full)
        with pytest.raises(StorageError, match=r"control.json cannot be written: the disk is full"):
            control.pause(tmp_path)
        monkeypatch.undo()
        monkeypatch.setattr(control, "POLL_S", 0.01)
        save(run, 1)
        control.pause(tmp_path)
        assert run.asked
        monkeypatch.setattr(Path, "touch", full)
        resumed = later(control.resume, tmp_path)
        run.obey(1)
        resumed.join()


def test_old_wishes_do_not_outlive_what_they_were_for(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    stop, pause = (json.dumps({"wish": wish, "by": "ann", "at": ""}) for wish in ("stop", "pause"))
    with opened(tmp_path) as run:
        save(run, 1)
    path.write_text(stop)  # of a run that was killed before it saw the wish
    (tmp_path / ".paused").touch()
    with opened(tmp_path) as run:
        assert not (tmp_path / ".paused").exists()
        assert not run.asked
        path.write_text(stop)  # in the last step
    assert not path.exists()
    with opened(tmp_path) as run:
        path.write_text(pause)
    assert path.exists(), "a run that ended by itself before its end is still meant to wait"
    with opened(tmp_path) as run:
        run.finish({"loss": 1.0})
    assert not path.exists()
    path.write_text(stop)
    run.close()  # for the second time: the folder is no longer this run's
    assert path.exists()


def test_the_file_is_no_stranger_and_no_beginning(tmp_path: Path) -> None:
    for name in ("control.json", ".control.json.123.tmp", ".paused"):
        (tmp_path / name).write_text("{}")
    opened(tmp_path).close()
    for name in ("control.json", ".control.json.123.tmp", ".paused"):
        (tmp_path / name).write_text("{}")
    with opened(tmp_path, settings={"steps": 4}) as run:  # nothing was written yet, so other settings are taken
        assert run.settings == {"steps": 4}


def test_a_look_is_one_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    stat, read = os.stat, control.standing

    def counted(path: Any, *a: Any, **k: Any) -> os.stat_result:
        if Path(str(path)).name == "control.json":
            looked.append("stat")
        return stat(path, *a, **k)

    def reading(folder: Path) -> control.Wish | None:
        looked.append("read")
        return read(folder)

    with opened(tmp_path) as run:
        save(run, 1)
        control.pause(tmp_path)
        monkeypatch.setattr(control.os, "stat", counted)
        monkeypatch.setattr(control, "standing", reading)
        assert [run.asked for _ in range(3)] == [True] * 3
        assert looked == ["stat", "read", "stat", "stat"]
        control.resume(tmp_path)
        looked.clear()
        assert not run.asked
        run.obey(1)
        assert looked == ["stat"]
        monkeypatch.undo()


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[tuple[Run, Run]]:
    with opened(tmp_path / "loop", kind="rounds") as outer, opened(tmp_path / "loop" / "round1" / "ppo") as inner:
        save(inner, 1)
        yield outer, inner


@pytest.mark.parametrize("which", [0, 1])
def test_a_stage_and_its_loop_stop_together(nested: tuple[Run, Run], which: int) -> None:
    outer, inner = nested
    control.stop(nested[which].folder, by="ann")
    assert inner.asked
    with pytest.raises(Interrupted, match=r"^stopped at step 1 because ann asked") as caught:
        inner.obey(1)
    assert caught.value.exit_code == 143
    assert outer.stopping
    with pytest.raises(Interrupted, match=r"^stopped between two stages because ann asked"):
        outer.obey(where="between two stages")
    assert control.standing(outer.folder) is control.standing(inner.folder) is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_stage_and_its_loop_wait_together(nested: tuple[Run, Run], which: int) -> None:
    outer, inner = nested
    control.pause(nested[which].folder, by="ann")
    assert inner.asked
    marks: list[bool] = []

    def go_on() -> None:
        marks.extend((run.folder / ".paused").exists() for run in nested)
        control.resume(nested[which].folder)

    resumed = later(go_on)
    inner.obey(1)
    resumed.join()
    assert marks == [True, True]
    assert not outer.asked
    assert not any((run.folder / ".paused").exists() for run in nested)


def test_what_is_asked_of_a_stage_is_not_asked_of_the_next(tmp_path: Path) -> None:
    with opened(tmp_path, kind="rounds") as outer:
        with opened(tmp_path / "a") as first:
            control.pause(first.folder)
            assert first.asked
        assert not outer.asked
        with opened(tmp_path / "b") as second:
            assert not second.asked


def test_a_run_in_another_thread_is_no_stage(tmp_path: Path) -> None:
    asked: list[bool] = []

    def work() -> None:
        with opened(tmp_path / "other") as run:
            asked.append(run.asked)

    with opened(tmp_path / "one"):
        control.stop(tmp_path / "one")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert asked == [False]
