"""What a training run must remember to go on as if it had never stopped.

A checkpoint holds each model as a Hugging Face folder, the optimizer as safetensors, and `state.json`. Randomness and the
position in the data are functions of the step and need no saving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from backflip.runs import Run
from backflip.train.learner import Learner


class Restorable(Protocol):
    """A model that can write itself into a folder and take itself up again."""

    def save(self, folder: str | Path) -> None:
        """Write all weights."""

    def restore(self, folder: str | Path) -> None:
        """Read them back."""


def save(run: Run, step: int, models: Mapping[str, Restorable], learner: Learner, extra: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step`; `extra` holds whatever else the loop carries from step to step, as JSON."""
    with run.checkpoints.writing(step) as folder:
        for name, model in models.items():
            (folder / name).mkdir()
            model.save(folder / name)
        learner.save(folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": step, **extra}))


def resume(run: Run, models: Mapping[str, Restorable], learner: Learner) -> dict[str, Any]:
    """Load the newest good checkpoint into models and optimizer and return its `extra` with "step".

    Without a checkpoint nothing is loaded and the step is 0. Logs are cut back to the same step either way.
    """
    found = run.resume()
    if found is None:
        return {"step": 0}
    for name, model in models.items():
        model.restore(found.path / name)
    learner.load(found.path / "optimizer.safetensors")
    state: dict[str, Any] = json.loads((found.path / "state.json").read_text())
    return state
