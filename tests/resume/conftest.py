"""What an undisturbed job leaves, computed once for each way of calling it."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from tests.resume import job
from tests.resume.compare import snapshot


class Undisturbed(Protocol):
    """The snapshot of a job that nobody disturbed."""

    def __call__(self, kind: str, settings: Any = None, lora: int | None = None) -> dict[str, str]: ...


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    known: dict[Any, dict[str, str]] = {}

    def run(kind: str, settings: Any = None, lora: int | None = None) -> dict[str, str]:
        key = (kind, settings, lora)
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            job.perform(kind, folder, settings, lora=lora)
            known[key] = snapshot(folder)
        return known[key]

    return run
