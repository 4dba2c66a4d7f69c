"""What experiments share: the examples of a base model, measurements that are made once, one line for several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backflip.lab import stages
from backflip.lab.outcome import at_least
from backflip.lab.telling import band, bars
from backflip.records import Prompt
from backflip.seeds import Seeds
from backflip.settings import SFT, Tiny

WORDS = ("a", "b", "c")
TINY = Tiny(hidden_size=16, layers=1, heads=2, context=16)


def examples(monkeypatch: pytest.MonkeyPatch, folder: Path, settings: SFT) -> list[tuple[list[int], list[int]]]:
    """What the base model would learn from two rows, its ids counted from the first word's."""
    got: list[Any] = []

    def record(folder: Path, settings: SFT, start: Any, examples: Any, **_: Any) -> Path:
        policy = start()
        first = policy.tokenizer("a")["input_ids"][0]
        got.extend(tuple([i - first for i in ids] for ids in row) for row in examples(policy))
        return folder

    monkeypatch.setattr(stages, "supervised", record)
    rows = [(Prompt("ab"), "c"), (Prompt("c"), "ba")]
    assert stages.pretrained(folder, TINY, WORDS, lambda: rows, settings, Seeds(0), True) == folder
    return got


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SFT(), [([0, 1], [2, -1]), ([2], [1, 0, -1])]),
        (SFT(loss_on_prompt=True), [([0], [1, 2, -1]), ([2], [1, 0, -1])]),
        (SFT(max_length=3), [([0, 1], [2]), ([2], [1, 0])]),
    ],
)
def test_a_base_model_learns_from_these_examples(
    settings: SFT, expected: list[tuple[list[int], list[int]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert examples(monkeypatch, tmp_path, settings) == expected


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "measured" / "before.json"
    assert stages.kept(path, lambda: {"rate": 0.5, "name": "ä"}) == {"rate": 0.5, "name": "ä"}
    assert stages.kept(path, lambda: {"rate": 1.0}) == {"rate": 0.5, "name": "ä"}


def test_metrics_are_read_under_our_names(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kl/seq": 0.5}\n{"step": 2, "kl/seq": 1}\n')
    (tmp_path / "timings.jsonl").write_text('{"step": 1, "rollout": 1.5}\n{"step": 2, "rollout": 2, "update": 0.5}\n')
    assert stages.columns(tmp_path, {"step": "step", "kl": "kl/seq", "none": "gone"}) == {"step": [1, 2], "kl": [0.5, 1]}
    assert stages.seconds(tmp_path) == 4.0


def test_several_seeds_are_one_line_with_a_band() -> None:
    line = band("hack rate", [1, 2], [[0.0, 1.0], [0.5, 0.5]])
    assert (line.ys, line.low, line.high) == ([0.25, 0.75], [0.0, 0.5], [0.5, 1.0])
    [figure] = bars([at_least("gain", -0.5, 0.0)])
    assert (figure.label, figure.value, figure.note) == ("gain", "−0.5", "bar ≥ 0: MISSED")
