"""`backflip doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from backflip.maths.limits import Limits
    from backflip.maths.matmul import Rates

HELP = "Check this machine: Python, packages, memory, disk, and that the arithmetic is right."

ESSENTIAL = {
    "torch": "2.6",
    "transformers": "5.0",
    "tokenizers": "0.22",
    "safetensors": "0.5",
    "peft": "0.18",
    "numpy": "1.26",
    "rich": "13",
    "pyyaml": "6",
    "sqlalchemy": "2.0",
    "alembic": "1.14",
    "fastapi": "0.115",
    "httptools": "0.6",
    "uvicorn": "0.30",
    "jinja2": "3.1",
    "markdown-it-py": "3",
    "nh3": "0.2.18",
    "argon2-cffi": "23.1",
}
"""Packages backflip cannot do without, and the oldest version of each (a test compares them with pyproject.toml)."""

OPTIONAL = {
    "datasets": ("data", "read data sets by name"),
    "tensorboard": ("trackers", "watch runs in TensorBoard"),
    "wandb": ("trackers", "send metrics to Weights & Biases"),
    "trackio": ("trackers", "send metrics to trackio"),
    "av": ("video", "make clips of what an agent does"),
    "psycopg": ("postgres", "keep feedback on a PostgreSQL server"),
}
"""Packages that add something: the extra of ours that installs each, and what it is for."""

GIB = 2**30
NEED_MEMORY = 2 * GIB
NEED_DISK = 2 * GIB

MODELS = {"1M": (512, 128, 352, 4, 4), "9M": (4096, 320, 864, 6, 5), "61M": (16384, 640, 1728, 10, 10)}
"""Models whose step is foretold, by their weights: vocabulary, hidden size, feed-forward size, layers, heads."""

EFFICIENCY = 0.5
"""How much of the machine's limits a step is expected to reach."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer. `fix` says what to do and is shown unless all is well."""

    state: Literal["good", "bad", "absent"]
    subject: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        mark = {"good": "✓", "bad": "✗", "absent": "–"}[self.state]
        advice = "" if self.state == "good" or not self.fix else f": {self.fix}"
        return f"{mark} {self.subject:<13} {self.detail}{advice}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `backflip doctor`."""
    parser.add_argument(
        "folder", nargs="?", default=".", metavar="FOLDER", help="Where runs will be written [the current folder]."
    )


def run(args: argparse.Namespace) -> int:
    """Print a line per finding as it is made; 1 when something essential is wrong."""
    bad = 0
    for finding in findings(Path(args.folder)):
        print(finding, flush=True)
        bad += finding.state == "bad"
    print("\nready" if not bad else f"\n{bad} thing{'s' * (bad > 1)} to put right (✗ above)")
    return 1 if bad else 0


def findings(folder: Path) -> Iterator[Finding]:
    """Everything the doctor looks at, quickest first."""
    yield check_python(sys.version_info[:3])
    yield check_memory(available_memory())
    yield from check_folder(folder)
    for name, oldest in ESSENTIAL.items():
        yield check_package(name, oldest, version_of(name))
    for name, (extra, purpose) in OPTIONAL.items():
        yield check_optional(name, extra, purpose, version_of(name))
    try:
        import torch
    except (ImportError, OSError) as problem:  # OSError: a shared library of torch that does not load
        yield Finding("bad", "device", f"torch cannot be imported ({problem})", "install torch again")
        return
    threads = torch.get_num_threads()
    yield check_device(threads, [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])
    yield check_arithmetic()
    from backflip.maths import limits, matmul

    yield check_products(matmul.measure())
    yield from check_limits(limits.measure())


def check_python(version: tuple[int, ...]) -> Finding:
    """Whether this Python is new enough."""
    detail = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    return Finding("good" if version >= (3, 11) else "bad", "Python", detail, "backflip needs 3.11 or newer")


def check_products(rates: Rates) -> Finding:
    """How fast this CPU multiplies, by which library, and what that means for a model."""
    from backflip.maths.matmul import choose

    try:
        choice = choose(rates)
    except ValueError as problem:
        return Finding("bad", "products", str(problem), "set it to one of the two, or not at all")
    gflops = rates.onednn_gflops if choice == "onednn" else rates.stock_gflops
    other = f" (the stock library: {rates.stock_gflops:.0f})" if choice == "onednn" else ""
    # A token costs 6 products and sums per parameter forwards and backwards; about a third of the rate is reached.
    tokens = gflops * 1e9 / 3 / (6 * 1e6)
    detail = (
        f"{gflops:.0f} GFLOP/s by {choice}{other}: training reads about {tokens / 1e3:.0f} thousand tokens/s per million weights"
    )
    return Finding("good", "products", detail)


