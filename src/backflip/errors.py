"""Every error backflip raises on purpose, drawn as one tree.

The command line prints the message of a `BackflipError` as one sentence and leaves with its `exit_code`; a
traceback means a bug in backflip. A message says what was wrong, where (file, line, row), and what to do.

    BackflipError
    ├── UserError          something the person gave is wrong
    │   ├── ConfigError    a setting: unknown name, wrong type, out of range, changed under a running run
    │   ├── DataError      a file or a row: missing, malformed, empty, without a column
    │   └── ModelError     a model folder or tokenizer that cannot be used
    ├── StorageError       the disk: full, unwritable
    │   ├── FullDiskError    it has no room
    │   ├── BusyError        somebody else is writing for too long; trying again is right
    │   └── CheckpointError  a checkpoint that does not verify
    ├── NumericsError      a loss, gradient, reward or ratio that cannot be right
    │   └── NonFiniteError   infinite or not a number; the step can be skipped
    ├── SandboxError       code a model wrote cannot be run safely here, or its sandbox broke
    └── Interrupted        the person stopped the run; it can be resumed
"""

from __future__ import annotations


class BackflipError(Exception):
    """Root of the tree. `exit_code` is what the command line leaves with."""

    exit_code = 2


class UserError(BackflipError):
    """Something the person gave cannot be used."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or differs from those of the run being resumed."""


class DataError(UserError):
    """A data file or row cannot be used; the message names the file and, where there is one, the line."""


class ModelError(UserError):
    """A model folder or tokenizer cannot be used."""


class StorageError(BackflipError):
    """The disk refused: full, read-only or not permitted."""


class FullDiskError(StorageError):
    """The disk has no room; nothing was written."""


class BusyError(StorageError):
    """Another process has been writing for too long; nothing was written, and trying again is right."""


class CheckpointError(StorageError):
    """A checkpoint is incomplete or its bytes differ from its manifest."""


class NumericsError(BackflipError):
    """A loss, gradient, reward or probability ratio is not finite or breaks an invariant."""


class NonFiniteError(NumericsError):
    """A loss, gradient, reward or log-probability is infinite or not a number; nothing was changed by it."""


class SandboxError(BackflipError):
    """No sandbox works on this machine, or one broke while it ran something; whatever it ran has no result."""


class Interrupted(BackflipError):
    """The person asked the run to stop (Ctrl-C, SIGTERM or a wish in its folder); its state is saved and it can go on."""

    exit_code = 130
