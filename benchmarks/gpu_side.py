"""One side of a benchmark on a CUDA device, step by step: `python benchmarks/gpu_side.py SIDE:JOB SETTING FOLDER`.

SIDE is "peer" (transformers alone, as it is) or "ours". A step of "generate-N" completes N prompts; a step of "update-N" is the
forward and backward pass of N completions, eight to a prompt, as an update of GRPO makes it; texts are tokenised before the
first step. Setting "bf16" is weights in
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


def turn_of(rows: list[Any], n: int, step: int) -> list[Any]:
    """The `n` rows of one step."""
    return [rows[(step * n + i) % len(rows)] for i in range(n)]


def shared(n: int) -> list[int]:
    """Of `n` completions, each one's prompt: that of the first of its group."""
    return [i - i % GROUP for i in range(n)]


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
    prompts = [policy.encode(Prompt(text)) for text in json.loads((home / "prompts.json").read_text())]
    texts = [
        (policy.encode(Prompt(row["prompt"])), policy.encode_completion(row["completion"]))
        for row in json.loads((home / "texts.json").read_text())
    ]
    turns = Turns()
    turns()
    for step in range(FOREVER):
        if job.startswith("generate"):
            rollout = generate(policy, turn_of(prompts, n, step), sampling, seeds=Seeds(step))
            turns(tokens=int(rollout.tokens.mask_BT.sum()))
        else:
            rows = turn_of(texts, n, step)
            queries, completions = [rows[i][0] for i in shared(n)], [row[1] for row in rows]
            batch = token_batch(queries, completions, fill=policy.fill_id).to(device)
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
    tokenizer.padding_side = "left" if job.startswith("generate") else "right"
    prompts = tokenizer(json.loads((home / "prompts.json").read_text()))["input_ids"]
    texts = [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id])
        for row in json.loads((home / "texts.json").read_text())
    ]

    def padded(rows: list[list[int]]) -> Any:
        return tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)

    turns = Turns()
    turns()
    for step in range(FOREVER):
        if job.startswith("generate"):
            batch = padded(turn_of(prompts, n, step))
            with torch.no_grad():
                out = model.generate(
                    **batch, max_new_tokens=RESPONSE, do_sample=True, temperature=TEMPERATURE, top_k=0, pad_token_id=0
                )
            turns(tokens=int((out[:, batch["input_ids"].shape[1] :] != 0).sum()))
        else:
            rows = turn_of(texts, n, step)
            queries, completions = [rows[i][0] for i in shared(n)], [row[1] for row in rows]
            batch = padded([q + c for q, c in zip(queries, completions, strict=True)])
            lengths = torch.tensor([len(q) for q in queries], device=device)
            columns = torch.arange(1, batch["input_ids"].shape[1], device=device)
            mask = batch["attention_mask"][:, 1:] * (columns >= lengths.unsqueeze(1))
            logits = model(**batch, use_cache=False).logits[:, :-1].float() / TEMPERATURE
            chosen = logits.gather(-1, batch["input_ids"][:, 1:].unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
            (-(chosen * mask).sum() / mask.sum()).backward()
            model.zero_grad()
            turns(tokens=int(mask.sum()))


if __name__ == "__main__":
    side, name = sys.argv[1].split(":")
    gpu = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    {"ours": ours, "peer": peer}[side](name, sys.argv[2], Path(sys.argv[3]), gpu)
