"""The page and the picture of made-up results: every figure in its row, bars met and missed, doubtful rows named."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def ratio(median: float, *, ours_mb: float = 400.0, foreign: float = 0.01) -> dict[str, float]:
    """A row of ratios."""
    return {
        "median": median, "low": median - 0.5, "high": median + 0.5, "peer_s": median, "ours_s": 1.0, "peer_mb": 500.0,
        "ours_mb": ours_mb, "foreign": foreign, "steps": 5.0,
    }  # fmt: skip


def floor(median: float, *, foreign: float = 0.01) -> dict[str, float]:
    """Details of a floor."""
    return {
        "median": median, "low": median - 0.05, "high": median + 0.05, "runs": 5.0, "seconds": 4.0, "floor_s": 4.0 * median,
        "gflops": 400.0, "read_gb_s": 50.0, "gflop": 1543.0, "foreign": foreign,
    }  # fmt: skip


GPU = {
    "gpu": "Lightning", "memory_gb": 80.0, "cuda": "13.0", "fp32_tflops": 51.0, "bf16_tflops": 793.0, "read_gb_s": 4162.0,
}  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    """Results of a machine that was never there."""
    details = {"update/M/fp32": floor(0.61) | {"own_shapes_gflops": 350.0}, "generate-64/S/fp32": floor(0.5, foreign=0.3)}
    return {
        "ratios": {
            "sft/XS/default": ratio(1.4),
            "grpo/S/fp32": ratio(2.25, ours_mb=600.0),
            "grpo/XS/default": ratio(2.75, ours_mb=600.0, foreign=0.2),
            "generate-8/XS/fp32": ratio(1.75),
        },
        "floor": {key: row["median"] for key, row in details.items()},
        "floor_details": details,
        "memory": {"update/vocabulary-16384/plain": {"chunked_mb": 844.0, "naive_mb": 1585.0, "ratio": 0.5325}},
        "scaling": {
            "batch": {
                "exponent": 0.87, "size": "XS", "foreign": 0.0,
                "points": {str(n): {"seconds": n / 100, "low": n / 120, "high": n / 90} for n in (16, 32, 64)},
            }
        },
        "machine": {
            "cpu": "Abacus", "cores": 2, "fp32_gflops_stock": 200.0, "fp32_gflops_onednn": 400.0, "bf16_gflops": 900.0,
            "read_gb_s": 50.0,
        },
        "versions": {"torch": "2.13.0"},
    }  # fmt: skip


def test_the_page_shows_every_figure_with_its_bar(script: Callable[[str], ModuleType], results: dict[str, Any]) -> None:
    text = script("page").section(results, "abacus")
    assert "| grpo | XS | default | 2.75× | 2.25 to 3.25 | ≥ 2.6 ✓ | 2.750, 1.000 | 500, 600 | 20% (doubtful) |" in text
    assert "| grpo | S | fp32 | 2.25× | 1.75 to 2.75 | ≥ 2 ✓ | 2.250, 1.000 | 500, 600 ✗ | 1% |" in text
    assert "| sft | XS | default | 1.40× | 0.90 to 1.90 | ≥ 1.5 ✗ |" in text
    assert "| generate-8 | XS | fp32 | 1.75× | 1.25 to 2.25 |  | 1.750, 1.000 | 500, 400 ✓ | 1% |" in text
    assert "| update | M | fp32 | 61% | 56% to 66% | ≥ 60% ✓ | 2.440, 4.000 | 1543 | 400, 350 | 50 | 1% |" in text
    assert "| generate-64 | S | fp32 | 50% | 45% to 55% | ≥ 65% ✗ | 2.000, 4.000 | 1543 | 400 | 50 | 30% (doubtful) |" in text
    assert "| plain | 844, 1585 | 53% | ≤ 60% ✓ |" in text
    assert "| batch | XS | 16: 0.160, 32: 0.320, 64: 0.640 | 0.87 | 0% |" in text
    assert text.startswith(
        "## What came out on Abacus\n\n2 cores; float32 products 200 GFLOP/s by the stock library and 400 by oneDNN"
    )
    assert "benchmarks/results/abacus.json" in text


def test_the_summary_counts_misses_doubts_and_gaps(script: Callable[[str], ModuleType], results: dict[str, Any]) -> None:
    summary = script("page")._summary(results)
    # Three speeds, two floors, two memories at equal settings, one of the log-probabilities.
    assert "5 of 8 bars are met" in summary
    assert (
        "Missed: sft/XS/default (1.40, bar 1.50); roofline of generate-64/S/fp32 (0.50, bar 0.65); "
        "memory of grpo/S/fp32 (600, bar 500)." in summary
    )
    assert "Doubtful, because others used more than 10% of the cores meanwhile: grpo/XS/default, roofline of " in summary
    assert "roofline of update/M/bf16" in summary.split("Not measured yet:")[1]


@pytest.mark.parametrize(
    ("key", "bar"),
    [
        ("grpo/XS/default", 2.6), ("rloo/S/default", 3.0), ("grpo/M/default", 3.5), ("grpo/M/bf16", 2.0), ("rloo/XS/fp32", 2.0),
        ("ppo/S/default", 2.5), ("ppo/S/fp32", None), ("dpo/M/default", 1.5), ("sft/XS/checkpointed", None),
        ("generate-64/S/fp32", 2.0), ("generate-64/XS/fp32", None),
    ],
)  # fmt: skip
def test_bars(script: Callable[[str], ModuleType], key: str, bar: float | None) -> None:
    assert script("bars").ratio_bar(key) == bar


def test_memory_is_compared_at_equal_settings_alone(script: Callable[[str], ModuleType]) -> None:
    comparable = script("bars").comparable
    assert comparable("grpo/S/bf16")
    assert comparable("sft/XS/checkpointed")
    assert comparable("generate-64/S/fp32")
    assert not comparable("grpo/S/default")
    assert not comparable("generate-64/S/bf16")


def test_a_memory_bar_is_an_upper_one(script: Callable[[str], ModuleType]) -> None:
    verdict = script("bars").Verdict
    assert verdict("x", 0.6, 0.6, at_most=True).met
    assert not verdict("x", 0.61, 0.6, at_most=True).met
    assert verdict("x", 0.6, 0.6).met
    assert not verdict("x", None, 0.6).met


def test_the_section_replaces_the_one_before_and_the_picture_is_drawn(
    script: Callable[[str], ModuleType], results: dict[str, Any], tmp_path: Path
) -> None:
    page, image = tmp_path / "performance.md", tmp_path / "performance-cpu.svg"
    page.write_text("# Performance\n\nWhat is done.\n\n## What came out\n\nold figures\n", encoding="utf-8")
    machines = {"gpu": GPU, "cpu-other": results["machine"] | {"cpu": "Slide rule"}, "cpu": results["machine"]}
    (tmp_path / "results").mkdir()
    for name, machine in machines.items():
        ratios = results["ratios"] if name == "cpu" else {"grpo/M/default": ratio(3.0)}
        text = json.dumps((results if name == "cpu" else {"versions": {}}) | {"ratios": ratios, "machine": machine})
        (tmp_path / "results" / f"{name}.json").write_text(text)
    for _ in range(2):
        script("page").write(tmp_path / "results", tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Performance\n\nWhat is done.\n\n## What came out on Abacus\n")
    assert "old figures" not in text
    assert [text.count(f"## What came out on {name}\n") for name in ("Abacus", "Slide rule", "Lightning")] == [1, 1, 1]
    assert text.index("on Abacus") < text.index("on Slide rule") < text.index("on Lightning")
    # What must be reached was promised for CPUs.
    assert "| grpo | M | default | 3.00× | 2.50 to 3.50 | ≥ 3.5 ✗ |" in text.split("on Lightning")[0]
    assert "| grpo | M | default | 3.00× | 2.50 to 3.50 |  |" in text.split("on Lightning")[1]
    assert "80 GB; float32 products 51 TFLOP/s, bfloat16 793, reading memory 4.2 TB/s; CUDA 13.0" in text
    # The rows stand in the order of the plan, however they came into the file.
    assert text.index("| generate-8 | XS") < text.index("| grpo | XS") < text.index("| sft | XS") < text.index("| grpo | S |")
    drawing = ElementTree.fromstring(image.read_text(encoding="utf-8"))
    words = [node.text or "" for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "grpo XS default (disturbed)" in words
    assert "batch: exponent 0.87" in words
    assert "2.75×" in words
    rows = list(drawing.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(rows) == 1 + 4 + 2
    assert all(
        0 <= float(node.attrib[at]) <= 820 for node in drawing.iter() for at in ("x", "x1", "x2", "cx") if at in node.attrib
    )


def test_results_with_ratios_alone_still_make_a_section(script: Callable[[str], ModuleType], results: dict[str, Any]) -> None:
    few = {name: results[name] for name in ("ratios", "machine", "versions")}
    text = script("page").section(few, "cpu")
    assert "### Beside the peer" in text
    assert not any(title in text for title in ("### Beside the machine's limits", "### Memory", "### Growth"))


def test_parts_are_added_to_what_was_measured_before(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    path, module = tmp_path / "results" / "cpu.json", script("results")
    module.add(path, "ratios", {"a/XS/fp32": {"median": 1.0}, "b/XS/fp32": {"median": 2.0}})
    module.add(path, "floor", {"update/M/fp32": 0.6})
    module.add(path, "ratios", {"b/XS/fp32": {"median": 3.0}})
    assert json.loads(path.read_text()) == {
        "ratios": {"a/XS/fp32": {"median": 1.0}, "b/XS/fp32": {"median": 3.0}},
        "floor": {"update/M/fp32": 0.6},
    }
