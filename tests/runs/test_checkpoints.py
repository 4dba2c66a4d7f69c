"""A checkpoint is whole or absent: after a kill at any call, a full disk, or damage to any file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backflip.errors import BackflipError, CheckpointError, StorageError
from backflip.runs import Checkpoints, checkpoints, verify

FILES = {"weights.safetensors": b"w" * 3000, "state/optimizer.bin": b"s" * 500}


def save(c: Checkpoints, step: int) -> None:
    with c.writing(step) as folder:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content + str(step).encode())


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def made(tmp_path: Path, warned: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", warn=warned.append)


def half_done(folder: Path, error: BaseException) -> None:
    (folder / "weights").write_bytes(b"half")
    raise error


def names(c: Checkpoints) -> list[str]:
    return sorted(p.name for p in c.folder.iterdir())


def test_a_saved_checkpoint_comes_back(made: Checkpoints) -> None:
    assert made.latest() is None
    save(made, 12)
    found = made.latest()
    assert found is not None
    assert (found.step, found.path.name) == (12, "step-00000012")
    assert (found.path / "state/optimizer.bin").read_bytes() == FILES["state/optimizer.bin"] + b"12"
    assert sorted(p.name for p in found.path.iterdir()) == ["MANIFEST.json", "state", "weights.safetensors"]


def test_the_logs_go_to_the_disk_before_the_checkpoint(tmp_path: Path) -> None:
    seen: list[bool] = []
    c = Checkpoints(tmp_path / "c", sync=lambda: seen.append((tmp_path / "c").exists()))
    save(c, 1)
    assert seen == [False]


def test_an_error_while_writing_changes_nothing(made: Checkpoints) -> None:
    save(made, 1)
    before = names(made)
    for error in (ValueError("bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)), made.writing(2) as folder:
            half_done(folder, error)
        assert names(made) == before
    assert made.latest().step == 1  # type: ignore[union-attr]


def test_an_empty_checkpoint_is_a_bug_in_the_caller(made: Checkpoints) -> None:
    with pytest.raises(ValueError, match="nothing was written into the checkpoint of step 3"), made.writing(3):
        pass
    assert made.steps() == []


# Kill -9 at every call that touches the disk. One process forks a child per point, so it is quick.
_KILLER = """
import os, signal, sys, builtins, io
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from backflip.runs import Checkpoints
CALLS = ["open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir", "stat", "scandir"]

def save(c, step):
    with c.writing(step) as folder:
        for name in ("a.bin", "b.bin"):
            (folder / name).write_bytes(name.encode() * 50 + str(step).encode())

