"""The lab's bars: judged by the worst seed, and written down with their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backflip.cli.main import main
from backflip.lab.demo_seeds import Settings, judge, run


def result(seed: int, **changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "seed": seed,
        "seconds": 200.0,
        "peak_rss_mb": 900.0,
        "rounds": 2,
        "gold": {"base": -0.5, "sft": -0.4, "round1": 1.0, "round2": 1.5},
        "proxy": {"base": -0.1, "sft": 0.0, "round1": 1.2, "round2": 1.9},
        "win_rate_vs_sft": {"mean": 0.9, "low": 0.86, "high": 0.94, "n": 300},
        "kl_seq_nats": 8.5,
        "kl_target_nats": 8.0,
        "rm_accuracy": 0.85,
        "unfinished_share": 0.01,
    }
    return good | changes


def test_a_good_seed_meets_every_bar() -> None:
    assert all(line.passed for line in judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seconds": 241.0}, "seconds"),
        ({"peak_rss_mb": 2049.0}, "peak memory, MB"),
        ({"gold": {"base": 0, "sft": 0.0, "round1": 1.0, "round2": 0.9}}, "smallest rise of gold"),
        ({"win_rate_vs_sft": {"mean": 0.79, "low": 0.76, "high": 0.9}}, "wins against sft"),
        ({"win_rate_vs_sft": {"mean": 0.81, "low": 0.74, "high": 0.9}}, "lower end"),
        ({"kl_seq_nats": 5.9}, "distance of KL"),
        ({"rm_accuracy": 0.79}, "reward model"),
        ({"unfinished_share": 0.06}, "unfinished"),
    ],
)
def test_one_bad_seed_misses_exactly_its_bar(changes: dict[str, Any], name: str) -> None:
    missed = [line.name for line in judge([result(0), result(1, **changes), result(2)]) if not line.passed]
    assert len(missed) == 1
    assert missed[0].startswith(name)


def test_the_experiment_reads_finished_seeds_and_writes_its_result(tmp_path: Path) -> None:
    for seed in range(2):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "result.json").write_text(json.dumps(result(seed)))
    assert run(Settings(seeds=2), tmp_path, quiet=True)
    written = json.loads((tmp_path / "result.json").read_text())
    assert len(written["figures"]["seeds"]) == 2
    assert [line["pass"] for line in written["accept"].values()] == [True] * 8
    assert "seed 1" in (tmp_path / "report.html").read_text()


def test_the_command_lists_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    assert "demo-seeds" in capsys.readouterr().out
    assert main(["lab", "run", "demo_seed"]) == 2
    assert "did you mean 'demo-seeds'" in capsys.readouterr().err
