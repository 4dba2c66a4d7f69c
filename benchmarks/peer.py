"""The peer's side of a benchmark: transformers' generate and TRL's trainers, as they are, step by step.

`python benchmarks/peer.py JOB SETTING FOLDER`, in an environment of the peer's own. Settings "default" and "checkpointed" are
what TRL does when nothing is said (bf16 autocast, gradient checkpointing); "fp32" turns both off, "bf16" the checkpointing.

Everything else is TRL's default but what any user would set: the batch, the lengths, no saving, no tracker. Sampling of the
next batch, shuffling, padding and decoding belong to its step, as they do to ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from protocol import BATCH, BETA, DPO_PAIRS, GROUP, LEARNING_RATE, PPO_EPOCHS, RESPONSE, TEMPERATURE, Turns, even_share
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)


class Paced(TrainerCallback):
    """Waits for its turn at the start of every step, which is where the one before is over."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Between two steps."""
        self.turns()


TUNED: dict[str, dict[str, Any]] = {
    "default": {},
    "checkpointed": {},
    "fp32": {"bf16": False, "gradient_checkpointing": False},
    "bf16": {"gradient_checkpointing": False},
}


def common(setting: str, batch: int, **own: Any) -> dict[str, Any]:
    """Settings all of TRL's trainers share."""
    return {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": batch, "report_to": "none", "save_strategy": "no",
        "logging_steps": 10**6, "use_cpu": not torch.cuda.is_available(), "disable_tqdm": True, "seed": 0, **TUNED[setting],
        **own,
    }  # fmt: skip


def data_set(rows: list[dict[str, Any]]) -> Any:
    """Rows as TRL wants them. Generation needs none, and the environment it runs in may not have the package."""
    from datasets import Dataset

    return Dataset.from_list(rows)


def main(job: str, setting: str, home: Path) -> None:
    """Work until told to stop."""
    turns = Turns()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    half = job.startswith("generate") and setting == "bf16"
    model = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.bfloat16 if half else torch.float32)
    prompts = json.loads((home / "prompts.json").read_text())
    if job.startswith("generate"):
        generate(int(job.removeprefix("generate-")), model, tokenizer, prompts, turns)
    elif job == "sft":
        from trl import SFTConfig, SFTTrainer

        rows = data_set(json.loads((home / "texts.json").read_text()))
        args = SFTConfig(**common(setting, BATCH[job], max_steps=10**5, max_length=512))
        SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[Paced(turns)]).train()
    elif job == "reward":
        from trl import RewardConfig, RewardTrainer

        reward = AutoModelForSequenceClassification.from_pretrained(home / "reward", num_labels=1, dtype=torch.float32)
        rows = data_set(json.loads((home / "pairs.json").read_text()))
        args = RewardConfig(**common(setting, BATCH[job], max_steps=10**5, max_length=512))
        RewardTrainer(reward, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[Paced(turns)]).train()
    elif job == "dpo":
        from trl import DPOConfig, DPOTrainer

        # The reference reads every batch, TRL's default; it is told nothing, so it makes the copy itself.
        rows = data_set(json.loads((home / "pairs.json").read_text())[:DPO_PAIRS])
        args = DPOConfig(**common(setting, BATCH[job], max_steps=10**5, max_length=512))
        DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[Paced(turns)]).train()
    elif job in ("grpo", "rloo"):
        groups(job, setting, home, tokenizer, prompts, turns)
    elif job == "ppo":
        ppo(setting, home, model, tokenizer, prompts, turns)


@torch.no_grad()
def generate(n: int, model: Any, tokenizer: Any, prompts: list[str], turns: Turns) -> None:
    """transformers' own sampling, left-padded."""
    tokenizer.padding_side = "left"
    rows = [prompts[i : i + n] for i in range(0, len(prompts) - n + 1, n)]
    turns()
    for step in range(10**6):
        batch = tokenizer(rows[step % len(rows)], return_tensors="pt", padding=True, return_token_type_ids=False)
        out = model.generate(**batch, max_new_tokens=RESPONSE, do_sample=True, temperature=TEMPERATURE, top_k=0, pad_token_id=0)
        written = out[:, batch["input_ids"].shape[1] :]
        turns(tokens=int((written != 0).sum()))


def groups(job: str, setting: str, home: Path, tokenizer: Any, prompts: list[str], turns: Turns) -> None:
    """GRPO or RLOO: a step writes `BATCH` completions, `GROUP` a prompt, by transformers' generate, and updates once.

    GRPO's β is 0 unless said otherwise, which would leave the reference out; both sides have one. The trainer is given the
    model's name, as in TRL's own examples, and loads policy and reference in float32.
    """
    import trl

    config, trainer = (trl.GRPOConfig, trl.GRPOTrainer) if job == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    args = config(
        **common(
            setting, BATCH[job], max_steps=10**5, num_generations=GROUP, max_completion_length=RESPONSE, temperature=TEMPERATURE,
            beta=BETA[job], learning_rate=LEARNING_RATE, model_init_kwargs={"dtype": torch.float32},
        )
    )  # fmt: skip
    rows = data_set([{"prompt": prompt} for prompt in prompts])
    trainer(
        str(home / "model"), reward_funcs=even_share, args=args, train_dataset=rows, processing_class=tokenizer,
        callbacks=[Paced(turns)],
    ).train()  # fmt: skip


def ppo(setting: str, home: Path, model: Any, tokenizer: Any, prompts: list[str], turns: Turns) -> None:
    """TRL's PPO, from the last release that had it."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer.padding_side = "left"
    rows = data_set([{"input_ids": tokenizer(p)["input_ids"]} for p in prompts])
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(home / "reward", num_labels=1, dtype=torch.float32) for _ in range(2)
    )
    args = PPOConfig(
        **common(
            setting, BATCH["ppo"], total_episodes=10**7, response_length=RESPONSE, num_ppo_epochs=PPO_EPOCHS, stop_token="eos",
            temperature=TEMPERATURE, num_sample_generations=0, missing_eos_penalty=1.0, learning_rate=LEARNING_RATE,
        )
    )  # fmt: skip
    reference = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float32)
    trainer = PPOTrainer(
        args=args, processing_class=tokenizer, model=model, ref_model=reference, reward_model=reward, value_model=value,
        train_dataset=rows,
    )  # fmt: skip
    loader = trainer.dataloader

    class Turnstile:
        """PPO's loop asks for a batch at the start of every step and for nothing in between."""

        def __iter__(self) -> Any:
            for batch in loader:
                turns()
                yield batch

    trainer.dataloader = Turnstile()
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
