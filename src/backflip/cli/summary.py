"""What a person reads when a loop has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def show_result(report: Path) -> None:
    """Print the headline numbers and ratings beside a report, and where the report is."""
    from rich.console import Console
    from rich.table import Table

    result = json.loads((report.parent / "result.json").read_text())
    console = Console()
    names = list(result["proxy"])
    table = Table(title="Generations", title_justify="left", title_style="bold")
    rewards = [kind for kind in ("gold", "proxy", "sentinel") if kind in result]
    for column in ("policy", *rewards, "rating", "95 % interval"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    ratings = {rating["policy"]: rating for rating in result["ratings"]}
    for name in names:
        rating = ratings.get(name, {"rating": None})
        placed = rating["rating"] is not None
        table.add_row(
            name,
            *(f"{result[kind][name]:+.2f}" for kind in rewards),
            f"{rating['rating']:.0f}" if placed else "–",
            f"{rating['low']:.0f} to {rating['high']:.0f}" if placed else "–",
        )
    console.print(table)
    rate = result["win_rate_vs_sft"]
    if rate is not None:
        console.print(
            f"The last policy beats the first in {rate['mean']:.0%} of {rate['n']} blind comparisons "
            f"(95 % interval {rate['low']:.0%} to {rate['high']:.0%}), {result['kl_seq_nats']:.1f} nats away from it "
            f"(target {result['kl_target_nats']:.0f})."
        )
    if "reward_model" in result:
        quality = result["reward_model"]
        console.print(
            f"The reward model is right on {quality['accuracy']:.1%} of {quality['n']} held-out pairs (95 % interval "
            f"{quality['accuracy_low']:.1%} to {quality['accuracy_high']:.1%}); a coin on 50 %, the shorter reply on "
            f"{quality['shorter_accuracy']:.1%}."
        )
    console.print(f"Report: {report}", soft_wrap=True)


def show_accuracy(judge: str, result: Mapping[str, Any]) -> None:
    """Print how often `judge` is right about comparisons, beside the two bars it must clear."""
    seen = "comparisons kept aside" if result["held_out"] else "the comparisons it learned from (nothing was kept aside)"
    print(f"accuracy on {result['n']} {seen}, ties left out:")
    for name, key in ((judge, ""), ("always the shorter text", "shorter_")):
        low, high = result[f"{key or 'accuracy_'}low"], result[f"{key or 'accuracy_'}high"]
        print(f"  {name:<24}{result[f'{key}accuracy']:7.1%}   95 % interval {low:.1%} to {high:.1%}")
    print(f"  {'a coin':<24}{0.5:7.1%}")


def show_verifier(result: Mapping[str, Any]) -> None:
    """Print how often a verifier is right about marks, beside always saying what is commoner."""
    seen = "marks kept aside" if result["held_out"] else "the marks it learned from (nothing was kept aside)"
    print(f"accuracy on {result['n']} {seen}:")
    print(f"  {'this verifier':<24}{result['accuracy']:7.1%}   95 % interval "
          f"{result['accuracy_low']:.1%} to {result['accuracy_high']:.1%}")  # fmt: skip
    print(f"  {'always the commoner':<24}{result['majority']:7.1%}")
    if result["area"] is not None:
        print(f"a right one scores above a wrong one in {result['area']:.1%}")
