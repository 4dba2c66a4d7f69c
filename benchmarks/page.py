"""Write the results into docs/performance.md: `.venv/bin/python benchmarks/page.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
HEADING = "## What came out\n"
DOUBTFUL = 0.1


def section(results: dict[str, Any]) -> str:
    """The section of the page that shows these results."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores; float32 products {machine['fp32_gflops_stock']:.0f} GFLOP/s by the stock "
        f"library and {machine['fp32_gflops_onednn']:.0f} by oneDNN, bfloat16 {machine['bf16_gflops']:.0f}, reading memory "
        f"{machine['read_gb_s']:.0f} GB/s; {', '.join(f'{name} {version}' for name, version in versions.items())}. "
        "Written by `make bench` and `benchmarks/page.py`; all figures stand in `benchmarks/results/cpu.json`.",
        "",
        "| job | size | setting | faster | lowest to highest | seconds a step: peer, ours | peak MB: peer, ours | others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, row in results["ratios"].items():
        job, size, setting = key.split("/")
        lines.append(
            f"| {job} | {size} | {setting} | {row['median']:.2f}× | {row['low']:.2f} to {row['high']:.2f} | "
            f"{row['peer_s']:.3f}, {row['ours_s']:.3f} | {row['peer_mb']:.0f}, {row['ours_mb']:.0f} | "
            f"{row['foreign']:.0%}{' (doubtful)' if row['foreign'] > DOUBTFUL else ''} |"
        )
    return HEADING + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text()
    before = text.split(HEADING)[0]
    PAGE.write_text(before + section(json.loads((HERE / "results" / "cpu.json").read_text())))
