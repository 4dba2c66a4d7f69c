"""Files that are either the old one or the new one, never half of either.

A file is written beside its place, flushed to the disk, and renamed over the old one; the folder is flushed too, so
that the name survives a power cut. An `OSError` becomes a `StorageError` of one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from backflip.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file is larger than this file system or limit allows",
    errno.EACCES: "permission denied; choose a folder you may write in",
    errno.EPERM: "the operation is not permitted; choose a folder you may write in",
    errno.EROFS: "the file system is read-only; choose a folder you may write in",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
    errno.EIO: "the disk reported an input/output error",
}


def storage_error(problem: OSError, action: str, note: str = "") -> StorageError:
    """The sentence for `problem`: what could not be done, why, what to do, and what is still intact (`note`)."""
    reason = _REASONS.get(problem.errno or 0) or problem.strerror or str(problem)
    return StorageError(f"{action}: {reason}" + (f" ({note})" if note else ""))


@contextlib.contextmanager
def storage(action: str) -> Iterator[None]:
    """Inside, an error of the disk becomes the `StorageError` that says `action` could not be done and why."""
    try:
        yield
    except Exception as problem:
        refusal = disk_error(problem)
        if refusal is None:
            raise
        raise storage_error(refusal, action) from problem


def disk_error(problem: BaseException) -> OSError | None:
    """The error of the operating system behind `problem`; None when it is of another kind.

    Writers in Rust (safetensors, tokenizers) raise errors of their own that only quote its number.
    """
    if isinstance(problem, OSError):
        return problem
    quoted = re.search(r"\(os error (\d+)\)", str(problem))
    return OSError(int(quoted[1]), os.strerror(int(quoted[1]))) if quoted else None


def open_regular(path: Path) -> int:
    """A descriptor to read a file by. Raises OSError for what is none: a link, a folder, a pipe that would keep us waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def fsync_file(path: Path) -> None:
    """Return when the bytes of `path` are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Return when the names in the folder `path` are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Make `path` hold `content`, or leave it untouched.

    Raises StorageError when the disk is full, read-only or not permitted; the old content is then still there.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(f"{path} cannot be written"):
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have `make` fill `folder`, unless it is there; a folder half filled never is."""
    if folder.is_dir():
        return
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    with storage(f"{folder} cannot be written"):
        new.mkdir(parents=True)
        make(new)
        for path in new.rglob("*"):
            (fsync_dir if path.is_dir() else fsync_file)(path)
        fsync_dir(new)
        new.rename(folder)
        fsync_dir(folder.parent)
