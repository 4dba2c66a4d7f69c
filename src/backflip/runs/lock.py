"""One process per run folder.

The lock is the kernel's (`flock`): it ends with the process that holds it, however that process ends, so a killed run
leaves no stale lock behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path

from backflip.errors import ConfigError
from backflip.runs.atomic import storage

NAME = ".lock"
_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """The lock on `folder`, held from construction until `release`.

    Raises ConfigError when another process holds it, StorageError when the file system cannot lock.
    """

    def __init__(self, folder: Path) -> None:
        with storage(f"run folder {folder} cannot be locked"):
            self._fd: int | None = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                self.release()
                if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
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


def _let_go_in_child() -> None:
    # A forked worker shares the lock's file description; closing its copy leaves the parent's lock alone and keeps a
    # worker that outlives a killed parent from holding the folder.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)
