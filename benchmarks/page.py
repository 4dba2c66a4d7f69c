"""Write the results into docs/performance.md, a section and a picture for each machine: `.venv/bin/python benchmarks/page.py`.

Every file in benchmarks/results is a machine's: cpu.json comes first, what other CPUs gave next, GPUs last.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bars import FLOORS, MEMORY, comparable, in_order, ratio_bar, verdicts
from plot import picture
from results import RESULTS, load
from worker import QUIET

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEADING = "## What came out"


def section(results: dict[str, Any], name: str) -> str:
    """The section of the page that shows the results of the file `name`.json."""
    machine = results["machine"]
    on_gpu = "gpu" in machine
    parts = [f"{HEADING} on {machine['gpu'] if on_gpu else machine['cpu']}", _machine(results, name)]
    parts += [] if on_gpu else [_summary(results)]
    parts += [f"![The figures below as bars and lines](performance-{name}.svg)"]
    parts += [_ratios(results["ratios"], bars=not on_gpu), _floors(results), _memory(results), _scaling(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: dict[str, Any], name: str) -> str:
    machine, versions = results["machine"], results["versions"]
    if "gpu" in machine:
        what = (
            f"{machine['memory_gb']:.0f} GB; float32 products {machine['fp32_tflops']:.0f} TFLOP/s, bfloat16 "
            f"{machine['bf16_tflops']:.0f}, reading memory {machine['read_gb_s'] / 1000:.1f} TB/s; CUDA {machine['cuda']}"
        )
    else:
        what = (
            f"{machine['cores']} cores; float32 products {machine['fp32_gflops_stock']:.0f} GFLOP/s by the stock library and "
            f"{machine['fp32_gflops_onednn']:.0f} by oneDNN, bfloat16 {machine['bf16_gflops']:.0f}, reading memory "
            f"{machine['read_gb_s']:.0f} GB/s"
        )
    command = "make bench-gpu" if "gpu" in machine else "make bench"
    return (
        f"{what}; {', '.join(f'{package} {version}' for package, version in versions.items())}. Measured by `{command}`; all "
        f"figures stand in `benchmarks/results/{name}.json`."
    )


def _summary(results: dict[str, Any]) -> str:
    found = verdicts(results)
    measured = [v for v in found if v.value is not None]
    lines = [f"{sum(v.met for v in measured)} of {len(measured)} bars are met (✓ or ✗ below)."]
    missed = [f"{v.key} ({_shown(v.value)}, bar {_shown(v.bar)})" for v in measured if not v.met and v.value is not None]
    if missed:
        lines.append(f"Missed: {'; '.join(missed)}.")
    if doubtful := [v.key for v in measured if v.doubtful]:
        lines.append(f"Doubtful, because others used more than {QUIET:.0%} of the cores meanwhile: {', '.join(doubtful)}.")
    if absent := [v.key for v in found if v.value is None]:
        lines.append(f"Not measured yet: {', '.join(absent)}.")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"


def _disturbed(foreign: float) -> str:
    return f"{foreign:.0%}{' (doubtful)' if foreign > QUIET else ''}"


def _ratios(ratios: dict[str, Any], *, bars: bool) -> str:
    lines = [
        "### Beside the peer",
        "",
        "| job | size | setting | faster | lowest to highest | bar | seconds a step: peer, ours | peak MB: peer, ours | others |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in ratios.items():
        job, size, setting = key.split("/")
        bar = ratio_bar(key) if bars else None
        reached = "" if bar is None else f"≥ {bar:g} {_mark(row['median'] >= bar)}"
        memory = f" {_mark(row['ours_mb'] <= row['peer_mb'])}" if bars and comparable(key) else ""
        lines.append(
            f"| {job} | {size} | {setting} | {row['median']:.2f}× | {row['low']:.2f} to {row['high']:.2f} | {reached} | "
            f"{row['peer_s']:.3f}, {row['ours_s']:.3f} | {row['peer_mb']:.0f}, {row['ours_mb']:.0f}{memory} | "
            f"{_disturbed(row['foreign'])} |"
        )
    return "\n".join(lines)


def _floors(results: dict[str, Any]) -> str:
    details = results.get("floor_details", {})
    if not details:
        return ""
    lines = [
        "### Beside the machine's limits",
        "",
        "The least time a job can take over the time it took, rate and job measured by turns; of `update` that is the share of "
        "the rate of large products (2048 × 2048) which forward and backward pass reach, beside it the rate at the model's own "
        "shapes.",
        "",
        "| job | size | precision | of the roofline | lowest to highest | bar | seconds: least, measured | GFLOP | "
        "GFLOP/s: large, own shapes | GB/s | others |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in details.items():
        job, size, precision = key.split("/")
        bar = FLOORS.get(key)
        reached = "" if bar is None else f"≥ {bar:.0%} {_mark(row['median'] >= bar)}"
        own = f", {row['own_shapes_gflops']:.0f}" if "own_shapes_gflops" in row else ""
        lines.append(
            f"| {job} | {size} | {precision} | {row['median']:.0%} | {row['low']:.0%} to {row['high']:.0%} | {reached} | "
            f"{row['floor_s']:.3f}, {row['seconds']:.3f} | {row['gflop']:.0f} | {row['gflops']:.0f}{own} | "
            f"{row['read_gb_s']:.0f} | {_disturbed(row['foreign'])} |"
        )
    return "\n".join(lines)


def _memory(results: dict[str, Any]) -> str:
    rows = results.get("memory", {})
    if not rows:
        return ""
    lines = [
        "### Memory",
        "",
        "The peak of an update with a vocabulary of 16384 above what stood there before it, with log-probabilities in chunks "
        "(ours) and with all logits at once.",
        "",
        "| update | peak MB: in chunks, at once | share | bar |",
        "|---|---|---|---|",
    ]
    for key, row in rows.items():
        reached = f"≤ {MEMORY:.0%} {_mark(row['ratio'] <= MEMORY)}"
        lines.append(f"| {key.split('/')[2]} | {row['chunked_mb']:.0f}, {row['naive_mb']:.0f} | {row['ratio']:.0%} | {reached} |")
    return "\n".join(lines)


def _scaling(results: dict[str, Any]) -> str:
    rows = results.get("scaling", {})
    if not rows:
        return ""
    lines = [
        "### Growth",
        "",
        "Seconds of our GRPO step while one thing is varied around 64 completions of 64 tokens, 8 to a prompt; completions of "
        "fixed length.",
        "",
        "| varied | size | seconds | exponent | others |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        points = ", ".join(f"{x}: {point['seconds']:.3f}" for x, point in row["points"].items())
        lines.append(f"| {name} | {row['size']} | {points} | {row['exponent']:.2f} | {_disturbed(row['foreign'])} |")
    return "\n".join(lines)


def write(folder: Path, docs: Path) -> None:
    """Put a section for every file of results in `folder` at the end of the page in `docs`, and draw their pictures."""
    page = docs / "performance.md"
    parts = [page.read_text(encoding="utf-8").split(HEADING)[0].rstrip() + "\n"]
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.stem.startswith("gpu"), path.stem)):
        results = load(path)
        results |= {"ratios": in_order(results["ratios"])}
        parts.append(section(results, path.stem))
        (docs / f"performance-{path.stem}.svg").write_text(picture(results), encoding="utf-8")
    page.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write(RESULTS.parent, DOCS)
