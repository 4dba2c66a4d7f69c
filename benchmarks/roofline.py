"""How near our side comes to what this CPU can do: `python benchmarks/roofline.py --sizes XS,S,M`.

Two jobs: `update`, forward and backward pass over 64 completions of 64 tokens to 8 prompts of 32, without the optimizer; and
`generate-64`, the generation of benchmarks/ours.py. How much each must do is counted by backflip.maths.roofline, which leaves
out padding, shared prompts and whatever need not be computed. The rates it is divided by are measured around every single run
of the job, for the machine's speed wanders from minute to minute: products of 2048 × 2048 matrices, back to back, by the
faster of the two libraries that come with PyTorch, and the sum of 256 MB. A fraction is the least time at these rates over
the measured time; its median over the runs goes into `floor`, everything else into `floor_details`, there also the rate at
the model's own shapes, which no product of that model can exceed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does

import torch
from material import SIZES, material
from protocol import GROUP, RESPONSE, TEMPERATURE
from results import RESULTS, add
from worker import Others, Retakes

from backflip.maths import limits, matmul
from backflip.maths.roofline import Group, Shape, Work, generation, learning
from backflip.policies import load_policy
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch
from backflip.records import Prompt
from backflip.rollout import generate
from backflip.seeds import Seeds
from backflip.settings import Sampling

CACHE = Path(__file__).resolve().parent / ".cache"
ROWS, PROMPT = 64, 32
ITEMSIZE = {"fp32": 4, "bf16": 2}
Job = Callable[[], Work]


def shape_of(size: str) -> Shape:
    """The sizes of a model, as the roofline counts them."""
    s = SIZES[size]
    return Shape(
        vocabulary=s["vocab_size"], hidden=s["hidden_size"], feed_forward=s["intermediate_size"], layers=s["num_hidden_layers"],
        heads=s["num_attention_heads"], kv_heads=s["num_attention_heads"], head_size=s["hidden_size"] // s["num_attention_heads"],
    )  # fmt: skip


def update_job(policy: LanguagePolicy, shape: Shape, precision: str) -> Job:
    """Forward and backward pass of a policy gradient; nothing is padded, so all that is computed is asked for."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, shape.vocabulary, (ROWS // GROUP, PROMPT), generator=generator).repeat_interleave(GROUP, 0)
    responses = torch.randint(2, shape.vocabulary, (ROWS, RESPONSE), generator=generator)
    advantages_B1 = torch.randn(ROWS, 1, generator=generator)
    batch = token_batch(prompts.tolist(), responses.tolist(), fill=policy.fill_id)
    work = learning(shape, [Group(PROMPT, [RESPONSE] * GROUP)] * (ROWS // GROUP))

    def job() -> Work:
        policy.model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logps_BT = policy.score(batch).logps_BT
            loss = -(advantages_B1 * (logps_BT - logps_BT.detach()).exp()).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return work

    return job


def generation_job(policy: LanguagePolicy, shape: Shape, precision: str, home: Path) -> Job:
    """64 completions that end at their stop tokens. Keys and values are float32 in both precisions, as the engine keeps them."""
    rows = [policy.encode(Prompt(text)) for text in json.loads((home / "prompts.json").read_text())]
    settings = Sampling(
        max_new_tokens=RESPONSE, temperature=TEMPERATURE, slots=ROWS, precision="model" if precision == "fp32" else "bfloat16"
    )
    step = 0

    def job() -> Work:
        nonlocal step
        chosen = [rows[(step * ROWS + i) % len(rows)] for i in range(ROWS)]
        written = generate(policy, chosen, settings, seeds=Seeds(step)).tokens.mask_BT.sum(1).tolist()
        step += 1
        groups = [Group(len(ids), [int(n)]) for ids, n in zip(chosen, written, strict=True)]
        return generation(shape, groups, itemsize=ITEMSIZE[precision], kv_itemsize=4)

    return job


class Rates:
    """The machine's rates of this moment: 10⁹ operations a second of large products, 10⁹ bytes a second read."""

    def __init__(self, precision: str, library: matmul.Choice) -> None:
        self.fast = precision == "fp32" and library == "onednn"
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self.x, self.y = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
        self.buffer = torch.zeros(64_000_000)

    def __call__(self) -> tuple[float, float]:
        with matmul.use("onednn" if self.fast else "stock"):
            gflops = limits.product_rate(self.x, self.y, seconds=0.3, sustained=True)
        return gflops, limits.read_rate(self.buffer, seconds=0.1, sustained=True)


def own_shapes(shape: Shape, precision: str, library: matmul.Choice) -> float:
    """10⁹ operations a second of the update's own products, one after the other, forwards."""
    tokens = ROWS // GROUP * PROMPT + ROWS * RESPONSE
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    wide, narrow, head = shape.feed_forward, shape.hidden, shape.vocabulary
    counts = {
        (narrow, narrow): 4 * shape.layers,
        (narrow, wide): 2 * shape.layers,
        (wide, narrow): shape.layers,
        (narrow, head): 1,
    }
    with matmul.use(library if precision == "fp32" else "stock"):
        seconds = 0.0
        for (k, n), times in counts.items():
            rows = min(tokens, 4_000_000 // n)
            x, w = torch.randn(rows, k).to(dtype), torch.randn(k, n).to(dtype)
            seconds += times * 2 * tokens * k * n / limits.product_rate(x, w, seconds=0.1, sustained=True) / 1e9
    return 2 * tokens * (shape.layers * (4 * narrow**2 + 3 * narrow * wide) + shape.head) / seconds / 1e9


def fraction(job: Job, rates: Rates, *, runs: int, inside: Callable[[], Any]) -> dict[str, float]:
    """The job's least time over its measured time: median, lowest and highest of `runs`, rates and job by turns.

    A run that others disturbed is taken again (`Retakes`).
    """
    found, rows, retakes = [], [], Retakes(runs)
    others = Others(os.getpid())
    with inside():
        job()  # what is compiled once
    before = rates()
    while len(rows) < runs:
        others.begin()
        begin = time.perf_counter()
        with inside():
            work = job()
        seconds = time.perf_counter() - begin
        foreign, after = others.share(), rates()
        gflops, read_gb_s = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        before = after
        if retakes.again(foreign):
            continue
        floor = work.seconds(gflops=gflops, read_gb_s=read_gb_s)
        found.append(floor / seconds)
        rows.append((seconds, floor, gflops, read_gb_s, work.flops / 1e9, foreign))
    names = ("seconds", "floor_s", "gflops", "read_gb_s", "gflop", "foreign")
    middle = {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return {
        "median": statistics.median(found),
        "low": min(found),
        "high": max(found),
        "runs": float(runs),
        "disturbed": float(retakes.disturbed),
        **middle,
    }


def floors(size: str, precisions: list[str], runs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Both jobs of one size in every precision."""
    home, shape = material(CACHE, size), shape_of(size)
    library = limits.measure(size=2048, seconds=0.3).library
    chosen = matmul.choose(matmul.measure())
    upright = matmul.upright_rows(chosen)

    @contextmanager
    def as_in_a_run() -> Iterator[None]:
        with matmul.use(chosen, upright=upright):
            yield

    for precision in precisions:
        policy, rates = load_policy(home / "model"), Rates(precision, library)
        row = fraction(update_job(policy, shape, precision), rates, runs=runs, inside=as_in_a_run)
        yield f"update/{size}/{precision}", row | {"own_shapes_gflops": own_shapes(shape, precision, library)}
        job = generation_job(policy, shape, precision, home)
        yield f"generate-64/{size}/{precision}", fraction(job, rates, runs=runs, inside=as_in_a_run)


def main() -> None:
    """Measure and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="XS,S,M", help="Sizes of model, separated by commas.")
    parser.add_argument("--precisions", default="", help="fp32, bf16 or both [both, where bf16 is faster here].")
    parser.add_argument("--runs", type=int, default=5, help="Counted runs of each job.")
    parser.add_argument("--output", type=Path, default=RESULTS, help="File of the results.")
    args = parser.parse_args()
    found = limits.measure()
    both = ["fp32", "bf16"] if found.bf16_gflops > found.fp32_gflops else ["fp32"]
    precisions = args.precisions.split(",") if args.precisions else both
    for size in args.sizes.split(","):
        for key, row in floors(size, precisions, args.runs):
            add(args.output, "floor", {key: row["median"]})
            add(args.output, "floor_details", {key: row})
            print(
                f"{key}: {row['median']:.0%} of the roofline ({row['low']:.0%} to {row['high']:.0%}), {row['seconds']:.3f} s for "
                f"{row['gflop']:.0f} GFLOP at {row['gflops']:.0f} GFLOP/s, others {row['foreign']:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