def check_limits(limits: Limits) -> Iterator[Finding]:
    """What this CPU can do at most, and what a step of GRPO should take it: 8 prompts of 32 tokens, 8 completions of 64 each.

    The least time of `maths.roofline` over `EFFICIENCY`.
    """
    from backflip.maths.roofline import Group, Shape, grpo_step

    slower = limits.bf16_gflops < limits.fp32_gflops
    yield Finding(
        "good", "limits",
        f"float32 products {limits.stock_gflops:.0f} GFLOP/s by the stock library, {limits.onednn_gflops:.0f} by oneDNN, "
        f"bfloat16 {limits.bf16_gflops:.0f}{' (slower here: leave precision as it is)' if slower else ''}; reading memory "
        f"{limits.read_gb_s:.0f} GB/s",
    )  # fmt: skip

    def expected(vocabulary: int, hidden: int, feed_forward: int, layers: int, heads: int, *, itemsize: int) -> str:
        shape = Shape(
            vocabulary=vocabulary, hidden=hidden, feed_forward=feed_forward, layers=layers, heads=heads, kv_heads=heads,
            head_size=hidden // heads,
        )  # fmt: skip
        work = grpo_step(shape, [Group(32, [64] * 8)] * 8, itemsize=itemsize, kv_itemsize=4)
        gflops = limits.fp32_gflops if itemsize == 4 else limits.bf16_gflops
        return f"{work.seconds(gflops=gflops, read_gb_s=limits.read_gb_s) / EFFICIENCY:.2g}"

    for name, itemsize in (("float32", 4), ("bfloat16", 2)):
        times = ", ".join(f"{expected(*sizes, itemsize=itemsize)} s ({weights})" for weights, sizes in MODELS.items())
        detail = f"of 64 × (32 + 64) tokens in {name}, by weights of the model: {times}, at {EFFICIENCY:.0%} of the limits"
        yield Finding("good", "GRPO step", detail)


def available_memory() -> int | None:
    """Bytes of memory this process may still take; None where the system does not say.

    The smaller of what the machine has and what a container's limit leaves.
    """
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo)
    free = int(found[1]) * 1024 if found else None
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such limit: the file is missing or says "max"
        return free
    return limit - used if free is None else min(free, limit - used)


def check_memory(free: int | None) -> Finding:
    """Whether the toy runs fit; larger models need more, and say so themselves."""
    if free is None:
        return Finding("absent", "memory", "this system does not say how much is free")
    fix = f"the demo wants {NEED_MEMORY / GIB:.0f} GiB; close other programs"
    return Finding("good" if free >= NEED_MEMORY else "bad", "memory", f"{free / GIB:.1f} GiB free", fix)


def check_folder(folder: Path) -> Iterator[Finding]:
    """Whether `folder` exists, may be written to, and has room."""
    if not folder.is_dir():
        yield Finding("bad", "folder", f"{folder} is not a folder", "make it, or name another: backflip doctor FOLDER")
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"backflip")
    except OSError as problem:
        fix = "choose a folder you may write to: backflip doctor FOLDER"
        yield Finding("bad", "folder", f"{folder} cannot be written to ({problem.strerror})", fix)
    else:
        yield Finding("good", "folder", f"{folder.resolve()} can be written to")
    free = shutil.disk_usage(folder).free
    fix = f"a run wants {NEED_DISK / GIB:.0f} GiB; free some, or name another folder: backflip doctor FOLDER"
    yield Finding("good" if free >= NEED_DISK else "bad", "disk", f"{free / GIB:.1f} GiB free", fix)


def version_of(name: str) -> str | None:
    """The installed version of a package; None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_package(name: str, oldest: str, version: str | None) -> Finding:
    """Whether a package backflip cannot do without is there and new enough."""
    fix = f"pip install '{name}>={oldest}'"
    if version is None:
        return Finding("bad", name, "not installed", fix)
    new_enough = _numbers(version) >= _numbers(oldest)
    return Finding("good" if new_enough else "bad", name, version, f"older than {oldest}; {fix}")


def check_optional(name: str, extra: str, purpose: str, version: str | None) -> Finding:
    """Whether a package that adds something is there."""
    if version is None:
        return Finding("absent", name, "optional, not installed", f"pip install 'backflip[{extra}]' to {purpose}")
    return Finding("good", name, version)


def check_device(threads: int, cuda: list[str]) -> Finding:
    """Where torch will compute, given its CPU threads and the names of its CUDA devices."""
    cpu = f"{threads} CPU thread{'s' * (threads > 1)}"
    return Finding("good", "device", f"{cpu}, {', '.join(cuda) or 'no CUDA device (fine for the demo and small models)'}")


def check_arithmetic() -> Finding:
    """Whether a matrix product and a KL estimate come out as they must.

    Log-probabilities −1 (policy) and −2 (reference) have k3 = e⁻¹ − 1 + 1 = e⁻¹ nats.
    """
    import torch

    from backflip.maths.kl import k3

    began = time.perf_counter()
    ones = torch.ones(64, 64, dtype=torch.float64)
    product = float((ones @ ones).sum())
    estimate = float(k3(torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-2.0], dtype=torch.float64)))
    right = product == 64.0**3 and math.isclose(estimate, math.exp(-1), rel_tol=1e-12)
    detail = f"64³ = {product:.0f}, k3 = {estimate:.6f} nats, {1000 * (time.perf_counter() - began):.0f} ms"
    return Finding("good" if right else "bad", "arithmetic", detail, "expected 262144 and 0.367879; reinstall torch")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
