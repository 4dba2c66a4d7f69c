"""Multi-turn text environments: a policy writes, the environment answers, until the episode is over.

One object is one episode. The text of a state is what the policy reads next: a tool's result, an answer of the other side. It is
never trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from backflip.records import Prompt


class Step(NamedTuple):
    """What an environment says to an action: the text that joins what the policy has read, the reward of the action, and
    whether the episode is over."""

    state: str
    reward: float
    done: bool


class TextEnvironment(Protocol):
    """One episode. `stops` are the strings that end an action, besides the end-of-text token."""

    stops: tuple[str, ...]

    def reset(self, prompt: Prompt) -> str:
        """Begin; the text that stands between the prompt and the first action, often none."""
        ...

    def step(self, action: str) -> Step:
        """Answer what the policy wrote in this turn, the string that ended it included."""
        ...


MakeEnvironment = Callable[[], TextEnvironment]
"""Makes the environment of one episode: a class, or anything that returns one."""
