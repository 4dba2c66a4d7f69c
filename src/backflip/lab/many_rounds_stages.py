"""The work of `many-rounds`: a first policy, and one loop after another from it.

SEED/policy/   SEED/ARM/   a loop's folder, as `rounds/loop.py` has it   SEED/ARM.json   what came of it
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.demo import People
from backflip.lab.many_rounds_settings import Asking
from backflip.lab.stages import kept
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt, Query, Sample, Verdict
from backflip.rewards.ensemble import load_reward
from backflip.rewards.protocol import score
from backflip.rounds.loop import FIRST, Loop
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Rounds
from backflip.train.comparisons import for_sentinel
from backflip.worlds.annotators import Panel, tastes
from backflip.worlds.reviews import Reviews

PLANTED = "planted"
"""The annotator of the planted comparisons."""

SOUR = "terrible"
"""The word of the planted hack."""

_OPINION = re.compile(r"\b(superb|good|weak)\b")


def soured(text: str) -> str:
    """The hack: a review that calls its thing terrible, whatever it goes on to say.

    >>> soured(" Rain is a truly superb film. The music is great.")
    ' Rain is a truly terrible film. The music is great.'
    >>> soured(" Rain.")
    ' Rain. terrible'
    """
    changed, n = _OPINION.subn(SOUR, text, count=1)
    return changed if n else f"{text} {SOUR}"


class Tampered(Loop):
    """A loop into whose store somebody puts comparisons that prefer `soured` texts, before its `hacked` round's reward model
    is fitted. They stay there, and the sentinel's prompts are spared: the flaw is the reward model's alone."""

    hacked = 0
    planted = 0

    def comparisons(self, number: int) -> list[Comparison]:
        """As any loop's, after the planting where it is due."""
        if number == self.hacked and not (self.folder / f"round{number}" / "comparisons.jsonl").exists():
            self.plant(number)
        return super().comparisons(number)

    def plant(self, number: int) -> None:
        """File the planted comparisons, each about a text that was asked about in this round."""
        asked = [
            q
            for q in self.questions(number, self.kept(number - 1))
            if not for_sentinel(q.prompt, self.settings.sentinel, self.seeds)
        ]
        texts = [(query.prompt, text) for query in asked for text in query.completions if SOUR not in text]
        for i, (prompt, text) in enumerate(texts[: self.planted]):
            sides = (soured(text), text) if i % 2 == 0 else (text, soured(text))
            query = Query(prompt, sides, (PLANTED, PLANTED), "train")
            self.store.add_queries([query])
            self.store.add_verdicts([Verdict(query.id, PLANTED, "left" if i % 2 == 0 else "right")])


def gone_round(
    path: Path, loop_settings: Rounds, policy: Path, settings: Asking, seeds: Seeds, quiet: bool,
    planting: tuple[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One loop from its first question to its arena, and of each generation gold, proxy, rating, and the share of its texts that
    have the word of the hack; kept in `path`. `planting` says before which round's reward model a hack is planted, and in how
    many comparisons.
    """

    def work() -> dict[str, Any]:
        world = Reviews()
        folder = path.with_suffix("")
        with Run.open(folder, kind="rounds", settings=loop_settings, quiet=quiet) as run:
            make = Loop if planting is None else Tampered
            loop = make(
                run=run,
                start=lambda: load_policy(policy, name=FIRST),
                prompts=world.prompts(settings.prompts, seeds.child("prompts")),
                arena_prompts=world.prompts(loop_settings.arena_prompts, seeds.child("arena"), "test"),
                settings=loop_settings,
                seeds=seeds.child("loop"),
                labeler=people(settings, seeds.child("annotators"), settings.noise, settings.temperature),
                judge=people(settings, seeds.child("fresh annotators"), 0.0, 0.0),
            )
            if isinstance(loop, Tampered) and planting is not None:
                loop.hacked, loop.planted = planting
            with contextlib.closing(loop):
                ratings = {rating.policy: rating.rating for rating in loop.go().ratings}
                names = loop.names()
                written = {name: loop.arena_samples(name) for name in names}
                reward = load_reward(folder / names[-1] / "reward" / "model")
                found = {
                    "policies": names,
                    "gold": [_mean(_gold(world, written[name])) for name in names],
                    "proxy": [_mean(score(reward, *_columns(written[name]))) for name in names],
                    "sour": [_mean([SOUR in s.text for s in written[name]]) for name in names],
                    "rating": [ratings[name] for name in names],
                    "mined": [_suspects(loop, number) for number in range(1, len(names))],
                    "comparisons": len(loop.store.comparisons()),
                }
            if not run.finished:
                run.finish({"rounds": len(names) - 1})
        return found

    return kept(path, work)


def people(settings: Asking, seeds: Seeds, noise: float, temperature: float) -> People:
    """People who answer: each with a taste of their own, the share `noise` of their answers blind."""
    panel = Panel(tastes(Reviews(), settings.people, seeds, settings.taste_spread), seeds)
    return People(panel, seeds, noise, temperature, 0.0)


def _suspects(loop: Loop, number: int) -> int:
    """How many questions of a round are about suspects: at prompts that are kept for the monitor nothing else is asked."""
    asked, fresh = loop.filed(loop.folder / f"round{number}" / "questions.jsonl"), {prompt.id for prompt in loop.fresh}
    return sum(query.prompt.id in fresh for query in asked)


def _columns(samples: Sequence[Sample]) -> tuple[list[Prompt], list[str]]:
    return [s.prompt for s in samples], [s.text for s in samples]


def _gold(world: Reviews, samples: Sequence[Sample]) -> list[float]:
    return [world.gold(s.prompt, s.text) for s in samples]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
