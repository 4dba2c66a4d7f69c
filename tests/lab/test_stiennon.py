"""`stiennon`: win rates by hand, its bars, and the whole of it at a very small size, alone and with borrowed runs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import before_and_again

from backflip.errors import ConfigError
from backflip.lab import overoptimisation, stiennon
from backflip.lab.guard_recorder import Seen
from backflip.lab.stiennon_figures import by_look, by_n, chance, over_others, temperature
from backflip.runs.watching import Look


def test_chances_are_those_of_bradley_and_terry() -> None:
    assert chance(np.array([0.0, 1.0, -1.0, 50.0])) == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.e), 1.0])


def test_a_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=(4, 20_000))
    won = rng.random((4, 10_000)) < chance((proxy[:, 0::2] - proxy[:, 1::2]) / 0.4)
    gold = np.zeros_like(proxy)
    gold[:, 0::2] = won
    gold[:, 1::2] = ~won
    assert temperature(proxy, gold) == pytest.approx(0.4, rel=0.03)
    assert temperature(3 * proxy, gold) == pytest.approx(1.2, rel=0.03)


def test_wins_of_a_look_by_hand() -> None:
    look = Look(
        step=3, prompts=["b", "a"], completions=["x", "y"], proxy=[1.0, 0.0], kl=[1.0, 3.0], entropy=1.0, lengths=[1, 1],
        finished=[True, True],
    )  # fmt: skip
    proxy, gold = np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 2.0], [5.0, 6.0]])
    found = by_look([Seen(look, [5.5, 2.0])], ["a", "b"], proxy, gold, 1.0)
    assert found["kl"] == [2.0]
    # Text x beats one of the two of prompt b, y one of a and ties with the other; the proxy has both at a half.
    assert found["true"] == [pytest.approx((0.5 + 0.75) / 2)]
    assert found["predicted"] == [pytest.approx(0.5)]
    with pytest.raises(ValueError, match="has a prompt"):
        by_look([Seen(look, [5.5, 2.0])], ["a", "c"], proxy, gold, 1.0)


def test_one_draw_wins_half_and_the_best_of_all_as_often_as_it_does() -> None:
    proxy, gold = np.array([[0.0, 1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 3.0, 2.0]])
    found = by_n(proxy, gold, 0.5, 512)
    assert found["n"] == [1.0, 2.0, 4.0]
    assert (found["true"][0], found["predicted"][0]) == pytest.approx((0.5, 0.5))
    assert found["true"][-1] == pytest.approx(2 / 3)
    assert found["predicted"][-1] == pytest.approx(sum(1 / (1 + math.exp(-gap / 0.5)) for gap in (1, 2, 3)) / 3)
    assert found["predicted"] == sorted(found["predicted"])
    assert over_others(gold[0], lambda gap: 0.5 + 0.5 * np.sign(gap)) == pytest.approx([0, 1 / 3, 1, 2 / 3])


def made(true: dict[str, float], predicted: dict[str, float], kl: dict[str, float]) -> dict[str, Any]:
    """The figures of a seed of which only the ends of the runs matter."""
    return {
        "runs": {b: {"kl": [0.0, kl[b]], "true": [0.5, true[b]], "predicted": [0.5, predicted[b]]} for b in true},
        "best of n": {"predicted": [0.5, 0.7]}, "seconds": {"all": 30.0},
    }  # fmt: skip


GOOD: dict[str, dict[str, float]] = {
    "true": {"0": 0.55, "0.02": 0.7, "0.2": 0.65}, "predicted": {"0": 0.99, "0.02": 0.9, "0.2": 0.8},
    "kl": {"0": 40.0, "0.02": 10.0, "0.2": 3.0},
}  # fmt: skip


def test_bars_by_hand() -> None:
    lines = stiennon.judge([made(**GOOD)])
    assert [line.value for line in lines] == pytest.approx([0.0, 0.2, 0.15, 7.0, 0.0, 0.5])
    assert all(line.passed for line in lines)


@pytest.mark.parametrize(
    ("name", "values", "missed"),
    [
        ("predicted", {"0": 0.85, "0.02": 0.9, "0.2": 0.8}, [0]),
        ("true", {"0": 0.5, "0.02": 0.59, "0.2": 0.52}, [1]),
        ("true", {"0": 0.7, "0.02": 0.7, "0.2": 0.65}, [2]),
        ("kl", {"0": 40.0, "0.02": 3.0, "0.2": 3.5}, [0, 3]),
    ],
)
def test_bars_are_missed_by_what_they_forbid(name: str, values: dict[str, float], missed: list[int]) -> None:
    lines = stiennon.judge([made(**{**GOOD, name: values})])
    assert [i for i, line in enumerate(lines) if not line.passed] == missed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A quick run of `overoptimisation`, and one of `stiennon` that borrows from it and tries one penalty more."""
    lender, folder = tmp_path_factory.mktemp("lender"), tmp_path_factory.mktemp("stiennon")
    overoptimisation.run(overoptimisation.QUICK, lender, True)
    stiennon.run(borrowing(lender), folder, True)
    return lender, folder


def borrowing(lender: Path) -> stiennon.Settings:
    """Quick settings that read what `lender` has."""
    return dataclasses.replace(stiennon.QUICK, runs=str(lender), betas=(0.0, 0.1, 0.3))


def test_what_is_there_is_read_and_the_rest_is_made(folders: tuple[Path, Path]) -> None:
    _, folder = folders
    assert {p.name for p in (folder / "seed0").iterdir()} == {"clock.json", "ppo-16-40-0.3"}
    [seed] = json.loads((folder / "result.json").read_text())["figures"]["seeds"]
    assert list(seed["runs"]) == ["0", "0.1", "0.3"]
    for run in seed["runs"].values():
        assert run["step"] == [0.0, 2.0, 4.0]
        assert all(0 <= value <= 1 for side in ("true", "predicted") for value in run[side])
    assert seed["best of n"]["n"] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert seed["temperature"] > 0
    assert "| 0.3 |" in (folder / "tables.md").read_text()
    assert "Predicted and true win rate" in (folder / "report.html").read_text()


def test_borrowed_or_made_is_the_same(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = folders
    stiennon.run(dataclasses.replace(stiennon.QUICK, betas=(0.1,)), tmp_path, True)
    ours, theirs = (json.loads((f / "result.json").read_text())["figures"]["seeds"][0] for f in (tmp_path, folder))
    assert ours["runs"]["0.1"] == theirs["runs"]["0.1"]
    assert ours["best of n"] == theirs["best of n"]


def test_a_finished_run_is_only_told_again_and_nothing_is_written_to_the_lender(folders: tuple[Path, Path]) -> None:
    lender, folder = folders
    written = {p: p.stat().st_mtime_ns for p in [*lender.rglob("*"), *folder.rglob("*.jsonl")]}
    first, second = before_and_again(folder, lambda: stiennon.run(borrowing(lender), folder, True), "minutes in all")
    assert first == second
    assert {p: p.stat().st_mtime_ns for p in [*lender.rglob("*"), *folder.rglob("*.jsonl")]} == written


def test_a_folder_with_nothing_to_borrow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished policy"):
        stiennon.run(borrowing(tmp_path / "empty"), tmp_path / "out", True)
