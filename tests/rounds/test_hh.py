"""The path of recipes/hh_tiny.yaml on forty of its real dialogues, everything else as small as it goes."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from backflip.config import from_dict, read_yaml
from backflip.job_settings import RoundsJob
from backflip.rounds.job import rounds

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "hh_tiny.yaml"


@pytest.mark.realdata
def test_forty_real_dialogues(shared_data: Path, tmp_path: Path) -> None:
    with gzip.open(shared_data / "hh_harmless.jsonl.gz", "rt") as lines:
        rows = [next(lines) for _ in range(40)]
    data = tmp_path / "hh.jsonl"
    data.write_text("".join(rows))
    job = from_dict(RoundsJob, read_yaml(RECIPE))
    train = job.train
    small = dataclasses.replace(
        job,
        comparisons=str(data),
        demonstrations=str(data),
        output=str(tmp_path / "run"),
        tiny=dataclasses.replace(job.tiny, vocabulary=512, hidden_size=32, layers=2, heads=2),
        pretrain=dataclasses.replace(job.pretrain, max_steps=3),
        finetune=dataclasses.replace(job.finetune, max_steps=2),
        train=dataclasses.replace(
            train,
            arena_prompts=10,
            sampling=dataclasses.replace(train.sampling, max_new_tokens=16),
            reward=dataclasses.replace(train.reward, batch_size=8, normalization_samples=8),
            ppo=dataclasses.replace(
                train.ppo, steps=2, batch_size=8, sampling=dataclasses.replace(train.ppo.sampling, max_new_tokens=16)
            ),
        ),
    )
    page = rounds(small, quiet=True)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    quality = result["reward_model"]
    assert quality["n"] == 10
    shorter = [bar(json.loads(row)) for row in rows[-10:]]
    assert quality["shorter_accuracy"] == pytest.approx(sum(shorter) / 10)
    assert quality["accuracy_low"] <= quality["accuracy"] <= quality["accuracy_high"]
    assert result["comparisons"] == 30
    assert len(json.loads((tmp_path / "run" / "report.json").read_text())["samples"]) == 10
    assert "Shorter reply right" in page.read_text()


def bar(row: dict[str, str]) -> float:
    """1 where the preferred dialogue is the shorter one, half where both are as long."""
    return 0.5 if len(row["chosen"]) == len(row["rejected"]) else float(len(row["chosen"]) < len(row["rejected"]))
