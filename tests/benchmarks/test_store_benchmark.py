"""The store's benchmark: as many judgements as were asked for, each timed, and all of them in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from backflip.store import Store


def test_every_judgement_is_timed_and_stored(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    found = script("store").measure(tmp_path / "feedback.db", producers=3, each=4, answered=5)
    assert (found.n, len(found.answer_ms), len(found.claim_ms)) == (12, 12, 12)
    assert 0 < min(found.answer_ms) <= max(found.answer_ms) < 1000 * found.seconds
    assert " judgements/s (12 in " in str(found)
    with Store(tmp_path / "feedback.db", read_only=True) as store:
        assert store.verify().verdicts == 17
