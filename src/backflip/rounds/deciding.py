"""After a round: go on, ask for more, go back, or stop; and the evidence, written down.

RUN/roundR/decision.json   what was decided after round R, and why
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backflip.maths.ratings import WinRate, win_rate
from backflip.records import Comparison
from backflip.runs.atomic import write_atomic
from backflip.runs.logs import read_object

Act = Literal["next", "more labels", "roll back", "stop"]
VERIFY = "verify"
"""The purpose of the questions on which a decision rests; no reward model learns from their answers."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows from a round: `act`, the policy that is `kept`, and how many times as many questions the next round asks.

    `evidence` holds the numbers it rests on. "stop" ends the loop before its last round; the policy that is kept is its result.
    """

    round: int
    act: Act
    kept: str
    times: int
    why: str
    evidence: Mapping[str, Any]


def decide(
    number: int, before: str, after: str, won: WinRate | None, history: Sequence[Decision], patience: int,
    evidence: Mapping[str, Any],
) -> Decision:  # fmt: skip
    """What follows from round `number`, which made the policy `after` of `before`.

    `won` is how often `after` was preferred on fresh questions, with its 95 % interval; None: nobody has said so, and it is kept.
    Surely better, it is kept and the loop goes on. Surely worse, it is dropped. Neither, the one that won more often is kept and
    the next round asks twice as many questions. After `patience` rounds in a row that were not surely better the loop stops.

    >>> decide(1, "sft", "round1", WinRate(0.6, 0.52, 0.67, 200), [], 2, {}).act
    'next'
    """
    if won is None:
        return Decision(
            round=number, act="next", kept=after, times=1, why="nobody has said whether it is better", evidence=evidence
        )
    said = f"{after} was preferred to {before} in {won.mean:.0%} of {won.n} fresh comparisons ({won.low:.0%} to {won.high:.0%})"
    found = {**evidence, "win_rate": won._asdict()}
    if won.low > 0.5:
        return Decision(round=number, act="next", kept=after, times=1, why=said, evidence=found)
    kept = after if won.mean > 0.5 else before
    in_a_row = 1
    for past in reversed(history):
        if past.act == "next":
            break
        in_a_row += 1
    if in_a_row >= patience:
        why = f"{said}; {in_a_row} rounds in a row were not surely better"
        return Decision(round=number, act="stop", kept=kept, times=1, why=why, evidence=found)
    if won.high < 0.5:
        return Decision(round=number, act="roll back", kept=before, times=1, why=said, evidence=found)
    return Decision(round=number, act="more labels", kept=kept, times=2, why=said, evidence=found)


def preferred(comparisons: Iterable[Comparison], after: str, before: str) -> WinRate | None:
    """How often `after` won against `before`, over prompts; None where the two never met."""
    met = list(meetings(comparisons, after, before))
    return win_rate([won for won, _ in met], [prompt for _, prompt in met]) if met else None


def meetings(comparisons: Iterable[Comparison], after: str, before: str) -> Iterator[tuple[float, str]]:
    """Of each comparison of the two, how far `after` won, a tie being one half, and its prompt's id."""
    for c in comparisons:
        if {c.left_policy, c.right_policy} == {after, before}:
            yield (c.p_left if c.left_policy == after else 1.0 - c.p_left), c.prompt.id


def staleness(comparisons: Sequence[Comparison], names: Sequence[str]) -> float | None:
    """How old what was learned from is: the mean, over the texts compared, of the number of policies made since their own.

    `names` are the policies from the first to the one that is improved. None where no text says who wrote it.

    >>> from backflip.records import Prompt
    >>> c = Comparison(Prompt("a"), "b", "c", p_left=1.0, left_policy="sft", right_policy="round1")
    >>> staleness([c], ["sft", "round1"])
    0.5
    """
    age = {name: len(names) - 1 - i for i, name in enumerate(names)}
    ages = [age[name] for c in comparisons for name in (c.left_policy, c.right_policy) if name in age]
    return statistics.fmean(ages) if ages else None


def file_of(folder: Path, number: int) -> Path:
    """Where the decision after a round stands."""
    return folder / f"round{number}" / "decision.json"


def write(folder: Path, decision: Decision) -> None:
    """Write it down."""
    write_atomic(file_of(folder, decision.round), json.dumps(asdict(decision), indent=1, ensure_ascii=False) + "\n")


def read(folder: Path, rounds: int) -> list[Decision]:
    """The decisions of the first rounds, as far as they were taken."""
    found = []
    for number in range(1, rounds + 1):
        path = file_of(folder, number)
        if not path.exists():
            break
        found.append(Decision(**read_object(path)))
    return found
