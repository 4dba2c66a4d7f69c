"""A scripted person teaches two rounds through the studio's web API (`python -m tests.rounds.person` is the long form)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.rounds.person import PAIRS, Taught, rises, stored, teach, write
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


def test_a_person_answers_two_rounds_over_http_and_is_served_better(tmp_path: Path) -> None:
    prompts, settings = ({"prompt": f"the film number {i} was"} for i in range(140)), tmp_path / "job.yaml"
    texts = ({"text": text} for text in Reviews().corpus(400, Seeds(0)))
    given = {"policy": "tiny", "tiny": TINY, "pretrain": {**STAGE, "max_steps": 60, "batch_size": 16}, "train": TRAIN}
    files = {"data": write(tmp_path / "prompts.jsonl", prompts), "texts": write(tmp_path / "texts.jsonl", texts)}
    job = from_dict(RoundsJob, {**given, **files, "output": str(tmp_path / "run")})
    settings.write_text(to_yaml(job))
    found = teach(lambda: main(["rounds", "--config", str(settings), "--quiet"]), tmp_path / "run", length)
    assert found.starts == 6, "it waited for two rounds' questions, for two verifications and for the arena"
    assert set(found.keys) == stored(tmp_path / "run")
    assert set(found.rates) == set(PAIRS)
    assert rises(found.rates), found.rates
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["final"] == "round2"
    assert [decision["kept"] for decision in result["decisions"]] == ["round1", "round2"]
    assert result["labeler"] == "human"


def test_rising_means_more_than_half_and_then_no_less() -> None:
    def after(first: float, second: float) -> Taught:
        rates = (WinRate(first, 0, 1, 9), WinRate(second, 0, 1, 9), WinRate(0.5, 0, 1, 9))
        return Taught([], 1, dict(zip(PAIRS, rates, strict=True)))

    assert rises(after(0.6, 0.6).rates)
    assert not rises(after(0.6, 0.55).rates)
    assert not rises(after(0.5, 0.9).rates)
