"""backflip's side of a benchmark: one job on one size, step by step. `python benchmarks/ours.py JOB SETTING FOLDER`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does

from protocol import BATCH, PPO_EPOCHS, RESPONSE, TEMPERATURE, Turns

from backflip.policies import load_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rollout import generate
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import PPO, SFT, Optim, Reward, Sampling
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


def main(job: str, setting: str, home: Path) -> None:
    """Work until told to stop."""
    turns = Turns()
    policy = load_policy(home / "model")
    prompts = [Prompt(text) for text in json.loads((home / "prompts.json").read_text())]
    with Run.open(tempfile.mkdtemp(), kind="bench", settings={}, quiet=True) as run, fast_matmul(run):
        paced: Any = Paced(run, turns)
        if job.startswith("generate"):
            n = int(job.removeprefix("generate-"))
            precision: Any = "bfloat16" if setting == "bf16" else "model"
            sampling = Sampling(max_new_tokens=RESPONSE, temperature=TEMPERATURE, slots=n, precision=precision)
            rows = [policy.encode(prompt) for prompt in prompts]
            turns()
            for step in range(FOREVER):
                chosen = [rows[(step * n + i) % len(rows)] for i in range(n)]
                rollout = generate(policy, chosen, sampling, seeds=Seeds(step))
                turns(tokens=int(rollout.tokens.mask_BT.sum()))
        elif job == "sft":
            rows = [(Prompt(t["prompt"]), t["completion"]) for t in json.loads((home / "texts.json").read_text())]
            settings = SFT(epochs=FOREVER, batch_size=BATCH[job], holdout=0.0, log_every=1, save_every=FOREVER)
            turns()
            sft(policy, encode_demonstrations(policy, rows, settings), settings, paced, seeds=Seeds(0))
        elif job == "reward":
            pairs = json.loads((home / "pairs.json").read_text())
            comparisons = [
                Comparison(prompt=Prompt(p["prompt"]), left=p["chosen"], right=p["rejected"], p_left=1.0) for p in pairs
            ]
            fit = Reward(
                epochs=FOREVER, batch_size=BATCH[job], holdout=0.0, log_every=1, save_every=FOREVER, normalize_before=False
            )
            turns()
            fit_reward(RewardModel.load(home / "reward"), comparisons, fit, paced, seeds=Seeds(0))
        elif job == "ppo":
            ppo = PPO(
                steps=FOREVER, batch_size=BATCH[job], ppo_epochs=PPO_EPOCHS, critic="reward", save_every=FOREVER,
                sample_every=FOREVER, mask_after_truncation=True,
                sampling=Sampling(
                    max_new_tokens=RESPONSE, temperature=TEMPERATURE, precision="bfloat16" if setting == "bf16" else "model"
                ),
                optim=Optim(learning_rate=3e-6),
            )  # fmt: skip
            turns()
            improve(policy, prompts, RewardModel.load(home / "reward"), ppo, paced, seeds=Seeds(0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
