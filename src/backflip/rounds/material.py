"""What a rounds job learns from, read from its files, and nothing of it from the arena's prompts.

prompts ─┬─ the last `arena_prompts`: the arena, and the recorded comparisons on them measure the reward models
         └─ the others: questions, reward models, PPO; demonstrations and pretraining on these alone
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backflip.errors import ConfigError, DataError
from backflip.feedback.readers import read_comparisons, read_demonstrations, read_prompts, read_texts
from backflip.job_settings import RoundsJob
from backflip.policies.language import LanguagePolicy
from backflip.records import Comparison, Message, Prompt
from backflip.rollout.sampling import check_drawn
from backflip.rounds.asking import check_asking

HUMAN, RECORDED = "human", "recorded"
Overlong = Literal["refuse", "truncate", "drop"]


@dataclass(frozen=True)
class Material:
    """Everything the files of a job give. `fresh` are the comparisons on the arena's prompts: nobody learns from them."""

    prompts: list[Prompt]
    arena_prompts: list[Prompt]
    demonstrations: list[tuple[Prompt, str]]
    documents: list[tuple[Prompt, str]]
    recorded: list[Comparison]
    fresh: list[Comparison]


def read_material(job: RoundsJob) -> Material:
    """Read the files of a job. Raises ConfigError when its settings do not fit together, DataError for a file."""
    check_job(job)
    n = job.max_rows
    comparisons = read_comparisons(job.comparisons)[:n] if job.comparisons is not None else []
    given = read_prompts(job.data)[:n] if job.data is not None else [c.prompt for c in comparisons]
    different: dict[object, Prompt] = {}
    for prompt in given:
        different.setdefault(prompt.text, prompt)
    prompts = list(different.values())
    held = job.train.arena_prompts
    if len(prompts) <= held:
        raise DataError(
            f"{job.data or job.comparisons} holds {len(prompts)} different prompts and {held} are kept for the arena; "
            "lower train.arena_prompts or give more prompts"
        )
    arena = {p.text for p in prompts[-held:]}
    shown = read_demonstrations(job.demonstrations)[:n] if job.demonstrations is not None else []
    demonstrations = [(d.prompt, d.completion) for d in shown if d.prompt.text not in arena]
    if shown and not demonstrations:
        raise DataError(f"every demonstration in {job.demonstrations} is on a prompt kept for the arena; give more")
    recorded = [c for c in comparisons if c.prompt.text not in arena]
    if job.texts is not None:
        documents = [(Prompt(""), text) for text in read_texts(job.texts)[:n]]
    else:
        both = [(c.prompt, text) for c in recorded for text in (c.left, c.right)]
        documents = list({(p.text, text): (p, text) for p, text in [*demonstrations, *both]}.values())
    return Material(
        prompts=prompts[:-held],
        arena_prompts=prompts[-held:],
        demonstrations=demonstrations,
        documents=documents,
        recorded=recorded,
        fresh=[c for c in comparisons if c.prompt.text in arena],
    )


def check_job(job: RoundsJob) -> None:
    """Raise ConfigError when the settings of a job do not fit together."""
    check_drawn(job.train.sampling, "asking about pairs")
    check_asking(job.train)
    check_drawn(job.train.ppo.sampling, "reinforcement learning")
    if job.data is None and job.comparisons is None:
        raise ConfigError("a loop needs prompts: give --data, a file of prompts, or --comparisons, whose prompts will do")
    if job.policy == "tiny" and not (job.texts or job.demonstrations or job.comparisons):
        raise ConfigError("a tiny policy is made from the job's data: give --texts, --demonstrations or --comparisons")
    if job.policy == "tiny" and job.tiny.hidden_size % (2 * job.tiny.heads):
        raise ConfigError(
            f"tiny.hidden_size {job.tiny.hidden_size} is not a multiple of twice tiny.heads {job.tiny.heads}; "
            "every head needs an even width"
        )
    if job.labeler == RECORDED:
        if job.comparisons is None:
            raise ConfigError("labeler 'recorded' needs a file of recorded comparisons: give --comparisons")
        if job.train.rounds > 1:
            raise ConfigError(
                f"labeler 'recorded' answers no new questions, so there is one round, not {job.train.rounds}; "
                "set train.rounds to 1, or say who answers"
            )
        if job.train.verify:
            raise ConfigError(
                "labeler 'recorded' answers no new questions, so nobody can say what is better: set train.verify to 0"
            )
        if not job.train.sentinel:
            raise ConfigError("labeler 'recorded' needs a sentinel to judge the arena: set train.sentinel, such as 0.5")


