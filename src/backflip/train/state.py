"""What a training run must remember to go on as if it had never stopped.

A checkpoint holds each model as a Hugging Face folder, the optimizer as safetensors, and `state.json`. Randomness and the
position in the data are functions of the step and need no saving. What a run was begun with and does not save (the
reference, the data, the seed) must be given again on resume; fingerprints in `state.json` refuse anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from backflip.errors import ConfigError
from backflip.policies.language import LanguagePolicy
from backflip.runs import Run
from backflip.train.learner import Learner


class Restorable(Protocol):
    """A model that can write itself into a folder and take itself up again."""

    def save(self, folder: str | Path) -> None:
        """Write all weights."""

    def restore(self, folder: str | Path) -> None:
        """Read them back."""


Inputs = Mapping[str, str | int]
"""What a run was begun with: a name for the person, and a fingerprint."""


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, in the order of their names: every bit of them counts."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen_weights(policy: LanguagePolicy) -> str:
    """Fingerprint of the weights that training leaves alone, and a checkpoint therefore leaves out."""
    return fingerprint((name, p) for name, p in policy.model.named_parameters() if not p.requires_grad)


def save(
    run: Run, step: int, models: Mapping[str, Restorable], learner: Learner, extra: Mapping[str, Any], *, inputs: Inputs
) -> None:
    """Write the checkpoint of `step`; `extra` holds whatever else the loop carries from step to step, as JSON."""
    with run.checkpoints.writing(step) as folder:
        for name, model in models.items():
            (folder / name).mkdir()
            model.save(folder / name)
        learner.save(folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": step, "inputs": dict(inputs), **extra}))


def resume(run: Run, models: Mapping[str, Restorable], learner: Learner, *, inputs: Inputs) -> dict[str, Any]:
    """Load the newest good checkpoint into models and optimizer and return its `extra` with "step".

    Without a checkpoint nothing is loaded and the step is 0. Logs are cut back to the same step either way. Raises
    ConfigError, models and optimizer untouched, when the run was begun with other `inputs`.
    """
    found = run.resume()
    if found is None:
        return {"step": 0}
    state: dict[str, Any] = json.loads((found.path / "state.json").read_text())
    changed = [name for name, value in inputs.items() if state["inputs"].get(name) != value]
    if changed:
        raise ConfigError(
            f"the run in {run.folder} cannot go on, for its {' and its '.join(changed)} changed since it began; "
            "give what it was begun with, or choose another folder"
        )
    for name, model in models.items():
        model.restore(found.path / name)
    learner.load(found.path / "optimizer.safetensors")
    return state
