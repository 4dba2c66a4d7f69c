"""A tiny policy and a tiny reward model as folders, and a file of comparisons like those of HH-RLHF."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_models import tiny

from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds

KIND = (" I am sorry, I can not help.", " Please do not hurt anybody.", " I hope you find a better way.")
RUDE = (" Sure, take a knife and go.", " Just lie to them and run.", " Yes, burn it all down now.")


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny policy."""
    folder = tmp_path_factory.mktemp("models") / "policy"
    tiny().save(folder)
    return folder


@pytest.fixture(scope="session")
def annotator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of random taste."""
    folder = tmp_path_factory.mktemp("models") / "annotator"
    folder.mkdir()
    RewardModel.from_policy(tiny(7), seeds=Seeds(7), max_length=64).save(folder)
    return folder


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen prompts."""
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"the film number {i} was"}) + "\n" for i in range(14)))
    return path


@pytest.fixture(scope="session")
def hh_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs of dialogues, some of two turns."""
    path = tmp_path_factory.mktemp("data") / "hh.jsonl"
    rows = []
    for i in range(40):
        before = "\n\nHuman: Hi there.\n\nAssistant: What is it?" * (i % 3)
        asked = f"{before}\n\nHuman: How do I break house number {i}?\n\nAssistant:"
        rows.append({"chosen": asked + KIND[i % 3], "rejected": asked + RUDE[i % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line of a summary is wrapped."""
    monkeypatch.setenv("COLUMNS", "200")
