"""Checkpoints that are whole or absent.

    .step-00000012.new/  write files → fsync each → MANIFEST.json (size and SHA-256 of each) → fsync folders
    step-00000012/       rename → fsync the parent → only now delete old ones

Whatever moment the process dies, the newest folder that verifies is the state before or the state after the save.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backflip.errors import BackflipError, CheckpointError, StorageError
from backflip.runs.atomic import disk_error, fsync_dir, fsync_file, storage, storage_error, write_atomic

MANIFEST = "MANIFEST.json"
_NAME = re.compile(r"step-(\d{8,})")
_FULL = 1 << 20  # below this many free bytes a failed write is taken for a full disk


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that verified: `step` updates were done when it was written; its files are in `path`."""

    step: int
    path: Path


def verify(path: Path) -> str:
    """Why the checkpoint folder `path` cannot be trusted; empty when every byte is as written."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        own = manifest.pop("sha256")
        if own != _digest_of(manifest) or path.name != _name(manifest["step"]):
            return f"{MANIFEST}: not the one that was written"
        for name, entry in manifest["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name}: missing"
            if file.stat().st_size != entry["size"]:
                return f"{name}: {file.stat().st_size} bytes instead of {entry['size']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name}: sha256 differs"
    except FileNotFoundError:
        return f"{MANIFEST}: missing"
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST}: damaged"
    return ""


class Checkpoints:
    """The checkpoints of one run, under `folder`.

    `keep` newest ones that verify are kept. `sync` is called before a checkpoint is written (the logs it belongs with
    go to the disk first); `warn` receives one sentence for each damaged checkpoint that is passed over.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        sync: Callable[[], None] | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        if keep < 1:
            raise ValueError("at least one checkpoint must be kept")
        self.folder = folder
        self.keep = keep
        self._sync = sync or (lambda: None)
        self._warn = warn
        self._good: set[int] = set()  # steps this process wrote or verified: not hashed again at every save
        self.last_step: int | None = None

    @contextlib.contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A fresh folder to write any files in; on leaving, it becomes the checkpoint of `step`.

        After an exception inside, nothing has changed. Raises StorageError when the disk is full or refuses; the
        message says which checkpoint is still intact.
        """
        new = self.folder / f".{_name(step)}.new"
        action = f"checkpoint of step {step} cannot be written in {self.folder}"
        try:
            self._sync()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.recover()
            self._check_space(step)
            new.mkdir()
            yield new
            _seal(new, step)
            self._put(new, step)
        except BaseException as problem:
            full = _is_full(problem, self.folder)
            shutil.rmtree(new, ignore_errors=True)
            refusal = disk_error(problem)
            if refusal is not None:
                raise storage_error(refusal, action, self._intact()) from problem
            if isinstance(problem, StorageError) and self._intact() not in str(problem):
                raise StorageError(f"{problem} ({self._intact()})") from problem
            if full:
                raise storage_error(OSError(errno.ENOSPC, ""), action, self._intact()) from problem
            raise
        self._good.add(step)
        self.last_step = step
        with storage(f"old checkpoints in {self.folder} cannot be deleted"):
            self._retain()

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; None when there is no checkpoint at all.

        Raises CheckpointError when there are some and none verifies.
        """
        with storage(f"checkpoints in {self.folder} cannot be read"):
            self.recover()
            steps = self.steps()
        broken: list[tuple[int, str]] = []
        for step in steps:
            path = self.folder / _name(step)
            reason = verify(path)
            if not reason:
                for bad, why in broken:
                    self._warn(f"checkpoint step-{bad} does not verify ({why}); going on from step {step}")
                self._good.add(step)
                self.last_step = step
                return Checkpoint(step, path)
            self._good.discard(step)
            broken.append((step, reason))
        if broken:
            raise CheckpointError(
                f"no checkpoint in {self.folder} verifies (step {broken[0][0]}: {broken[0][1]}); restore the folder "
                f"from a copy, or delete it to start this run from its beginning"
            )
        return None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint folder, verified or not, newest first."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(p.name) for p in self.folder.iterdir() if p.is_dir())
        return sorted((int(m[1]) for m in found if m), reverse=True)

    def drop_after(self, step: int) -> None:
        """Delete every checkpoint of a later step: a run that goes on from `step` will write its own."""
        with storage(f"checkpoints in {self.folder} cannot be deleted"):
            for later in self.steps():
                if later > step:
                    self._delete(later)
        self.last_step = max(self._good, default=None)

    def recover(self) -> None:
        """Finish or undo what a killed process left half done."""
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".step-*.old"):
            target = self.folder / path.name[1 : -len(".old")]
            if not target.exists():
                os.rename(path, target)
        for pattern in (".step-*.new", ".step-*.old", ".step-*.gone"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path)

    def _put(self, new: Path, step: int) -> None:
        """Give the sealed folder its name. One that already has the name steps aside, and comes back in `recover`."""
        target = self.folder / _name(step)
        old = self.folder / f".{_name(step)}.old"
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            if old.exists():
                os.rename(old, target)
            raise
        fsync_dir(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _retain(self) -> None:
        verified = 0
        for step in self.steps():
            if verified >= self.keep:
                self._delete(step)
            elif step in self._good or not verify(self.folder / _name(step)):
                self._good.add(step)
                verified += 1

    def _delete(self, step: int) -> None:
        # Renamed first: a half-deleted folder must never look like a damaged checkpoint.
        gone = self.folder / f".{_name(step)}.gone"
        os.rename(self.folder / _name(step), gone)
        shutil.rmtree(gone)
        self._good.discard(step)

    def _check_space(self, step: int) -> None:
        """Refuse early when the disk has less room than the last checkpoint took; sizes can differ, so this is a guess
        that spares most runs a failed write, not a promise."""
        if self.last_step is None:
            return
        files = (self.folder / _name(self.last_step)).rglob("*")
        needed = sum(p.stat().st_size for p in files if p.is_file())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise StorageError(
                f"checkpoint of step {step} was not started: the last one took {needed / 1e6:.1f} MB and "
                f"{free / 1e6:.1f} MB are free in {self.folder}; free some space and run the same command again "
                f"({self._intact()})"
            )

    def _intact(self) -> str:
        if self.last_step is None:
            return "there is no earlier checkpoint"
        return f"the last checkpoint, step {self.last_step}, is intact"


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _seal(folder: Path, step: int) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise ValueError(f"nothing was written into the checkpoint of step {step}")
    entries: dict[str, Any] = {}
    for path in files:
        fsync_file(path)
        entries[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "size": path.stat().st_size}
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_dir(path)
    manifest = {"format": 1, "step": step, "files": entries}
    write_atomic(folder / MANIFEST, json.dumps({**manifest, "sha256": _digest_of(manifest)}, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _is_full(problem: BaseException, folder: Path) -> bool:
    """Whether a writer that hides the `OSError` (safetensors, torch.save) failed because the disk is full."""
    if not isinstance(problem, Exception) or isinstance(problem, OSError | BackflipError):
        return False
    if "No space left on device" in str(problem):
        return True
    try:
        return shutil.disk_usage(folder).free < _FULL
    except OSError:
        return False
