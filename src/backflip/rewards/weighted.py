"""Several rewards as one: their weighted sum, with every part kept apart for the log.

Legend: B rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backflip.errors import ConfigError, NumericsError
from backflip.records import Prompt
from backflip.rewards.calls import AnyReward, Value, call, check_signature
from backflip.rewards.spans import Process, Span


@dataclass(frozen=True)
class Judgement:
    """What a reward thought of B completions.

    `scores` are the weighted sums, one a row: everything. Of each, `outcomes` belongs on the row's last token and `spans`,
    already weighted, inside it: scores = outcomes + the sums of the spans. `parts` holds every part by name, unweighted, None
    where it does not apply; a process counts with its sum. `figures` are what parts have to say beyond their values: the
    mapping `metrics` that some of them, such as unit-tested code, keep of their last call.
    """

    scores: list[float]
    outcomes: list[float]
    spans: list[tuple[Span, ...]]
    parts: dict[str, list[float | None]]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def has_spans(self) -> bool:
        """Whether any row has a reward inside it."""
        return any(self.spans)

    def metrics(self) -> dict[str, float]:
        """`rewards/NAME/mean` and `/std` (of the population) over the rows the part applies to, and their `/share`.

        A part that applies to no row has a share of 0 and nothing else. The parts' own figures keep their names.
        """
        metrics = dict(self.figures)
        for name, column in self.parts.items():
            values = [value for value in column if value is not None]
            metrics[f"rewards/{name}/share"] = len(values) / len(column) if column else 0.0
            if values:
                mean = math.fsum(values) / len(values)
                metrics[f"rewards/{name}/mean"] = mean
                metrics[f"rewards/{name}/std"] = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        return metrics


class Weighted:
    """Σ_k w_k r_k over the parts that apply; a `RewardFunction`, made of any.

    `parts` maps a name to a function and its weight; a weight of 0 only logs. A part may return None for rows it does not apply
    to, which then counts 0, and a `Process`. Raises ConfigError for a weight that is not finite or a function that cannot be
    called.

    >>> shortness = lambda prompts, completions, **columns: [-float(len(c)) for c in completions]
    >>> Weighted({"shortness": (shortness, 0.5)})(["a", "b"], ["xyz", ""])
    [-1.5, 0.0]
    """

    def __init__(self, parts: Mapping[str, tuple[AnyReward, float]]) -> None:
        if not parts:
            raise ConfigError("a reward has at least one part")
        for name, (function, weight) in parts.items():
            check_signature(function, name)
            if not math.isfinite(weight):
                raise ConfigError(f"the weight of reward {name!r} is a finite number, not {weight}")
        self.parts = {name: (function, float(weight)) for name, (function, weight) in parts.items()}

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """The weighted sums, one per completion."""
        return self.judge(prompts, completions, **columns).scores

    def judge(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> Judgement:
        """The weighted sums with all that they are made of.

        Raises NumericsError for a value that is not finite, out of the declared range, missing, or for a row that no part applies
        to; UserError for a part that raised.
        """
        found = {name: call(function, name, prompts, completions, columns) for name, (function, _) in self.parts.items()}
        for row in range(len(completions)):
            if all(values[row] is None for values in found.values()):
                raise NumericsError(
                    f"no reward applies to row {row + 1} ({completions[row][:60]!r}): {', '.join(found)} gave None; "
                    "the usual cause is a row without the column that holds the right answer"
                )
        weights = {name: weight for name, (_, weight) in self.parts.items()}
        outcomes = [
            math.fsum(weights[name] * _outcome(values[row]) for name, values in found.items()) for row in range(len(completions))
        ]
        spans = [
            tuple(span.scaled(weights[name]) for name, values in found.items() if weights[name] for span in _spans(values[row]))
            for row in range(len(completions))
        ]
        scores = [outcome + math.fsum(span.reward for span in inside) for outcome, inside in zip(outcomes, spans, strict=True)]
        totals = {name: [_total(value) for value in values] for name, values in found.items()}
        own = (getattr(function, "metrics", None) for function, _ in self.parts.values())
        figures = {str(name): float(value) for metrics in own if isinstance(metrics, Mapping) for name, value in metrics.items()}
        return Judgement(scores, outcomes, spans, totals, figures)


def judge(reward: AnyReward, prompts: Sequence[Prompt], completions: Sequence[str], **extra: list[Any]) -> Judgement:
    """What a reward thinks of completions of prompts that are records.

    The columns of the prompts go along, None where a row lacks one, and `extra` ones that the caller knows of each completion,
    such as `completion_ids`. A reward that is no `Weighted` is a part by itself, under its own name.
    """
    names = sorted({name for prompt in prompts for name in prompt.columns} - set(extra))
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    texts = [p.text if isinstance(p.text, str) else [m.to_json() for m in p.text] for p in prompts]
    whole = reward if isinstance(reward, Weighted) else Weighted({name_of(reward): (reward, 1.0)})
    return whole.judge(texts, list(completions), **columns, **extra)


def name_of(reward: Any) -> str:
    """What a reward is called in the log: the name of the function or of the class; "reward" for one without a name.

    >>> name_of(len), name_of(lambda prompts, completions: [])
    ('len', 'reward')
    """
    name = getattr(reward, "__name__", type(reward).__name__)
    return str(name) if name.isidentifier() and name != "function" else "reward"


def _total(value: Value) -> float | None:
    return None if value is None else float(value)


def _outcome(value: Value) -> float:
    return 0.0 if value is None else float(value.outcome if isinstance(value, Process) else value)


def _spans(value: Value) -> tuple[Span, ...]:
    return value.spans if isinstance(value, Process) else ()
