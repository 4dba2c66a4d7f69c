"""A monitor for a run, as its settings say: which prompts are kept for it, and who judges."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.errors import DataError
from backflip.monitor import Monitor
from backflip.records import Prompt
from backflip.rewards.ensemble import load_reward
from backflip.rewards.protocol import RewardFunction
from backflip.settings import Watch
from backflip.train.guarding import Watching


def kept_apart(prompts: Sequence[Prompt], settings: Watch) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to train on, and those at which the policy is looked at: the last ones, each once, and not trained on.

    Nothing is kept where nobody looks. Raises DataError when too few prompts are left to train on.
    """
    if not settings.every:
        return list(prompts), []
    different = list({prompt.id: prompt for prompt in prompts}.values())
    fresh = different[-settings.prompts :]
    apart = {prompt.id for prompt in fresh}
    rest = [prompt for prompt in prompts if prompt.id not in apart]
    if not rest:
        raise DataError(
            f"of {len(different)} different prompts {settings.prompts} are kept to watch the policy, which leaves none to train "
            "on; give more prompts, or lower watch.prompts"
        )
    return rest, fresh


def watching(settings: Watch, fresh: Sequence[Prompt], sentinel: RewardFunction | None = None) -> Watching | None:
    """A monitor that looks at the policy on `fresh` prompts, judged by the sentinel, if there is one, and by the judges of the
    settings; None where nobody looks. Raises ModelError for a folder that holds no reward model."""
    if not settings.every:
        return None
    found: dict[str, RewardFunction] = {} if sentinel is None else {"sentinel": sentinel}
    found |= {folder: load_reward(folder) for folder in settings.judges}
    return Watching(
        guard=Monitor(settings), prompts=fresh, every=settings.every, judges=found, vectors=settings.vectors
    )  # fmt: skip
