"""The peak memory of an update with a vocabulary of 16384: `python benchmarks/memory.py`.

64 completions of 64 tokens to 8 prompts of 32 by a model of S's body and M's vocabulary: forward, backward, optimizer. Once
with backflip's log-probabilities, which hold a chunk of logits at a time, and once the plain way: all logits, log_softmax,
gather. Each with activations kept ("plain") and with the layers computed again on the way back ("checkpointed"), in processes
of their own; counted is the most memory a process had during its second update, less what it had before the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from protocol import GROUP, RESPONSE
from results import RESULTS, add

ROWS, PROMPT, VOCABULARY = 64, 32, 16384
WAYS, SETTINGS = ("chunked", "naive"), ("plain", "checkpointed")


def resident_mb(name: str) -> float:
    """VmRSS or VmHWM of this process."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def update(way: str, setting: str) -> float:
    """Peak of an update in MB, above what stood there before."""
    import torch
    from material import SIZES
    from torch import Tensor
    from transformers import LlamaConfig, LlamaForCausalLM

    from backflip.maths import matmul
    from backflip.policies import language
    from backflip.policies.recompute import recompute
    from backflip.policies.tokens import token_batch
    from backflip.train.optim import AdamW

    def naive(x: Tensor, weight: Tensor, tokens: Tensor, *, temperature: float = 1.0, **_: object) -> tuple[Tensor, None]:
        logits = torch.nn.functional.linear(x, weight) / temperature
        return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1), None

    if way == "naive":
        language.head_logps = naive  # type: ignore[assignment]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(**SIZES["S"] | {"vocab_size": VOCABULARY}, tie_word_embeddings=True, pad_token_id=0)
    ).float()
    tokenizer = type("Tokenizer", (), {"eos_token_id": 1, "pad_token_id": 0})()
    policy = language.LanguagePolicy(model, tokenizer)
    if setting == "checkpointed":
        recompute(policy.model)
    optimizer = AdamW(policy.parameters())
    prompts = torch.randint(2, VOCABULARY, (ROWS // GROUP, PROMPT)).repeat_interleave(GROUP, 0)
    batch = token_batch(prompts.tolist(), torch.randint(2, VOCABULARY, (ROWS, RESPONSE)).tolist(), fill=0)
    before = resident_mb("VmRSS")
    with matmul.use(matmul.choose(matmul.measure())):
        for _ in range(2):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew (proc_pid_clear_refs(5))
            optimizer.zero_grad()
            (-policy.score(batch).logps_BT.mean()).backward()  # type: ignore[no-untyped-call]
            optimizer.step(1e-6)
    return resident_mb("VmHWM") - before


def main() -> None:
    """Measure both ways and add them to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "SETTING"), help="Only this, in this process; prints its peak in MB.")
    parser.add_argument("--runs", type=int, default=3, help="Processes of each way and setting; the median counts.")
    parser.add_argument("--output", type=Path, default=RESULTS, help="File of the results.")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(update(*args.one)))
        return
    for setting in SETTINGS:
        peaks = {way: statistics.median(_peak(way, setting) for _ in range(args.runs)) for way in WAYS}
        row = {"chunked_mb": peaks["chunked"], "naive_mb": peaks["naive"], "ratio": peaks["chunked"] / peaks["naive"]}
        add(args.output, "memory", {f"update/vocabulary-{VOCABULARY}/{setting}": row})
        print(f"{setting} update: {row['chunked_mb']:.0f} of {row['naive_mb']:.0f} MB, {row['ratio']:.0%}", flush=True)


def _peak(way: str, setting: str) -> float:
    command = [sys.executable, __file__, "--one", way, setting]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
