"""Looking whether a run is running: right from every side, and never in anybody's way."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import backflip
from backflip.errors import ConfigError
from backflip.runs import lock
from backflip.runs.lock import FolderLock, held

SOURCE = str(Path(backflip.__file__).parents[1])


def test_a_look_makes_no_file_and_knows_who_is_there(tmp_path: Path) -> None:
    assert not held(tmp_path)
    assert not held(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    mine = FolderLock(tmp_path)
    assert held(tmp_path)
    assert held(tmp_path), "the first look must not have let go of the lock"
    with pytest.raises(ConfigError, match="in use"):
        FolderLock(tmp_path)
    mine.release()
    assert not held(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    assert not held(tmp_path)


def test_another_process_is_seen_until_it_dies(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import sys, time; sys.path.insert(0, {SOURCE!r})
        from pathlib import Path
        from backflip.runs.lock import FolderLock
        mine = FolderLock(Path({str(tmp_path)!r})); print("ready", flush=True); time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert held(tmp_path)
        process.kill()
        process.wait()
        assert not held(tmp_path)


def test_starts_succeed_however_often_others_look(tmp_path: Path) -> None:
    over = threading.Event()
    looks = [0, 0, 0]

    def look(i: int) -> None:
        while not over.is_set():
            held(tmp_path)
            looks[i] += 1

    threads = [threading.Thread(target=look, args=(i,)) for i in range(len(looks))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            FolderLock(tmp_path).release()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert sum(looks) > 100


def test_a_start_waits_for_a_look_but_not_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderLock(tmp_path).release()
    fd = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    timer = threading.Timer(0.05, os.close, (fd,))
    timer.start()
    FolderLock(tmp_path).release()
    timer.join()
    monkeypatch.setattr(lock, "PATIENCE_S", 0.03)
    with_it = FolderLock(tmp_path)
    before = time.monotonic()
    with pytest.raises(ConfigError, match="in use"):
        FolderLock(tmp_path)
    assert time.monotonic() - before < 5
    with_it.release()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderLock(tmp_path).release()

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert not held(tmp_path)
