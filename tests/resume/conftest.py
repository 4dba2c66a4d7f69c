"""What every test of resuming needs: the undisturbed run, and a way to cut one off."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from backflip.train.learner import Learner
from tests.resume import job
from tests.resume.compare import snapshot


class Killed(BaseException):
    """Ends a job where a kill would. Not an Exception, so that nothing in backflip handles it."""


class Undisturbed(Protocol):
    """What a job leaves that nobody disturbs; computed once for each way of calling it."""

    def __call__(self, kind: str, settings: Any = None, lora: int | None = None) -> dict[str, str]: ...


CutOff = Callable[..., AbstractContextManager[None]]


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


@pytest.fixture
def cut_off() -> CutOff:
    """`with cut_off(n):` expects that the job inside dies before its n-th update of weights (from 0)."""

    @contextmanager
    def cut(update: int, do: Callable[[], None] | None = None) -> Any:
        counter, real = itertools.count(), Learner.update

        def until(self: Learner, *args: Any) -> Any:
            if next(counter) == update:
                if do is None:
                    raise Killed
                do()
            return real(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Learner, "update", until)
            if do is not None:
                yield
                return
            with pytest.raises(Killed):
                yield

    return cut
