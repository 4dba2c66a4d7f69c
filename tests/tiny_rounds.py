"""Settings with which a whole rounds job takes a second or two, as flags and as a job."""

from __future__ import annotations

from pathlib import Path

from backflip.config import from_dict
from backflip.job_settings import RoundsJob

SAMPLING = {"max_new_tokens": 6, "temperature": 1.0}
LOOP = {
    "rounds": 2,
    "comparisons": 8,
    "arena_prompts": 5,
    "sampling": SAMPLING,
    "reward": {"batch_size": 4, "max_length": 48, "normalization_samples": 8, "optim": {"learning_rate": 1e-3}},
    "ppo": {
        "steps": 2,
        "batch_size": 4,
        "ppo_epochs": 1,
        "save_every": 1,
        "overlong": "truncate",
        "query_length": 40,
        "sampling": {**SAMPLING, "ignore_eos": True},
        "optim": {"learning_rate": 1e-3},
    },
}
TINY = {"vocabulary": 300, "hidden_size": 32, "layers": 2, "heads": 2, "context": 64}
STAGE = {"max_steps": 3, "batch_size": 4, "max_length": 64, "save_every": 2}


def loop_job(policy: Path, data: Path, output: Path, **changes: object) -> RoundsJob:
    """Two rounds on a policy and a file of prompts; people answer unless `labeler` says otherwise."""
    return from_dict(RoundsJob, {"policy": str(policy), "data": str(data), "output": str(output), "train": LOOP, **changes})


def recorded_job(comparisons: Path, output: Path, **changes: object) -> RoundsJob:
    """A tiny policy made from recorded comparisons, one round on them."""
    values = {
        "policy": "tiny",
        "comparisons": str(comparisons),
        "demonstrations": str(comparisons),
        "output": str(output),
        "labeler": "recorded",
        "tiny": TINY,
        "pretrain": STAGE,
        "finetune": STAGE,
        "train": {**LOOP, "rounds": 1, "sentinel": 0.5},
    }
    return from_dict(RoundsJob, {**values, **changes})
