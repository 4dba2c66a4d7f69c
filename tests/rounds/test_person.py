"""A scripted person teaches two rounds through the studio's web API (`python -m tests.rounds.person` is the long form)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.rounds.person import PAIRS, Person, Taught, rises, stored, teach, write
from tests.tiny_rounds import LOOP, SAMPLING, STAGE, TINY

from backflip.cli.main import main
from backflip.config import from_dict, to_yaml
from backflip.job_settings import RoundsJob
from backflip.maths.ratings import WinRate
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews

TRAIN = {
    **LOOP, "comparisons": 120, "verify": 24, "arena_prompts": 40, "kl_budget": 8.0,
    "sampling": {**SAMPLING, "max_new_tokens": 12},
    "reward": {"batch_size": 16, "epochs": 8.0, "max_length": 64, "normalization_samples": 16, "optim": {"learning_rate": 3e-3}},
    "ppo": {
        "steps": 12, "batch_size": 32, "ppo_epochs": 2, "kl_coef": 0.02, "save_every": 6, "missing_penalty": None,
        "sampling": {**SAMPLING, "max_new_tokens": 12, "ignore_eos": True}, "optim": {"learning_rate": 3e-3},
    },
}  # fmt: skip


def length(prompt: str, text: str) -> float:
    """A taste that a tiny policy can learn: the more letters, the better."""
    return len(text)


def settings_in(folder: Path, **train: Any) -> Path:
    """The settings of a job in `folder`, as a file."""
    prompts, settings = ({"prompt": f"the film number {i} was"} for i in range(140)), folder / "job.yaml"
    texts = ({"text": text} for text in Reviews().corpus(400, Seeds(0)))
    given = {
        "policy": "tiny", "tiny": TINY, "pretrain": {**STAGE, "max_steps": 60, "batch_size": 16}, "train": {**TRAIN, **train},
    }  # fmt: skip
    files = {"data": write(folder / "prompts.jsonl", prompts), "texts": write(folder / "texts.jsonl", texts)}
    settings.write_text(to_yaml(from_dict(RoundsJob, {**given, **files, "output": str(folder / "run")})))
    return settings


def test_a_person_answers_two_rounds_over_http_and_is_served_better(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    found = teach(lambda: main(["rounds", "--config", str(settings), "--quiet"]), tmp_path / "run", length)
    assert found.starts == 6, "it waited for two rounds' questions, for two verifications and for the arena"
    assert set(found.keys) == stored(tmp_path / "run")
    assert set(found.rates) == set(PAIRS)
    assert rises(found.rates), found.rates
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["final"] == "round2"
    assert [decision["kept"] for decision in result["decisions"]] == ["round1", "round2"]
    assert result["labeler"] == "human"


def test_one_command_opens_the_studio_and_waits_there(tmp_path: Path) -> None:
    settings, said = settings_in(tmp_path, rounds=1, comparisons=24, verify=0, arena_prompts=10), tmp_path / "said.txt"
    command = [sys.executable, "-m", "backflip", "rounds", "--config", str(settings), "--quiet", "--studio", "--no-browser"]
    with said.open("w") as out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out) as process:
        person, keys = None, list[str]()
        try:
            while process.poll() is None:
                links = [line.strip() for line in said.read_text().splitlines() if "signin#" in line]
                if person is None and links:
                    person = Person(links[0], length, 0.0)
                if person is not None:
                    with contextlib.suppress(OSError):  # the studio ends before the command does
                        keys += person.answer_everything()
                time.sleep(0.1)
        finally:
            process.kill()
    assert process.returncode == 0, said.read_text()
    assert len(keys) >= 24
    assert set(keys) == stored(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["final"] == "round1"


def test_a_studio_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_in(tmp_path)
    assert main(["rounds", "--config", str(settings), "--labeler", "recorded", "--studio"]) == 2
    assert "--studio opens pages for people, and recorded answers here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_rising_means_more_than_half_and_then_no_less() -> None:
    def after(first: float, second: float) -> Taught:
        rates = (WinRate(first, 0, 1, 9), WinRate(second, 0, 1, 9), WinRate(0.5, 0, 1, 9))
        return Taught([], 1, dict(zip(PAIRS, rates, strict=True)))

    assert rises(after(0.6, 0.6).rates)
    assert not rises(after(0.6, 0.55).rates)
    assert not rises(after(0.5, 0.9).rates)
