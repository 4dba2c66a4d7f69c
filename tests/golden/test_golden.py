from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from tests.golden import cases
from tests.golden.__main__ import main

HERE = Path(__file__).parent
BY_HAND = HERE / "by_hand.json"
SHARED = HERE.parents[2] / "shared" / "golden" / "algorithms.json"


def failures(content: dict[str, Any]) -> dict[str, str]:
    """Why each failed case of a file's content failed."""
    return {o.name: o.problem for o in cases.check_all(content["inputs"], content["cases"]) if o.problem}


def test_the_published_implementations_agree(capsys: pytest.CaptureFixture[str]) -> None:
    if not SHARED.exists():
        pytest.skip("algorithms.json does not lie beside this repository")
    assert main([str(SHARED)]) == 0
    assert capsys.readouterr().out.startswith("43 passed, 0 failed\nlargest error ")


def test_a_file_worked_by_hand_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(BY_HAND)]) == 0
    assert capsys.readouterr().out.startswith("17 passed, 0 failed")


def _numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() if k != "baseline" for p in _numbers(v, (*path, k))]
    if isinstance(value, list):
        return [p for k, v in enumerate(value) for p in _numbers(v, (*path, k))]
    return [] if isinstance(value, str) else [path]


def test_every_expected_number_is_really_compared() -> None:
    content = json.loads(BY_HAND.read_text())
    places = _numbers(content["cases"])
    assert len(places) == 84
    for path in places:
        changed = copy.deepcopy(content)
        changed["cases"] = {path[0]: changed["cases"][path[0]]}
        place = changed["cases"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += 1e-6
        assert list(failures(changed)) == [path[0]], f"changing {path} went unnoticed"


def plain_python(seed: int, rows: int = 6, width: int = 5) -> dict[str, Any]:
    """Random inputs, and GAE, GRPO and PPO worked out with loops over floats."""
    rng = random.Random(seed)
    table = lambda: [[rng.gauss(0, 1) for _ in range(width)] for _ in range(rows)]  # noqa: E731
    lengths = [rng.randint(1, width) for _ in range(rows)]
    index = [b % 2 for b in range(rows)]
    score = [rng.gauss(0, 1) for _ in range(rows)]
    value, logprob = table(), table()
    old = [[x + 0.4 * rng.gauss(0, 1) for x in row] for row in logprob]
    reward = [[score[b] if t == lengths[b] - 1 else 0.0 for t in range(width)] for b in range(rows)]

    gamma, lam = 0.97, 0.8
    plain = [[0.0] * width for _ in range(rows)]
    for b, n in enumerate(lengths):
        for t in range(n):
            for later in range(t, n):
                following = value[b][later + 1] if later + 1 < n else 0.0
                delta = reward[b][later] + gamma * following - value[b][later]
                plain[b][t] += (gamma * lam) ** (later - t) * delta
    seen = [plain[b][t] for b in range(rows) for t in range(lengths[b])]
    count = len(seen) + 1e-8
    mean = sum(seen) / count
    variance = sum((x - mean) ** 2 for x in seen) / count * len(seen) / (len(seen) - 1)
    white = [
        [(x - mean) / math.sqrt(variance + 1e-8) if t < n else 0.0 for t, x in enumerate(row)]
        for row, n in zip(plain, lengths, strict=True)
    ]

    advantage = []
    for b in range(rows):
        group = [score[c] for c in range(rows) if index[c] == index[b]]
        middle = sum(group) / len(group)
        std = math.sqrt(sum((x - middle) ** 2 for x in group) / (len(group) - 1))
        advantage.append((score[b] - middle) / (std + 1e-6))
    low, high, loss = 0.15, 0.35, 0.0
    grad = [[0.0] * width for _ in range(rows)]
    for b, n in enumerate(lengths):
        for t in range(n):
            ratio = math.exp(logprob[b][t] - old[b][t])
            kept, cut = advantage[b] * ratio, advantage[b] * min(max(ratio, 1 - low), 1 + high)
            loss -= min(kept, cut) / (n + 1e-8) / rows
            if kept <= cut:
                grad[b][t] = -kept / (n + 1e-8) / rows
    return {
        "inputs": {
            "mask": [[float(t < n) for t in range(width)] for n in lengths],
            "index": index,
            "score": score,
            "token_reward": reward,
            "value": value,
            "logprob": logprob,
            "old_logprob": old,
        },
        "cases": {
            f"gae_whitened/sparse/gamma={gamma}/lam={lam}": {"advantages": white},
            "advantage/grpo": [[a if t < n else 0.0 for t in range(width)] for a, n in zip(advantage, lengths, strict=True)],
            f"policy_loss/ppo_clip/clip_higher_{low}_{high}/seq-mean-token-mean": {"loss": loss, "grad": grad},
        },
    }


@pytest.mark.parametrize("seed", range(5))
def test_loops_over_floats_agree_on_other_numbers_and_shapes(seed: int) -> None:
    content = plain_python(seed, rows=4 + 2 * (seed % 3), width=3 + seed)
    assert failures(content) == {}


def test_what_cannot_be_checked_is_a_failure_that_says_why() -> None:
    content = json.loads(BY_HAND.read_text())
    inputs, known = content["inputs"], content["cases"]
    del inputs["margin"]
    content["cases"] = {
        "policy_loss/unheard_of/token-mean": {"loss": 0.0},
        "policy_loss/ppo_clip/clip0.2/batch-mean": {"loss": 0.0},
        "reward_loss/bradley_terry_margin": known["reward_loss/bradley_terry_margin"],
        "advantage/rloo": [[0.0, 0.0, 0.0]],
        "kl/k1": [[math.nan, 0.0], [0.0, 0.0]],
        "kl/k2": {"note": "no numbers"},
        "value_loss/clip0.25/token-mean": {"surprise": 1.0},
        "kl/k3": known["kl/k3"],
    }
    why = failures(content)
    assert len(why) == 7
    assert "no function for it" in why["policy_loss/unheard_of/token-mean"]
    assert "no function for it" in why["policy_loss/ppo_clip/clip0.2/batch-mean"]
    assert "no input 'margin'" in why["reward_loss/bradley_terry_margin"]
    assert "shape (2, 2), not (1, 3)" in why["advantage/rloo"]
    assert "off by nan" in why["kl/k1"]
    assert "expects nothing" in why["kl/k2"]
    assert "nothing computes 'surprise'" in why["value_loss/clip0.25/token-mean"]


def test_the_command_counts_lists_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(BY_HAND.read_text())
    content["cases"]["kl/k1"][0][0] += 2e-9
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(content))
    assert main([str(BY_HAND), str(changed)]) == 1
    out = capsys.readouterr().out
    assert "kl/k1: the value is off by 2e-09" in out
    assert "33 passed, 1 failed" in out


@pytest.mark.parametrize("text", [None, "{", "[]", '{"inputs": {}}', '{"inputs": {}, "cases": {}}'])
def test_a_file_that_is_none_gives_one_sentence(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("golden: ")
    assert shown.err.count("\n") == 1


def test_no_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
