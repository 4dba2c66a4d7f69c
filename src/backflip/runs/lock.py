"""One process per run folder.

The lock is the kernel's (`flock`): it ends with the process that holds it, however that process ends, so a killed run
leaves no stale lock behind.

`held` asks whether someone has it by taking a shared lock for a moment, which works on every file system the lock itself
works on; /proc/locks would not: it hides processes of other containers, and its device numbers are not those of `stat` on
overlay and btrfs. A run that starts in that very moment tries again until `PATIENCE_S` is over, so a look never turns a start
away, and many looks at once share.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from pathlib import Path

from backflip.errors import ConfigError
from backflip.runs.atomic import storage

NAME = ".lock"
PATIENCE_S = 0.2
"""How long a start tries to get a lock that someone has: a look lasts microseconds, another run much longer."""

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_RETRY_S = 0.01
_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """The lock on `folder`, held from construction until `release`.

    Raises ConfigError when another process holds it, StorageError when the file system cannot lock.
    """

    def __init__(self, folder: Path) -> None:
        with storage(f"run folder {folder} cannot be locked"):
            self._fd: int | None = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(self._fd)
            except OSError as problem:
                self.release()
                if problem.errno in _TAKEN:
                    raise ConfigError(
                        f"run folder {folder} is in use by another process; wait for it to end or use another folder"
                    ) from None
                raise
        _held.add(self)

    def release(self) -> None:
        """Let another process have the folder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _lock(fd: int) -> None:
    """Take the lock, or raise the OSError with which it was refused for all of `PATIENCE_S`."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in _TAKEN or time.monotonic() >= until:
                raise
        time.sleep(_RETRY_S)


def held(folder: Path) -> bool:
    """Whether a living process holds the lock on `folder`. Makes no file, and never keeps a run from starting."""
    try:
        fd = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # before closing: a child forked meanwhile has a copy that would keep it locked
    except OSError as problem:
        return problem.errno in _TAKEN
    finally:
        os.close(fd)
    return False


def _let_go_in_child() -> None:
    # A forked worker shares the lock's file description; closing its copy leaves the parent's lock alone and keeps a
    # worker that outlives a killed parent from holding the folder.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)
