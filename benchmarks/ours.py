"""backflip's side of a benchmark: one job on one size, step by step. `python benchmarks/ours.py JOB SETTING FOLDER`.

Setting "fp32" computes everything in float32, "bf16" and "checkpointed" compute products in bfloat16, and "default" in whichever
of the two this machine multiplies faster. "checkpointed" recomputes activations as the peer's default does, which shows both
sides' memory at equal settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does

import torch
from protocol import BATCH, BETA, DPO_PAIRS, GROUP, LEARNING_RATE, PPO_EPOCHS, RESPONSE, TEMPERATURE, Turns, even_share

from backflip.algorithms import GRPO, RLOO
from backflip.maths import limits
from backflip.policies import load_policy
from backflip.policies.language import LanguagePolicy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rollout import generate
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import SFT, Direct, Online, Optim, Reward, Sampling
from backflip.train import direct
from backflip.train.arithmetic import fast_matmul
from backflip.train.online import improve
from backflip.train.reward import fit_reward
from backflip.train.sft import encode_demonstrations, sft

FOREVER = 10**6


class Paced:
    """A run that waits for its turn wherever the loop would log a step."""

    def __init__(self, run: Run, turns: Turns) -> None:
        self._run, self._turns = run, turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The end of a step."""
        self._turns()


@functools.cache
def half(setting: str) -> bool:
    """Whether products are made in bfloat16."""
    if setting != "default" or torch.cuda.is_available():
        return setting != "fp32"
    found = limits.measure()
    return found.bf16_gflops > found.fp32_gflops


def optim(setting: str) -> Optim:
    """The learner of a setting."""
    return Optim(
        learning_rate=LEARNING_RATE, adam_eps=1e-8, adam_eps_convention="torch",
        precision="bfloat16" if half(setting) else "float32", gradient_checkpointing=setting == "checkpointed",
    )  # fmt: skip


def sampling(setting: str, *, slots: int) -> Sampling:
    """The sampler of a setting."""
    return Sampling(
        max_new_tokens=RESPONSE, temperature=TEMPERATURE, slots=slots, precision="bfloat16" if half(setting) else "model"
    )


def online(job: str, setting: str) -> Online:
    """The online method of a job, sized as the peer's. PPO has a critic of its own beside the policy, as the peer's has."""
    common: dict[str, Any] = {
        "steps": FOREVER, "batch_size": BATCH[job], "save_every": FOREVER, "sample_every": FOREVER, "optim": optim(setting),
        "sampling": sampling(setting, slots=BATCH[job]),
    }  # fmt: skip
    if job == "ppo":
        return Online(**common, ppo_epochs=PPO_EPOCHS, critic="reward", mask_after_truncation=True)
    return dataclasses.replace(GRPO if job == "grpo" else RLOO, **common, num_generations=GROUP, kl_coef=BETA[job])


def main(job: str, setting: str, home: Path) -> None:
    """Work until told to stop."""
    turns = Turns()
    policy = load_policy(home / "model")
    prompts = [Prompt(text) for text in json.loads((home / "prompts.json").read_text())]
    with Run.open(tempfile.mkdtemp(), kind="bench", settings={}, quiet=True) as run, fast_matmul(run):
        paced: Any = Paced(run, turns)
        if job.startswith("generate"):
            write(policy, prompts, sampling(setting, slots=int(job.removeprefix("generate-"))), turns)
        elif job == "ppo":
            turns()
            improve(policy, prompts, RewardModel.load(home / "reward"), online(job, setting), paced, seeds=Seeds(0))
        elif job in ("grpo", "rloo"):
            turns()
            improve(policy, prompts, even_share, online(job, setting), paced, seeds=Seeds(0))
        elif job == "sft":
            rows = [(Prompt(t["prompt"]), t["completion"]) for t in json.loads((home / "texts.json").read_text())]
            settings = SFT(**_offline(job, setting))
            examples = encode_demonstrations(policy, rows, settings)
            turns()
            sft(policy, examples, settings, paced, seeds=Seeds(0))
        elif job == "reward":
            model = RewardModel.load(home / "reward")
            turns()
            fit = Reward(**_offline(job, setting), normalize_before=False)
            fit_reward(model, comparisons(home), fit, paced, seeds=Seeds(0))
        elif job == "dpo":
            pairs = comparisons(home)[:DPO_PAIRS]
            turns()
            with reference_counted(turns):
                settings_of = Direct(**_offline(job, setting), sample_prompts=0)
                direct.direct(policy, pairs, settings_of, paced, seeds=Seeds(0))


def _offline(job: str, setting: str) -> dict[str, Any]:
    return {
        "epochs": float(FOREVER), "batch_size": BATCH[job], "holdout": 0.0, "log_every": 1, "save_every": FOREVER,
        "optim": optim(setting),
    }  # fmt: skip


@contextlib.contextmanager
def reference_counted(turns: Turns) -> Iterator[None]:
    """Our DPO asks the reference once, before the first step; the peer in every step. What that took is shared out over the
    steps of one pass through the pairs, so that both sides' steps hold the same work."""
    look = direct.look

    def timed(*args: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        found = look(*args, **named)
        turns.ahead = (time.perf_counter() - begin) * BATCH["dpo"] / DPO_PAIRS
        return found

    direct.look = timed
    try:
        yield
    finally:
        direct.look = look


def comparisons(home: Path) -> list[Comparison]:
    """The pairs as we know them."""
    pairs = json.loads((home / "pairs.json").read_text())
    return [Comparison(prompt=Prompt(p["prompt"]), left=p["chosen"], right=p["rejected"], p_left=1.0) for p in pairs]


def write(policy: LanguagePolicy, prompts: list[Prompt], settings: Sampling, turns: Turns) -> None:
    """Generation alone."""
    n = settings.slots
    rows = [policy.encode(prompt) for prompt in prompts]
    turns()
    for step in range(FOREVER):
        chosen = [rows[(step * n + i) % len(rows)] for i in range(n)]
        rollout = generate(policy, chosen, settings, seeds=Seeds(step))
        turns(tokens=int(rollout.tokens.mask_BT.sum()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
