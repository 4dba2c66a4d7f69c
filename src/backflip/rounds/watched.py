"""A monitor for a run, as its settings say: which prompts are kept for it, who judges, and what people's answers say to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from backflip.errors import ConfigError, DataError
from backflip.feedback.labelers import Labeler, opinions
from backflip.maths.shares import Share
from backflip.monitor import Monitor, rules
from backflip.monitor.signals import win_share
from backflip.records import Prompt
from backflip.rewards.ensemble import load_reward
from backflip.rewards.protocol import RewardFunction
from backflip.runs.atomic import write_atomic
from backflip.runs.guard_story import read_guard
from backflip.runs.watching import GUARD_FILE, Finding
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


def check_watching(settings: Watch, labeler: Labeler | None) -> None:
    """Raise ConfigError where there are questions at each look and nobody who answers at once."""
    if settings.every and settings.questions and labeler is None:
        raise ConfigError(
            "watch.questions asks while the policy is improved and needs somebody who answers at once, as a reward model that is "
            "the labeler of rounds does; people, who answer when they like, are asked after a round by train.verify"
        )


def watching(
    settings: Watch, fresh: Sequence[Prompt], sentinel: RewardFunction | None = None, labeler: Labeler | None = None,
    *, by_reference: bool = False,
) -> Watching | None:  # fmt: skip
    """A monitor that looks at the policy on `fresh` prompts, judged by the sentinel, if there is one, and by the judges of the
    settings, and asks the labeler, who answers at once; None where nobody looks. `by_reference` as `Watching` has it.

    Raises ModelError for a folder that holds no reward model, ConfigError where there are questions and nobody to ask.
    """
    if not settings.every:
        return None
    check_watching(settings, labeler)
    found: dict[str, RewardFunction] = {} if sentinel is None else {"sentinel": sentinel}
    found |= {folder: load_reward(folder) for folder in settings.judges}
    return Watching(
        guard=Monitor(settings, None if labeler is None else partial(opinions, labeler)), prompts=fresh, every=settings.every,
        judges=found, vectors=settings.vectors, by_reference=by_reference,
    )  # fmt: skip


def answered(newest: Mapping[str, Any] | None, wins: Sequence[float], step: int, back_to: int | None) -> list[Finding]:
    """The alarms that rest on people's answers to a round: to what its questions said of the reward model before, `newest`, and
    how far the policy of `step` updates won each comparison with the one that it was made of."""
    found = [] if newest is None else list(rules.labels(0, Share(**newest)))
    return [*found, *rules.losing(step, win_share(wins), back_to)]


def record(run: Path, findings: Sequence[Mapping[str, Any]]) -> None:
    """Add findings, as JSON, to what the monitor of a run left, unless they stand there; nothing where nobody looked."""
    report = read_guard(run)
    if report is None:
        return
    new = [finding for finding in findings if finding not in report["findings"]]
    if new:
        report["findings"] += new
        write_atomic(run / GUARD_FILE, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
