"""What a loop shows of its policy on the way, and what whoever watches may answer.

A `Look` is what the policy writes for prompts it does not learn from, with everything that can be known of it without gold. A
`Guard` answers each look with a `Ruling`. Training loops call one, `backflip.monitor` has one, and neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

GUARD_FILE = "guard.json"
"""What a guard leaves in the folder of its run: what it saw and decided."""

Act = Literal["warn", "mine", "pause", "stop"]
"""What an alarm asks for: to be read, to have its samples labelled, to wait for a person, to end the run and go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a policy of `step` updates wrote for N fresh prompts, one completion each; the prompts and the random numbers are the
    same at every look, so that two looks can be compared prompt by prompt.

    `proxy` is what is optimised, `judges` the scores of models that nothing is optimised against, `kl` the log-ratio to the
    reference summed over a completion (nats per sequence), `entropy` the mean in nats per token, `lengths` in tokens. `vectors`,
    where there are some, are N hidden states, of a model that does not change.
    """

    step: int
    prompts: Sequence[str]
    completions: Sequence[str]
    proxy: Sequence[float]
    kl: Sequence[float]
    entropy: float
    lengths: Sequence[int]
    finished: Sequence[bool]
    judges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    vectors: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """An alarm that was raised at a look: what it says, the numbers it rests on, and what it asks for.

    `back_to` is the step whose policy a stop goes back to.
    """

    kind: str
    step: int
    act: Act
    sentence: str
    evidence: Mapping[str, Any]
    back_to: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind, "step": self.step, "act": self.act, "sentence": self.sentence, "evidence": dict(self.evidence),
            "back_to": self.back_to,
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Finding:
        """What `to_json` gave."""
        return cls(**row)


class Ruling(NamedTuple):
    """What is to happen after a look: go on, wait for a person, or stop; the step of the best policy so far; what was found at
    this look; and figures for the log."""

    act: Literal["go", "pause", "stop"]
    best: int
    findings: Sequence[Finding] = ()
    figures: Mapping[str, float] = {}


class Guard(Protocol):
    """Somebody who watches a run. It is asked at step 0 and then at every look; `state` is JSON, and a guard that takes it up
    goes on as if it had never stopped."""

    @property
    def ruling(self) -> Ruling:
        """The last answer."""

    def measure_by(self, look: Look) -> None:
        """Measure all looks by this one, which is what the reference writes, instead of by the first; told before that."""

    def look(self, look: Look) -> Ruling:
        """Answer a look."""

    def state(self) -> dict[str, Any]:
        """Everything it remembers, as JSON."""

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` gave."""

    def report(self) -> dict[str, Any]:
        """What it saw and decided, for people, as JSON."""
