"""A sandbox for each way of confining, or the reason why there is none here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest

from backflip.errors import SandboxError
from backflip.sandbox import Sandbox, landlock

CONFINEMENTS = ("bubblewrap", "landlock", "bubblewrap without Landlock", "the first Landlock")
"""Both drivers as they are here, and each with what an old kernel lacks."""

PRELOAD = ("ctypes", "json", "socket")


@contextmanager
def older_kernel(abi: int) -> Iterator[None]:
    """As if the kernel had a Landlock no newer than this (0: none)."""
    with mock.patch.object(landlock, "abi", return_value=min(abi, REAL_ABI)):
        yield


REAL_ABI = landlock.abi()


def confinement(name: str) -> Sandbox:
    """The sandbox of one of the confinements; skips the test where it cannot be."""
    with ExitStack() as stack:
        if name == "bubblewrap without Landlock":
            stack.enter_context(older_kernel(0))
        elif name == "the first Landlock":
            stack.enter_context(older_kernel(1))
        try:
            return Sandbox(driver="bubblewrap" if "bubblewrap" in name else "landlock", preload=PRELOAD)
        except SandboxError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Callable[[str], Sandbox]]:
    """Makes each sandbox once for a module and ends them all after it."""
    made: dict[str, Sandbox] = {}
    reasons: dict[str, str] = {}

    def get(name: str) -> Sandbox:
        if name in reasons:
            pytest.skip(reasons[name])
        if name not in made:
            try:
                made[name] = confinement(name)
            except pytest.skip.Exception as skipped:
                reasons[name] = str(skipped)
                raise
        return made[name]

    yield get
    for sandbox in made.values():
        sandbox.close()


@pytest.fixture(scope="module")
def sandbox(sandboxes: Callable[[str], Sandbox]) -> Sandbox:
    """The strongest sandbox there is here."""
    try:
        return sandboxes("bubblewrap")
    except pytest.skip.Exception:
        return sandboxes("landlock")
