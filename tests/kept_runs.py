"""Run folders in which policies have answered the arena's prompts, without any policy."""

from __future__ import annotations

import json
from pathlib import Path

from backflip.records import Prompt, Sample


def write_run(root: Path, id: str, texts: dict[str, list[str]], *, seed: int = 0, prompts: str = "p") -> Path:
    """A run folder in which each policy has answered as many prompts as it has texts."""
    folder = root / id
    (folder / "arena").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": "rounds", "settings": {"seed": seed}}))
    for name, answers in texts.items():
        rows = [Sample(Prompt(f"{prompts}{i}"), text, policy=name).to_json() for i, text in enumerate(answers)]
        (folder / "arena" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def answers(name: str, n: int = 4) -> list[str]:
    return [f"{name} says {i}" for i in range(n)]
