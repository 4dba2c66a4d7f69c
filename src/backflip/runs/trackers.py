"""Optional mirrors of metrics.jsonl: TensorBoard, Weights & Biases, trackio.

metrics.jsonl is the record; a tracker only repeats its lines. `Tracking` counts how many lines each tracker has been
given and keeps that count in the run folder, so a resumed run, which writes the same lines again, sends none twice and
none is missing. TensorBoard's files are local and are simply made anew.
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from backflip.config import unknown
from backflip.errors import ConfigError
from backflip.runs.atomic import storage
from backflip.runs.logs import read_lines

KNOWN = ("tensorboard", "wandb", "trackio")


class Tracker(Protocol):
    """Somewhere metrics can be looked at."""

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Show these values at this step."""

    def close(self) -> None:
        """Send what is waiting and let go."""


class TensorBoard:
    """Event files in RUN/tensorboard, written without torch or TensorFlow."""

    def __init__(self, folder: Path) -> None:
        self._event = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        with storage(f"TensorBoard files in {folder} cannot be written"):
            shutil.rmtree(folder, ignore_errors=True)
            self._writer = writer.EventFileWriter(str(folder))

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """One event with one scalar per metric."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases, named after the run folder; resumed under the same id."""

    def __init__(self, folder: Path, identity: str, kind: str, settings: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project="backflip", name=folder.name, id=identity, resume="allow", job_type=kind,
            config=dict(settings), dir=str(folder),
        )  # fmt: skip

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Send the values."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Mark the run as ended."""
        self._run.finish()


class Trackio:
    """A run in trackio, named after the run folder."""

    def __init__(self, folder: Path, identity: str, settings: Mapping[str, Any]) -> None:
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(project="backflip", name=f"{folder.name}-{identity}", resume="allow", config=dict(settings))

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Store the values."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Mark the run as ended."""
        self._run.finish()


class Tracking:
    """The trackers of one run; started with its first line of metrics.

    Raises ConfigError at once for an unknown name or a package that is not installed.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, kind: str, settings: Mapping[str, Any]) -> None:
        self._folder, self._names, self._kind, self._settings = folder, tuple(names), kind, settings
        self._trackers: dict[str, Tracker] | None = None
        self._line = 0  # lines of metrics.jsonl so far
        self._sent: dict[str, int] = {}
        for name in self._names:
            if name not in KNOWN:
                raise unknown(name, list(KNOWN), "tracker")
            try:
                importlib.import_module(name)
            except ImportError as problem:
                raise ConfigError(f"tracker {name!r} needs a package that is not installed; pip install {name}") from problem

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Pass on the line that was just added to metrics.jsonl."""
        if not self._names:
            return
        if self._trackers is None:
            self._start()  # which passes on all lines of the file, this one included
            return
        self._line += 1
        self._pass_on(self._line, step, metrics)

    def close(self) -> None:
        """Close every tracker, even when one fails."""
        trackers, self._trackers = list((self._trackers or {}).values()), None
        problems = []
        for tracker in trackers:
            try:
                tracker.close()
            except Exception as problem:  # whatever a third party raises must not keep the others open
                problems.append(problem)
        if problems:
            raise problems[0]

    def _start(self) -> None:
        stored = self._stored()
        self._identity = stored.get("id") or f"{time.time_ns():x}"
        self._sent = {name: 0 if name == "tensorboard" else stored.get("sent", {}).get(name, 0) for name in self._names}
        self._trackers = {name: self._make(name) for name in self._names}
        for row in read_lines(self._folder / "metrics.jsonl"):
            self._line += 1
            self._pass_on(self._line, row["step"], {k: v for k, v in row.items() if k != "step"})

    def _stored(self) -> dict[str, Any]:
        """Who this run is to the trackers and what they have; empty, and so a new identity, when that is not known."""
        try:
            stored = json.loads((self._folder / "trackers.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def _make(self, name: str) -> Tracker:
        if name == "tensorboard":
            return TensorBoard(self._folder / "tensorboard")
        if name == "wandb":
            return WeightsAndBiases(self._folder, self._identity, self._kind, self._settings)
        return Trackio(self._folder, self._identity, self._settings)

    def _pass_on(self, line: int, step: int, metrics: Mapping[str, int | float]) -> None:
        for name, tracker in (self._trackers or {}).items():
            if line > self._sent[name]:
                self._sent[name] = line
                if name != "tensorboard":
                    self._remember()  # before sending: after a crash a line may be missing there, never doubled
                tracker.log(step, metrics)

    def _remember(self) -> None:
        path = self._folder / "trackers.json"
        with storage(f"{path} cannot be written"):
            beside = path.with_name(".trackers.json.tmp")
            beside.write_text(json.dumps({"id": self._identity, "sent": self._sent}))
            beside.replace(path)  # not flushed to the disk: a few lines are not worth a pause at every step
