"""What every test stands on: one thread for torch, no network, and the real data sets where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before anything imports torch or transformers; processes that a test starts inherit all of it. One thread keeps
# two test workers from fighting over two cores, and makes sums come out in one order.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
)

import hypothesis
import pytest

# The same examples on every run: a test that fails has failed because of a change, not because of luck.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository. Tests that use it carry the mark `realdata`."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (shared/data beside the repository) are not on this machine")
    return folder


@pytest.fixture
def cuda() -> Any:
    """The CUDA device. Tests that use it carry the mark `gpu`."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device on this machine")
    return torch.device("cuda", torch.cuda.current_device())