def child(root, point):
    left = [point]
    def counted(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    c = Checkpoints(root, keep=int(sys.argv[3]))
    c.latest()
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    io.open = builtins.open = counted(builtins.open)
    save(c, int(sys.argv[4]))
    os._exit(7)

base = Path(sys.argv[2])
point = 0
while True:
    point += 1
    root = base / str(point)
    for step in (10, 20):
        save(Checkpoints(root, keep=2), step)
    pid = os.fork()
    if pid == 0:
        child(root, point)
    _, status = os.waitpid(pid, 0)
    said = []
    found = Checkpoints(root, warn=said.append).latest()
    good = found is not None and (found.path / "b.bin").read_bytes().endswith(str(found.step).encode())
    print(point, found.step if good else "broken", len(said), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


@pytest.mark.parametrize(("keep", "step"), [(2, 30), (1, 20)], ids=["new step", "same step again"])
def test_killed_at_any_call_the_old_or_the_new_step_is_there(tmp_path: Path, keep: int, step: int) -> None:
    source = str(Path(checkpoints.__file__).parents[2])
    command = [sys.executable, "-c", _KILLER, source, str(tmp_path), str(keep), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) > 16
    assert {row[1] for row in rows} <= {"20", str(step)}
    assert {row[2] for row in rows} == {"0"}, "a half-written checkpoint was taken for a damaged one"
    assert rows[0][1] == "20"
    assert rows[-1][1] == str(step)


def test_the_next_save_cleans_up_after_a_killed_one(made: Checkpoints) -> None:
    save(made, 1)
    (made.folder / ".step-00000002.new").mkdir()
    (made.folder / ".step-00000000.gone").mkdir()
    save(made, 2)
    assert names(made) == ["step-00000001", "step-00000002"]


def test_a_checkpoint_set_aside_by_a_killed_overwrite_comes_back(made: Checkpoints) -> None:
    save(made, 1)
    (made.folder / "step-00000001").rename(made.folder / ".step-00000001.old")
    assert made.latest().step == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(("call", "nth"), [("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("rename", 1), ("replace", 1)])
def test_a_full_disk_leaves_the_last_checkpoint(made: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str, nth: int) -> None:
    save(made, 1)
    real: Callable[..., object] = getattr(os, call)
    count = 0

    def full(*args: object) -> object:
        nonlocal count
        count += 1
        if count == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="disk is full") as caught:
        save(made, 2)
    monkeypatch.undo()
    assert "the last checkpoint, step 1, is intact" in str(caught.value)
    assert names(made) == ["step-00000001"]
    assert made.latest().step == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("words", ["I/O error: No space left on device (os error 28)", "[enforce fail] unexpected pos 64"])
def test_a_writer_that_hides_the_full_disk(made: Checkpoints, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    save(made, 1)
    made.last_step = None  # the early check would refuse before the writer does
    usage = shutil.disk_usage(made.folder)
    if "No space" not in words:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(StorageError, match="disk is full"), made.writing(2):
        raise RuntimeError(words)


def test_an_ordinary_error_is_not_taken_for_a_full_disk(made: Checkpoints) -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), made.writing(2):
        raise RuntimeError("shape mismatch")


def test_too_little_room_is_seen_before_writing(made: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    save(made, 1)
    usage = shutil.disk_usage(made.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2000))
    with pytest.raises(StorageError, match=r"step 2 was not started: the last one took 0.0 MB.*step 1, is intact"):
        save(made, 2)
    assert names(made) == ["step-00000001"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount command")
def test_a_really_full_disk(small_disk: Path) -> None:
    c = Checkpoints(small_disk / "checkpoints")
    save(c, 1)
    with pytest.raises(StorageError, match=r"disk is full.*step 1, is intact"), c.writing(2) as folder:
        (folder / "big.bin").write_bytes(b"x" * 3_000_000)
    assert names(c) == ["step-00000001"]
    assert c.latest().step == 1  # type: ignore[union-attr]


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(StorageError, match="checkpoint of step 1 cannot be written"):
        save(Checkpoints(tmp_path / "checkpoints"), 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("file", [*FILES, "MANIFEST.json"])
@pytest.mark.parametrize("damage", [flip, truncate, zero, Path.unlink])
def test_damage_is_seen_said_and_passed_over(
    made: Checkpoints, warned: list[str], file: str, damage: Callable[[Path], None]
) -> None:
    save(made, 10)
    save(made, 12)
    path = made.folder / "step-00000012" / file
    before = path.read_bytes()
    damage(path)
    found = made.latest()
    if file == "MANIFEST.json" and damage is truncate:  # its last byte is a newline: the content is intact
        assert before.endswith(b"\n")
        assert found is not None
        assert found.step == 12
        path.write_bytes(before[:-2])
        found = made.latest()
    assert found is not None
    assert found.step == 10
    assert len(warned) == 1
    assert warned[0].startswith(f"checkpoint step-12 does not verify ({file}: ")
    assert warned[0].endswith("going on from step 10")


def test_every_byte_of_the_manifest_counts(made: Checkpoints) -> None:
    save(made, 3)
    path = made.folder / "step-00000003"
    manifest = path / "MANIFEST.json"
    content = manifest.read_bytes()
    for i in range(len(content)):
        if chr(content[i]).isspace():
            continue
        changed = bytearray(content)
        changed[i] ^= 1
        manifest.write_bytes(changed)
        assert verify(path), f"byte {i} changed unseen"
    manifest.write_bytes(content)
    assert verify(path) == ""


def test_a_renamed_checkpoint_does_not_pass_for_another_step(made: Checkpoints) -> None:
    save(made, 3)
    (made.folder / "step-00000003").rename(made.folder / "step-00000009")
    assert "not the one that was written" in verify(made.folder / "step-00000009")


def test_when_none_verifies_the_run_does_not_silently_start_over(made: Checkpoints) -> None:
    save(made, 1)
    save(made, 2)
    for step in (1, 2):
        flip(made.folder / f"step-{step:08d}" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* verifies \(step 2: weights.safetensors: sha256"):
        made.latest()


def test_the_newest_two_stay(made: Checkpoints) -> None:
    for step in range(1, 6):
        save(made, step)
    assert made.steps() == [5, 4]


def test_retention_counts_only_checkpoints_that_verify(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    first = Checkpoints(folder, keep=3)
    for step in (1, 2, 3):
        save(first, step)
    for step in (2, 3):
        flip(folder / f"step-{step:08d}" / "weights.safetensors")
    later = Checkpoints(folder, keep=2, warn=lambda _: None)
    assert later.latest().step == 1  # type: ignore[union-attr]
    save(later, 4)
    assert 1 in later.steps(), "the only other verified checkpoint was deleted"
    save(later, 5)
    assert later.steps() == [5, 4]


def test_going_on_from_an_older_step_drops_later_ones(made: Checkpoints) -> None:
    save(made, 1)
    save(made, 2)
    made.drop_after(1)
    assert made.steps() == [1]
    assert made.last_step == 1


def test_the_same_step_again_replaces_a_damaged_one(made: Checkpoints) -> None:
    save(made, 1)
    save(made, 2)
    flip(made.folder / "step-00000002" / "weights.safetensors")
    save(made, 2)
    assert verify(made.folder / "step-00000002") == ""
    assert names(made) == ["step-00000001", "step-00000002"]


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


def test_an_error_of_ours_passes_unchanged(made: Checkpoints) -> None:
    class OddError(BackflipError):
        pass

    with pytest.raises(OddError, match="No space left on device, said the model"), made.writing(1):
        raise OddError("No space left on device, said the model")
