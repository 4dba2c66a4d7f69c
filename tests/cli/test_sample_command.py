"""`backflip sample`: what a policy writes, on the screen or in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SHORT = ("--max-new-tokens", 4)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_of_samples_is_read_back(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.feedback.readers import read_demonstrations, read_prompts
    from backflip.rewards import RewardModel

    path = tmp_path / "samples.jsonl"
    given = ("--policy", kit.policy, "--data", kit.prompts, "--output", path)
    said = backflip("sample", *given, "--n", 2, "--max-rows", 3, "--reward", kit.reward, *SHORT)
    assert (said.code, said.out, said.err) == (0, f"6 completions of 3 prompts in {path}\n", "")
    rows = lines(path)
    asked = [p.text for p in read_prompts(kit.prompts)[:3]]
    assert [row["prompt"] for row in rows] == [text for text in asked for _ in range(2)]
    assert [row["number"] for row in rows] == [0, 0, 1, 1, 2, 2], "the other columns of a prompt's row stay"
    assert all(1 <= row["tokens"] <= 4 and row["policy"] == "policy" for row in rows)
    scores = RewardModel.load(kit.reward)([r["prompt"] for r in rows], [r["completion"] for r in rows])
    assert [row["reward"] for row in rows] == pytest.approx(scores, abs=1e-5)
    assert [d.completion for d in read_demonstrations(path)] == [row["completion"] for row in rows]


def test_the_seed_decides(kit: Any, backflip: Any, tmp_path: Path) -> None:
    def drawn(name: str, seed: int, *more: object) -> list[str]:
        given = ("--policy", kit.policy, "--data", kit.prompts, "--output", tmp_path / name)
        assert backflip("sample", *given, "--seed", seed, *SHORT, *more).code == 0
        return [row["completion"] for row in lines(tmp_path / name)]

    assert drawn("a", 1) == drawn("b", 1) != drawn("c", 2)
    greedy = [drawn(name, seed, "--temperature", 1e-4) for name, seed in (("d", 1), ("e", 2))]
    assert greedy[0] == greedy[1]


def test_messages_stay_messages(kit: Any, backflip: Any, tmp_path: Path) -> None:
    path, asked = tmp_path / "s.jsonl", [{"role": "user", "content": "Hi"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": [*asked, {"role": "assistant", "content": "Ho"}]}))
    assert backflip("sample", "--policy", kit.policy, "--data", tmp_path / "p.jsonl", "--output", path, *SHORT).code == 0
    assert lines(path)[0]["prompt"] == asked


def test_the_screen_shows_texts_as_they_are(kit: Any, backflip: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("the [bold]film[/bold] [/] was\n")
    given = ("--policy", kit.policy, "--data", tmp_path / "p.txt", "--n", 2)
    said = backflip("sample", *given, "--reward", kit.reward, *SHORT)
    assert said.code == 0
    assert "the [bold]film[/bold] [/] was" in said.out
    shown = [line for line in said.out.splitlines() if line.startswith("→")]
    assert len(shown) == 2
    assert all(", reward " in line for line in shown)
    assert "reward" not in backflip("sample", *given, *SHORT).out


def test_a_failure_leaves_the_old_file(kit: Any, backflip: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("old\n")
    said = backflip("sample", "--policy", kit.policy, "--data", kit.prompts, "--output", path, "--max-new-tokens", 60)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "max_new_tokens" in said.err
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["s.jsonl"]
    said = backflip("sample", "--policy", kit.policy, "--data", kit.prompts, "--output", tmp_path / "no" / "s.jsonl")
    assert (said.code, said.err.count("\n")) == (2, 1)
