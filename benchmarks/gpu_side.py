"""One side of a benchmark on a CUDA device, step by step: `python benchmarks/gpu_side.py SIDE:JOB SETTING FOLDER`.

SIDE is "peer" (transformers alone, as it is) or "ours". A step of "generate-N" completes N prompts; a step of "update-N" is the
forward and backward pass of N completions, eight to a prompt, as an update of GRPO makes it. Setting "bf16" is weights in
bfloat16 for the peer and for updates, and our own generation's bfloat16 beside float32 weights; "fp32" is float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from protocol import TEMPERATURE, Turns

RESPONSE = 256
GROUP = 8
FOREVER = 10**6


def prompts_of(home: Path, n: int, step: int) -> list[str]:
    """The prompts of one step."""
    rows = json.loads((home / "prompts.json").read_text())
    return [rows[(step * n + i) % len(rows)] for i in range(n)]


def texts_of(home: Path, n: int, step: int) -> tuple[list[str], list[str]]:
    """Prompts, each `GROUP` times, and as many completions."""
    rows = json.loads((home / "texts.json").read_text())
    chosen = [rows[(step * n + i) % len(rows)] for i in range(n)]
    return [chosen[i - i % GROUP]["prompt"] for i in range(n)], [row["completion"] for row in chosen]


def ours(job: str, setting: str, home: Path, device: torch.device) -> None:
    """backflip's side."""
    from backflip.policies import load_policy
    from backflip.policies.tokens import token_batch
    from backflip.records import Prompt
    from backflip.rollout import generate
    from backflip.seeds import Seeds
    from backflip.settings import Sampling

    policy = load_policy(home / "model", device=str(device))
    n = int(job.split("-")[1])
    sampling = Sampling(
        max_new_tokens=RESPONSE, temperature=TEMPERATURE, slots=n, precision="bfloat16" if setting == "bf16" else "model"
    )
    if job.startswith("update") and setting == "bf16":
        policy.model.to(torch.bfloat16)
    turns = Turns()
    turns()
    for step in range(FOREVER):
        if job.startswith("generate"):
            rows = [policy.encode(Prompt(text)) for text in prompts_of(home, n, step)]
            rollout = generate(policy, rows, sampling, seeds=Seeds(step))
            turns(tokens=int(rollout.tokens.mask_BT.sum()))
        else:
            queries, completions = texts_of(home, n, step)
            batch = token_batch(
                [policy.encode(Prompt(text)) for text in queries], [policy.encode_completion(text) for text in completions],
                fill=policy.fill_id,
            ).to(device)  # fmt: skip
            scores = policy.score(batch, temperature=TEMPERATURE)
            (-(scores.logps_BT * batch.mask_BT).sum() / batch.mask_BT.sum()).backward()
            policy.model.zero_grad()
            turns(tokens=int(batch.mask_BT.sum()))


def peer(job: str, setting: str, home: Path, device: torch.device) -> None:
    """transformers' side."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    dtype = torch.bfloat16 if setting == "bf16" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(home / "model", dtype=dtype).to(device)
    n = int(job.split("-")[1])
    turns = Turns()
    turns()
    for step in range(FOREVER):
        if job.startswith("generate"):
            tokenizer.padding_side = "left"
            batch = tokenizer(prompts_of(home, n, step), return_tensors="pt", padding=True, return_token_type_ids=False).to(
                device
            )
            with torch.no_grad():
                out = model.generate(
                    **batch, max_new_tokens=RESPONSE, do_sample=True, temperature=TEMPERATURE, top_k=0, pad_token_id=0
                )
            turns(tokens=int((out[:, batch["input_ids"].shape[1] :] != 0).sum()))
        else:
            tokenizer.padding_side = "right"
            queries, completions = texts_of(home, n, step)
            lengths = [len(tokenizer(text)["input_ids"]) for text in queries]
            whole = [q + " " + c + " " + tokenizer.eos_token for q, c in zip(queries, completions, strict=True)]
            batch = tokenizer(whole, return_tensors="pt", padding=True, return_token_type_ids=False)
            mask = batch["attention_mask"][:, 1:] * (
                torch.arange(1, batch["input_ids"].shape[1]) >= torch.tensor(lengths).unsqueeze(1)
            )
            batch, mask = batch.to(device), mask.to(device)
            logits = model(**batch, use_cache=False).logits[:, :-1].float() / TEMPERATURE
            chosen = logits.gather(-1, batch["input_ids"][:, 1:].unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
            (-(chosen * mask).sum() / mask.sum()).backward()
            model.zero_grad()
            turns(tokens=int(mask.sum()))


if __name__ == "__main__":
    side, name = sys.argv[1].split(":")
    gpu = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    {"ours": ours, "peer": peer}[side](name, sys.argv[2], Path(sys.argv[3]), gpu)
