"""The folder of one run: what it was asked to do, what it logged, where it can go on, what came out.

    run.json        kind, versions and settings: what makes a run the same run
    settings.yaml   the settings for people; `--config RUN/settings.yaml` starts another like it
    matmul.json     who multiplies its matrices, measured when it began
    metrics.jsonl   one line per step; only values that a rerun reproduces
    timings.jsonl   seconds per step and part
    samples.jsonl   what the policy wrote
    checkpoints/    see `checkpoints`
    result.json     there when the run is finished
    control.json    there while someone asks the run to pause or to stop; see `control`

A line of step k describes the k-th update, so the checkpoint of step N goes with all lines of step ≤ N, and a run that
resumes from it cuts off the rest. After any interruption the logs are byte for byte those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from backflip import __version__
from backflip.config import difference, to_dict
from backflip.errors import ConfigError, Interrupted, NumericsError
from backflip.runs.atomic import storage, write_atomic
from backflip.runs.checkpoints import Checkpoint, Checkpoints
from backflip.runs.control import Control, is_control
from backflip.runs.lock import NAME as LOCK
from backflip.runs.lock import FolderLock
from backflip.runs.logs import JsonLog, numbers, read_object
from backflip.runs.progress import Bar, progress
from backflip.runs.signals import Stopper
from backflip.runs.trackers import Tracking

FORMAT = 1
MATMUL = "matmul.json"


class Run:
    """One run folder, open for writing. Made by `Run.open`; used as `with Run.open(…) as run:`."""

    def __init__(
        self, folder: Path, kind: str, settings: dict[str, Any], lock: FolderLock, *, quiet: bool, keep: int,
        trackers: Sequence[str],
    ) -> None:  # fmt: skip
        self.folder = folder
        self.kind = kind
        self.settings = settings
        self.quiet = quiet
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=keep, sync=self.sync, warn=self.say)
        self._lock = lock
        self._metrics = JsonLog(folder / "metrics.jsonl")
        self._timings = JsonLog(folder / "timings.jsonl")
        self._samples = JsonLog(folder / "samples.jsonl")
        self._stopper = Stopper(quiet)
        self._control = Control(folder)
        self._control.forget_the_past()
        self._tracking = Tracking(folder, trackers, kind=kind, settings=settings)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        kind: str,
        settings: Any,
        quiet: bool = False,
        keep: int = 2,
        trackers: Sequence[str] = (),
    ) -> Run:
        """Start a run in `folder`, or go on with the one that is there.

        `settings` is a settings dataclass or a plain mapping; `keep` is how many checkpoints stay; `trackers` are
        names of `trackers.KNOWN`. A run that wrote nothing yet takes new settings, so that a mistake in the first ones
        can be put right. Raises ConfigError when the folder is in use, holds a run of another kind or with other
        settings, or holds files that are not a run's; StorageError when it cannot be written.
        """
        folder = Path(folder)
        plain = _plain_settings(settings)
        with storage(f"run folder {folder} cannot be made"):
            folder.mkdir(parents=True, exist_ok=True)
            known = (folder / "run.json").exists()
            if not known:
                _refuse_strangers(folder)
        lock = FolderLock(folder)
        try:
            old = _card(folder) if known else None
            begun = old is not None and _begun(folder)
            if old is not None and begun:
                _same_run(folder, old, kind, plain)
            else:
                card = {"kind": kind, "format": FORMAT, "version": __version__, "settings": plain}
                write_atomic(folder / "run.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
            if not begun or not (folder / "settings.yaml").exists():
                write_atomic(folder / "settings.yaml", _yaml(plain))
            return cls(folder, kind, plain, lock, quiet=quiet, keep=keep, trackers=trackers)
        except BaseException:
            lock.release()
            raise

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / "result.json").exists()

    @property
    def result(self) -> dict[str, Any]:
        """What `finish` was given. Raises DataError when the run is not finished or the file is damaged."""
        return read_object(self.folder / "result.json")

    def resume(self) -> Checkpoint | None:
        """The checkpoint to go on from, the logs cut to it; None (and empty logs) for a run without one.

        Raises CheckpointError when there are checkpoints and none verifies.
        """
        found = self.checkpoints.latest()
        self.rewind(found.step if found else -1)
        return found

    def rewind(self, step: int) -> None:
        """Forget everything after `step`: later checkpoints first, then later lines of every log."""
        self.checkpoints.drop_after(step)
        for log in (self._metrics, self._timings, self._samples):
            log.rewind(step)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add a line of metrics. Only values a rerun reproduces belong here: times go to `time`.

        Raises NumericsError when a value is not finite, StorageError when the disk refuses.
        """
        row = numbers(step, metrics)
        self._metrics.append(step, [row])
        self._tracking.log(step, row)

    def time(self, step: int, seconds: Mapping[str, float]) -> None:
        """Add the seconds that the parts of a step took."""
        self._timings.append(step, [numbers(step, seconds, "time")])

    def samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add what the policy wrote: rows of JSON values, such as `prompt`, `completion` and named rewards."""
        self._samples.append(step, rows)

    def sync(self) -> None:
        """Return when every log line is on the disk."""
        for log in (self._metrics, self._timings, self._samples):
            log.sync()

    def progress(self, total: int, description: str, done: int = 0) -> contextlib.AbstractContextManager[Bar]:
        """A progress display; `bar.advance(**metrics)` after each step."""
        return progress(total, description, done=done, quiet=self.quiet)

    def say(self, text: str) -> None:
        """One line for the person at the terminal, on standard error; nothing when quiet."""
        if not self.quiet:
            print(f"{self.folder.name}: {text}", file=sys.stderr, flush=True)

    @property
    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM came or someone asked to stop: finish the step, save, and call `interrupted`."""
        self._control.look()
        return self._ending()

    @property
    def asked(self) -> bool:
        """Whether the run is to stop or to pause: finish the step, save, and call `obey`. Looked up once a step."""
        return self.stopping or self._control.pausing is not None

    def obey(self, step: int | None = None, *, where: str | None = None) -> None:
        """Do what was `asked`: wait while the run is paused, leave with Interrupted where it is to stop.

        A loop calls it after `step` and, unless that step is saved, nothing happens: whoever waits for hours may be
        killed meanwhile. Between two stages, at `where`, there is no step to save.
        """
        if step is None:
            self._control.look()
        elif self.checkpoints.last_step != step:
            return
        if not self._ending():
            self._control.wait(self.say, lambda: self._stopper.received is not None)
        if self._ending():
            self.interrupted(where=where)

    def _ending(self) -> bool:
        return self._stopper.received is not None or self._control.stop is not None

    def interrupted(self, hint: str = "run the same command again to go on", *, where: str | None = None) -> NoReturn:
        """Leave the run with Interrupted, saying at which saved step (or `where`) it stands, who asked, and how to go on.

        The exit code is 130 after Ctrl-C and 143 after SIGTERM, as shells and schedulers expect; a person's wish counts
        as SIGTERM.
        """
        step, wish = self.checkpoints.last_step, self._control.stop
        where = where or ("before its first checkpoint" if step is None else f"at step {step}")
        error = Interrupted(f"stopped {where}{f' because {wish.by} asked' if wish is not None else ''}; {hint}")
        error.exit_code = 128 + (self._stopper.received or (signal.SIGINT if wish is None else signal.SIGTERM))
        raise error

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, whole or not at all; from then on the run is `finished`."""
        try:
            text = json.dumps(dict(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except ValueError as problem:
            raise NumericsError(f"the result of {self.folder} holds a value that is not finite: {problem}") from problem
        self.sync()
        write_atomic(self.folder / "result.json", text)

    def close(self) -> None:
        """Close logs and trackers and let another process have the folder."""
        try:
            self._tracking.close()
        finally:
            for log in (self._metrics, self._timings, self._samples):
                log.close()
            self._control.leave(finished=self.finished)
            self._lock.release()

    def __enter__(self) -> Self:
        self._stopper.install()
        self._control.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        finally:
            self._stopper.restore()


def set_aside(folder: str | Path) -> Path | None:
    """Rename a run folder to the first free of FOLDER.1, FOLDER.2, …; None when there is nothing to move.

    Raises ConfigError when a process is using the run or the folder is not a run's.
    """
    folder = Path(folder)
    if not folder.exists():
        return None
    if not (folder / "run.json").exists():
        raise ConfigError(f"{folder} is not a run folder and stays where it is; choose another folder")
    lock = FolderLock(folder)
    try:
        number = 1
        while os.path.lexists(f"{folder}.{number}"):
            number += 1
        with storage(f"run folder {folder} cannot be set aside"):
            return folder.rename(f"{folder}.{number}")
    finally:
        lock.release()


def _plain_settings(settings: Any) -> dict[str, Any]:
    """Settings as they come back from JSON, so that comparing with a stored run is exact."""
    values = to_dict(settings) if dataclasses.is_dataclass(settings) else dict(settings)
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def _yaml(plain: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _refuse_strangers(folder: Path) -> None:
    """A folder without run.json must be empty, apart from what an attempt killed at its very start leaves."""
    names = (p.name for p in folder.iterdir())
    debris = (n for n in names if n != LOCK and not is_control(n))
    strangers = sorted(n for n in debris if not (n.startswith(".run.json.") and n.endswith(".tmp")))
    if strangers:
        raise ConfigError(
            f"{folder} holds files that are not a run's ({', '.join(strangers[:3])}{', …' if strangers[3:] else ''}); "
            f"choose a new or an empty folder"
        )


def _begun(folder: Path) -> bool:
    """Whether the run left anything but its own card."""
    own = ("run.json", "settings.yaml", MATMUL, LOCK)
    return any(p.name not in own and not is_control(p.name) for p in folder.iterdir() if p.suffix != ".tmp")


def _card(folder: Path) -> dict[str, Any]:
    card = read_object(folder / "run.json")
    if card.get("format") != FORMAT or not isinstance(card.get("settings"), dict):
        raise ConfigError(
            f"{folder} was written by backflip {card.get('version', '?')} in a format this version does not read; "
            f"choose another folder"
        )
    return card


def _same_run(folder: Path, card: dict[str, Any], kind: str, settings: dict[str, Any]) -> None:
    if card.get("kind") != kind:
        raise ConfigError(f"{folder} holds a {card.get('kind')} run, not a {kind} run; choose another folder")
    changed = difference(card["settings"], settings)
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); give the same settings to go on, "
            f"or choose another folder"
        )
