"""Run folders: settings, logs, checkpoints, progress, trackers and reports. Imports no torch."""

from backflip.runs.checkpoints import Checkpoint, Checkpoints, verify
from backflip.runs.run import Run, set_aside

__all__ = ["Checkpoint", "Checkpoints", "Run", "set_aside", "verify"]
