"""The outer loop: click → comparison → reward model → policy → arena → next queries.

    RUN/feedback.db          every question and answer
    RUN/generations/NAME/    each policy generation, a Hugging Face folder
    RUN/roundR/reward/       the run that fitted round R's reward model, model/ inside
    RUN/roundR/ppo/          the run that improved the policy
    RUN/arena/NAME.jsonl     what each generation wrote for the arena's prompts

Every stage is a run of its own that can be resumed, or a file that is there whole or not at all, and every random draw is
keyed by its place in the loop. So a killed loop goes on where it was and ends as if it had never been.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backflip.arena import Standings, add_matches, standings
from backflip.errors import DataError, Interrupted
from backflip.feedback.labelers import Labeler, answer_all
from backflip.feedback.queries import pair_queries
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Prompt, Query, Sample
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.runs.atomic import fsync_dir, write_atomic
from backflip.seeds import Seeds
from backflip.settings import Rounds
from backflip.store import Store
from backflip.train.online import improve
from backflip.train.reward import fit_reward

FIRST = "sft"


@dataclass
class Loop:
    """Everything the loop works with. `labeler` None means people: the loop stops while questions are unanswered and goes on
    from there when it is started again. `judge` answers the arena's questions (default: whoever answers the others)."""

    run: Run
    start: Callable[[], LanguagePolicy]
    prompts: Sequence[Prompt]
    arena_prompts: Sequence[Prompt]
    settings: Rounds
    seeds: Seeds
    labeler: Labeler | None
    judge: Labeler | None = None
    gold: RewardFunction | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not self.arena_prompts:
            raise DataError("the loop needs prompts to train on and prompts for the arena; give more prompts")
        self.folder = self.run.folder
        self.store = Store(self.folder / "feedback.db")

    def go(self) -> Standings:
        """All rounds, then the standings of all generations."""
        self.keep(FIRST, self.start)
        for number in range(1, self.settings.rounds + 1):
            self.round(number)
        self.play([FIRST, *(generation(r) for r in range(1, self.settings.rounds + 1))])
        return standings(self.store, seeds=self.seeds.child("standings"), anchor=FIRST)

    def round(self, number: int) -> None:
        """One round, skipped when its generation is already there."""
        before, after = generation(number - 1), generation(number)
        if (self.folder / "generations" / after).is_dir():
            return
        self.run.say(f"round {number}: asking {self.settings.comparisons} questions about {before}")
        policy = self.load(before)
        self.answer(self.questions(number, policy), self.labeler)
        reward = self.reward_model(number, policy)
        self.improve(number, policy, reward)
        self.keep(after, lambda: policy)

    def questions(self, number: int, policy: LanguagePolicy) -> list[Query]:
        """Pairs of the current policy's own completions, filed in the store."""
        chosen = self.seeds.permutation(len(self.prompts), "queries", number)
        count = self.settings.comparisons
        prompts = [self.prompts[chosen[i % len(chosen)]] for i in range(count)]
        samples = generate_samples(policy, prompts, n=2, seeds=self.seeds.child("queries", number), settings=self.settings.sampling)
        queries = pair_queries(samples, seeds=self.seeds.child("pairs", number))
        self.store.add_queries(queries)
        return queries

    def answer(self, queries: list[Query], labeler: Labeler | None) -> None:
        """Have every question answered, or say where people can."""
        if labeler is not None:
            answer_all(self.store, labeler, queries)
            return
        asked = {query.id for query in queries}
        waiting = [query for query in self.store.unanswered() if query.id in asked]
        if waiting:
            raise Interrupted(
                f"{len(waiting)} of {len(queries)} questions wait for an answer; run 'backflip label {self.folder / 'feedback.db'}', "
                "then the same command again"
            )

    def reward_model(self, number: int, policy: LanguagePolicy) -> RewardModel:
        """The reward model of all comparisons so far."""
        folder, seeds = self.folder / f"round{number}" / "reward", self.seeds.child("reward", number)
        with self.subrun(folder, "reward", self.settings.reward) as run:
            if not run.finished:
                samples = self.ruler(number, policy)
                model = RewardModel.from_policy(
                    self.load(FIRST), seeds=seeds, head_init=self.settings.reward.head_init,
                    score_at=self.settings.reward.score_at, max_length=self.settings.reward.max_length,
                )  # fmt: skip
                comparisons = self.store.comparisons()
                report = fit_reward(model, comparisons, self.settings.reward, run, seeds=seeds, samples=samples)
                once(folder / "model", model.save)
                run.finish(report._asdict() | {"comparisons": len(comparisons)})
        return RewardModel.load(folder / "model")

    def ruler(self, number: int, policy: LanguagePolicy) -> list[Sample]:
        """Samples of the current policy on which reward scores are scaled to mean 0 and standard deviation 1."""
        n = self.settings.reward.normalization_samples
        chosen = self.seeds.permutation(len(self.prompts), "ruler", number)
        prompts = [self.prompts[chosen[i % len(chosen)]] for i in range(n)]
        groups = generate_samples(policy, prompts, n=1, seeds=self.seeds.child("ruler", number), settings=self.settings.sampling)
        return [group[0] for group in groups]

    def improve(self, number: int, policy: LanguagePolicy, reward: RewardModel) -> None:
        """PPO from the current policy, kept within `number` budgets of KL from the first one."""
        settings = dataclasses.replace(self.settings.ppo, kl_target=number * self.settings.kl_budget)
        with self.subrun(self.folder / f"round{number}" / "ppo", "ppo", settings) as run:
            result = improve(
                policy, self.prompts, reward, settings, run, seeds=self.seeds.child("ppo", number), gold=self.gold,
                reference=self.load(FIRST).frozen_copy(), kl_coef=self.last_kl_coef(number),
            )  # fmt: skip
            if not run.finished:
                run.finish(result)

    def last_kl_coef(self, number: int) -> float | None:
        """β where the round before left it; a controller that starts anew would first have to find it again."""
        if number == 1:
            return None
        result = json.loads((self.folder / f"round{number - 1}" / "ppo" / "result.json").read_text())
        return float(result["kl_coef"])

    def play(self, names: Sequence[str]) -> None:
        """Every generation against every other on the arena's prompts, blind."""
        written = {name: self.arena_samples(name) for name in names}
        matches = add_matches(self.store, written, seeds=self.seeds.child("arena"))
        self.answer(matches.queries, self.judge or self.labeler)

    def arena_samples(self, name: str) -> list[Sample]:
        """What a generation writes for the arena's prompts; drawn once and kept."""
        path = self.folder / "arena" / f"{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            groups = generate_samples(
                self.load(name), self.arena_prompts, n=1, seeds=self.seeds.child("arena", name), settings=self.settings.sampling
            )
            write_atomic(path, "".join(json.dumps(group[0].to_json(), ensure_ascii=False) + "\n" for group in groups))
        return [Sample.from_json(json.loads(line)) for line in path.read_text().splitlines()]

    def keep(self, name: str, policy: Callable[[], LanguagePolicy]) -> None:
        """Save a generation, unless it is there."""
        once(self.folder / "generations" / name, lambda folder: policy().merged().save(folder))

    def load(self, name: str) -> LanguagePolicy:
        """A generation as it was saved."""
        return load_policy(self.folder / "generations" / name, name=name)

    def subrun(self, folder: Path, kind: str, settings: Any) -> Run:
        """The run of one stage."""
        return Run.open(folder, kind=kind, settings=settings, quiet=self.run.quiet)


def generation(number: int) -> str:
    """The name of the policy after round `number`."""
    return FIRST if number == 0 else f"round{number}"


def once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have `make` fill `folder`, unless it is there; a folder half filled never is."""
    if folder.is_dir():
        return
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    make(new)
    new.rename(folder)
    fsync_dir(folder.parent)
