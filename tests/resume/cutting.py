"""Ways to cut a job off inside one process, where a kill or a signal would."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backflip.train.learner import Learner


class Killed(BaseException):
    """Ends a job where a kill would. Not an Exception, so that nothing in backflip handles it."""


@contextmanager
def dying(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    """Expects that the job inside dies of one of these replacements, each (owner, name, what stands there instead)."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, instead in patches:
            patch.setattr(owner, name, instead)
        with pytest.raises(Killed):
            yield


@contextmanager
def cut_off(update: int) -> Iterator[None]:
    """Expects that the job inside dies just before its update of weights number `update` (from 0)."""
    with dying((Learner, "update", _before(update, die, Learner.update))):
        yield


@contextmanager
def signalled(update: int, number: signal.Signals) -> Iterator[None]:
    """The job inside gets a signal just before its update of weights number `update` (from 0)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", _before(update, lambda: signal.raise_signal(number), Learner.update))
        yield


def die(*_: Any) -> None:
    """Raise Killed, whatever is asked."""
    raise Killed


def _before(nth: int, act: Callable[[], None], real: Callable[..., Any]) -> Callable[..., Any]:
    counter = itertools.count()

    def call(self: Any, *args: Any, **named: Any) -> Any:
        if next(counter) == nth:
            act()
        return real(self, *args, **named)

    return call
