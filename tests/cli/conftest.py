"""A tiny policy, a tiny reward model and small files of every kind, made once for all tests of the commands."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Said:
    """What a command line left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Kit:
    """Paths of a policy, a reward model and data files that fit them."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        found = [path for path in self.folder.iterdir() if path.name.split(".")[0] == name]
        assert len(found) == 1, f"no {name} in the kit"
        return str(found[0])


def words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(["the", "film", "was", "good", "bad", "dull", "plot", "cat", "dog", "sat"]) for _ in range(n))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    from tests.tiny_models import tiny

    from backflip.rewards.learned import RewardModel
    from backflip.seeds import Seeds

    folder, rng = tmp_path_factory.mktemp("kit"), random.Random(0)
    policy = tiny(name="toy")
    policy.save(folder / "policy")
    RewardModel.from_policy(policy, seeds=Seeds(0), max_length=64).save(folder / "reward")
    (folder / "raw.txt").write_text("".join(words(rng, 9) + ".\n" for _ in range(40)))
    jsonl(folder / "texts.jsonl", [{"text": words(rng, 9), "source": "made up"} for _ in range(40)])
    jsonl(folder / "demos.jsonl", [{"prompt": words(rng, 2), "completion": " " + words(rng, 3)} for _ in range(20)])
    jsonl(folder / "prompts.jsonl", [{"prompt": f"{i} {words(rng, 2)}", "number": i} for i in range(10)])
    pairs = [{"prompt": words(rng, 2), "chosen": " good" * (1 + i % 2), "rejected": " bad dull"} for i in range(30)]
    jsonl(folder / "pairs.jsonl", pairs)
    hh = "\n\nHuman: Hi {i}\n\nAssistant: {said}"
    dialogues = [{side: hh.format(i=i, said=side) for side in ("chosen", "rejected")} for i in range(8)]
    jsonl(folder / "dialogues.jsonl", dialogues)
    return Kit(folder)


@pytest.fixture
def backflip(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command line in this process: `backflip("sft", "--data", path)`."""

    def run(*argv: object) -> Said:
        from backflip.cli.main import main

        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Presses Ctrl-C when a run logs its n-th step, once."""
    from backflip.runs import Run

    log = Run.log

    def install(step: int) -> None:
        def stopping(run: Run, number: int, metrics: dict[str, float]) -> None:
            log(run, number, metrics)
            if number == step:
                monkeypatch.setattr(Run, "log", log)
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Run, "log", stopping)

    return install
