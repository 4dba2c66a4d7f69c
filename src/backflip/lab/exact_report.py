"""The report of `exact`, and its tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backflip.algorithms import ALGORITHMS
from backflip.config import to_yaml
from backflip.lab.exact_methods import BIASES, GOALS
from backflip.lab.exact_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]

FAMILIES = {
    "with a critic": ("ppo", "instructgpt", "a2c", "trpo"),
    "without": ("reinforce", "reinforce-baseline", "rloo", "remax", "reinforce++"),
    "penalty in the loss": ("gopher", "reinforce++-baseline", "grpo", "grpo-process", "r1-zero"),
    "another optimum": ("ppo-ptx", "nlpo"),
    "no penalty": ("dr-grpo", "dapo", "gspo", "cispo", "sapo"),
}
"""The algorithms as they stand together in charts, which have six colours."""


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    ends = [s["training"][name]["kl"] for s in seeds for name, goal in GOALS.items() if goal == "π*"]
    return ReportData(
        title="Every algorithm against enumeration",
        summary=(
            f"{len(ALGORITHMS)} algorithms in worlds of {settings.vocab**settings.length} completions a prompt, {len(seeds)} "
            f"{'seed' if len(seeds) == 1 else 'seeds'}: those whose optimum is π* end within {max(ends):.3g} nats of it. "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_credit_figures(seeds)],
        charts=[*_training_charts(seeds), *_reward_charts(seeds), *_length_charts(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run exact --seeds {len(seeds)}`; tables.md beside this page holds every figure.",
            f"β = {settings.beta:g} for every algorithm that has a KL penalty; each draws {settings.steps} × "
            f"{settings.batch_size} completions. KL is that of the prompt where it is largest.",
            "What belongs to a composition is kept as published; sizes, step sizes, β, temperatures and what concerns cut-off "
            "completions are replaced by numbers for this world.",
        ],
    )


def mean(values: Iterable[float]) -> float:
    """Their mean."""
    found = list(values)
    return sum(found) / len(found)


def _training_charts(seeds: Sequence[Seed]) -> list[Chart]:
    return [
        Chart(
            f"To π*, {family}", "step", "log₁₀ nats",
            [_line(seeds, name, "exact/kl_optimum", lambda kl: math.log10(max(kl, 1e-6))) for name in names],
            "KL(π‖π*) by enumeration after every step, −1.3 is the bar of 0.05; mean over seeds, from the lowest to the highest.",
            group="Where they go",
        )
        for family, names in FAMILIES.items() if family != "no penalty"
    ]  # fmt: skip


def _reward_charts(seeds: Sequence[Seed]) -> list[Chart]:
    return [
        Chart(
            f"Reward, {family}", "step", "E[r]", [_line(seeds, name, "exact/reward", float) for name in names],
            f"By enumeration. π* earns {mean(s['world']['optimum'] for s in seeds):.2f}, the best completions "
            f"{mean(s['world']['best'] for s in seeds):.2f}.",
            group="What they earn",
        )
        for family, names in FAMILIES.items() if family in ("another optimum", "no penalty")
    ]  # fmt: skip


def _line(seeds: Sequence[Seed], name: str, figure: str, of: Callable[[float], float]) -> Series:
    curves = [s["training"][name]["curve"] for s in seeds]
    return band(name, curves[0]["step"], [[of(value) for value in curve[figure]] for curve in curves])


def _length_charts(seeds: Sequence[Seed]) -> list[Chart]:
    lengths = [row["length"] for row in seeds[0]["lengths"]]

    def line(figure: str, name: str) -> Series:
        return band(name, lengths, [[row[figure] for row in s["lengths"]] for s in seeds])

    return [
        Chart(
            "What a discount of 0.9 does", "tokens of a completion", "cosine, ratio",
            [line("cosine", "cosine"), line("norm", "norm")],
            "The token-level gradient with the score on the last token against the exact one, by enumeration. At γ = 1 both "
            "levels are equal.",
            group="The credit of tokens",
        )
    ]  # fmt: skip


def _credit_figures(seeds: Sequence[Seed]) -> list[Figure]:
    return [
        Figure(
            f"Noise: {name}", f"{mean(s['credit'][name]['noise'] for s in seeds):.3g}",
            note=f"variance of one completion's gradient over its squared mean; {_bias_in_words(seeds, name)}",
        )
        for name in seeds[0]["credit"]
    ]  # fmt: skip


def _bias(seeds: Sequence[Seed], name: str) -> float:
    return mean(s["credit"][name]["bias"] for s in seeds)


def _bias_in_words(seeds: Sequence[Seed], name: str) -> str:
    bias = _bias(seeds, name)
    return "no bias" if bias < 1e-9 else f"bias {bias:.0%} of the exact norm"


def tables(seeds: Sequence[Seed]) -> str:
    """The tables of the page in the documentation."""
    return "\n".join([_training_table(seeds), _gradient_table(seeds), _credit_table(seeds), _length_table(seeds)])


_FIXED = {"reference": "the reference", "optimum": "π*", "best": "the best completions"}


def _training_table(seeds: Sequence[Seed]) -> str:
    def row(name: str) -> list[str]:
        found = [s["training"][name] for s in seeds]
        rest = ["", ""]
        if found[0]["rest"] is not None:
            rest = [", ".join(f"{f['rest']['kl']:.3f}" for f in found), f"{mean(f['rest']['reward'] for f in found):.2f}"]
        ends = [", ".join(f"{f['kl']:.3f}" for f in found), f"{mean(f['reward'] for f in found):.2f}"]
        return [name, GOALS[name], *ends, *rest]

    fixed = [[f"({name})", "", "", signed(mean(s["world"][key] for s in seeds), 2), "", ""] for key, name in _FIXED.items()]
    head = ["algorithm", "optimum", "KL(π‖π*) at the end, by seed", "E[r]", "KL(π‖π*) at its point of rest", "E[r] there"]
    return table(head, [*map(row, ALGORITHMS), *fixed])


def _gradient_table(seeds: Sequence[Seed]) -> str:
    def row(name: str) -> list[str]:
        found = [s["gradients"][name] for s in seeds]
        along, spread = max((f["along"] for f in found), key=abs), max(f["spread"] for f in found)
        errors = ["", ""] if name in BIASES else [signed(along, 1), f"{spread:.2f}"]
        about = [f"{mean(f[figure] for f in found):.3f}" for figure in ("cosine", "norm")]
        return [name, *errors, *about, f"{mean(f['noise'] for f in found):.0f}", BIASES.get(name, "")]

    head = ["algorithm", "error along", "error of all", "cosine", "norm", "noise", "what biases it"]
    return table(head, map(row, ALGORITHMS))


def _credit_table(seeds: Sequence[Seed]) -> str:
    def row(name: str) -> list[str]:
        found = [s["credit"][name] for s in seeds]
        bias = _bias(seeds, name)
        exactly = "0" if bias < 1e-9 else f"{bias:.3f}"
        return [name, exactly, *(f"{mean(f[figure] for f in found):.3f}" for figure in ("cosine", "norm")),
                f"{mean(f['noise'] for f in found):.0f}"]  # fmt: skip

    return table(["credit", "bias, exact", "cosine", "norm", "noise"], map(row, seeds[0]["credit"]))


def _length_table(seeds: Sequence[Seed]) -> str:
    def row(i: int) -> list[str]:
        found = [s["lengths"][i] for s in seeds]
        return [str(found[0]["length"]), *(", ".join(f"{f[figure]:.3f}" for f in found) for figure in ("cosine", "norm"))]

    head = ["tokens", "cosine at γ = 0.9, by seed", "norm"]
    return table(head, map(row, range(len(seeds[0]["lengths"]))))