@dataclass(frozen=True)
class Fitter:
    """Cuts prompts to `limit` tokens as `overlong` says."""

    policy: LanguagePolicy
    limit: int
    overlong: Overlong

    def fit(self, material: Material) -> Material:
        """The material with every prompt cut. Raises DataError when nothing is left, or for a long one when refusing."""
        demonstrations = [(p, text) for given, text in material.demonstrations for p in self._cut(given)]
        cut = Material(
            prompts=self._all(material.prompts, "train on"),
            arena_prompts=self._all(material.arena_prompts, "keep for the arena"),
            demonstrations=demonstrations,
            documents=material.documents,
            recorded=self._comparisons(material.recorded),
            fresh=self._comparisons(material.fresh),
        )
        if bool(demonstrations) != bool(material.demonstrations) or bool(cut.recorded) != bool(material.recorded):
            raise DataError(f"no row is left: every prompt has more than {self.limit} tokens; set overlong to truncate")
        return cut

    def _all(self, prompts: Iterable[Prompt], purpose: str) -> list[Prompt]:
        cut = [p for given in prompts for p in self._cut(given)]
        if not cut:
            raise DataError(f"no prompt is left to {purpose}: all have more than {self.limit} tokens; set overlong to truncate")
        return cut

    def _comparisons(self, given: Sequence[Comparison]) -> list[Comparison]:
        return [replace(c, prompt=p) for c in given for p in self._cut(c.prompt)]

    def _cut(self, prompt: Prompt) -> list[Prompt]:
        """The prompt, or none when it is dropped."""
        if self._fits(prompt):
            return [prompt]
        if self.overlong == "refuse":
            raise DataError(
                f"a prompt has {len(self.policy.encode(prompt))} tokens and at most {self.limit} fit; shorten it, or set "
                f"train.ppo.overlong to truncate or drop: {prompt.plain[:60]!r}"
            )
        return [shorten(prompt, self._fits)] if self.overlong == "truncate" else []

    def _fits(self, prompt: Prompt) -> bool:
        return len(self.policy.encode(prompt)) <= self.limit


def shorten(prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
    """The end of a prompt that fits: as many whole turns as possible, and of a single turn as many words.

    Turns are messages, or in a text what begins with "\\n\\nHuman:". The system's message stays. Raises DataError when
    not even the last word fits.

    >>> shorten(Prompt("\\n\\nHuman: Hi\\n\\nAssistant: Yes?\\n\\nHuman: Go\\n\\nAssistant:"), lambda p: len(p.text) < 40).text
    '\\n\\nHuman: Go\\n\\nAssistant:'
    """
    text = prompt.text
    if isinstance(text, str):
        turns = [text[m.start() :] for m in re.finditer(r"\n\nHuman:", text)]
        words = [text[m.start() :] for m in re.finditer(r"\S+", text)]
        candidates = [[Prompt(t, prompt.columns) for t in options] for options in (turns, words)]
    else:
        first = text[:1] if text[0].role == "system" else ()
        rest = text[len(first) :]
        turns_of = [(*first, *rest[i:]) for i in range(len(rest)) if rest[i].role == "user"]
        last = text[-1]
        words_of = [(*first, Message(last.role, last.content[m.start() :])) for m in re.finditer(r"\S+", last.content)]
        candidates = [[Prompt(t, prompt.columns) for t in options] for options in (turns_of, words_of)]
    for options in candidates:
        place = bisect.bisect_left(options, True, key=fits)
        if place < len(options):
            return options[place]
    raise DataError(f"not even the last word of a prompt fits; raise query_length: {prompt.plain[-60:]!r}")
