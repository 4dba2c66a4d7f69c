"""The outer loop: click → comparison → reward model → policy → arena → next queries.

    RUN/feedback.db          every question and answer
    RUN/generations/NAME/    each policy generation, a Hugging Face folder
    RUN/roundR/questions.jsonl    what was asked in round R; asked.json says by which rule, where one chose among candidates
    RUN/roundR/comparisons.jsonl  what its answers said when the last of them was in
    RUN/roundR/newest.json   how right the last round's reward model was on this round's answers
    RUN/roundR/reward/       the run that fitted round R's reward model, model/ inside; sentinel/ likewise, where there is one
    RUN/roundR/ppo/          the run that improved the policy
    RUN/roundR/decision.json      what was decided then, with its evidence
    RUN/arena/NAME.jsonl     what each generation wrote for the arena's prompts

Every stage is a run of its own that can be resumed, or a file that is there whole or not at all, and every random draw is
keyed by its place in the loop. So a killed loop goes on where it was and ends as if it had never been.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backflip.arena import Standings, add_matches, standings
from backflip.errors import DataError, Interrupted
from backflip.feedback.labelers import Labeler, answer_all
from backflip.feedback.queries import pair_queries
from backflip.feedback.report import ASKED, asked_event
from backflip.monitor import rules
from backflip.monitor.mining import questions as suspicious
from backflip.monitor.signals import label_accuracy
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy, with_lora
from backflip.records import Comparison, Prompt, Query, Record, Sample, Verdict, content_id
from backflip.rewards.ensemble import Learned, load_reward
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score
from backflip.rollout.local import generate_samples
from backflip.rounds import asking, deciding
from backflip.rounds.checking import check_rounds
from backflip.rounds.deciding import Decision
from backflip.rounds.waiting import offer, told, wait_for_answers
from backflip.rounds.watched import answered, kept_apart, record, watching
from backflip.runs import Run
from backflip.runs.atomic import once, write_atomic
from backflip.runs.guard_story import read_guard
from backflip.runs.logs import read_object
from backflip.seeds import Seeds
from backflip.settings import Rounds
from backflip.store import Store
from backflip.train.comparisons import for_sentinel
from backflip.train.fitting import fit
from backflip.train.online import improve

FIRST = "sft"
WAITING = 3
"""The exit code of a loop that waits for people's answers."""


@dataclass
class Loop:
    """Everything the loop works with. Raises DataError without prompts.

    `labeler` None means people: the loop stops while questions are unanswered and goes on from there when it is started
    again, or with `enough` waits until so many of a set of questions are answered. `judge` answers the arena's questions
    (default: whoever answers the others). `recorded` comparisons stand in for the questions of round 1; with `lora` each round
    trains an adapter of that rank and keeps it merged.
    """

    run: Run
    start: Callable[[], LanguagePolicy]
    prompts: Sequence[Prompt]
    arena_prompts: Sequence[Prompt]
    settings: Rounds
    seeds: Seeds
    labeler: Labeler | None
    judge: Labeler | None = None
    gold: RewardFunction | None = None
    recorded: Sequence[Comparison] = ()
    lora: int | None = None
    enough: int | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not self.arena_prompts:
            raise DataError("the loop needs prompts to train on and prompts for the arena; give more prompts")
        check_rounds(self.settings, self.labeler)
        self.prompts, self.fresh = kept_apart(self.prompts, self.settings.watch)
        self.folder = self.run.folder
        self.store = Store(self.folder / "feedback.db")

    def go(self) -> Standings:
        """All rounds, or as many as it takes until one decides to stop, then the standings of all generations."""
        self.keep(FIRST, self.start)
        for number in range(1, self.settings.rounds + 1):
            self.round(number)
            if self.decisions()[-1].act == "stop":
                break
        self.play(self.names())
        return standings(self.store, seeds=self.seeds.child("standings"), anchor=FIRST)

    def round(self, number: int) -> None:
        """One round, skipped when its generation and its decision are already there."""
        before, after = self.kept(number - 1), generation(number)
        if not (self.folder / "generations" / after).is_dir():
            if number > 1 or not self.recorded:
                queries = self.questions(number, before)
                self.run.say(f"round {number}: {len(queries)} questions about {before}")
                self.answer(queries, self.labeler)
                self.hear(number, queries)
            self.pause()
            policy = self.load(before)
            reward = self.reward_model(number, policy)
            if self.settings.improve_from == "first":
                policy = self.load(FIRST)
            if self.lora is not None:
                policy = with_lora(policy, rank=self.lora, seeds=self.seeds.child("lora", number))
            self.improve(number, policy, reward)
            self.keep(after, lambda: policy)
        if deciding.file_of(self.folder, number).exists():
            record(self.folder / f"round{number}" / "ppo", self.decisions()[number - 1].evidence.get("alarms", []))
            return
        decision = self.decide(number, before, after)
        deciding.write(self.folder, decision)
        if self.settings.verify:
            self.run.say(f"round {number}: {decision.act}; {decision.why}")

    def decisions(self) -> list[Decision]:
        """What was decided after the rounds that are over."""
        return deciding.read(self.folder, self.settings.rounds)

    def names(self) -> list[str]:
        """All policies made so far, kept or not, the first one first."""
        return [FIRST, *(generation(decision.round) for decision in self.decisions())]

    def kept(self, number: int) -> str:
        """The policy that was kept after round `number`: what the next round starts from, and in the end the result."""
        return FIRST if number == 0 else self.decisions()[number - 1].kept

    def begun(self, number: int) -> str:
        """The policy that round `number` improves."""
        return FIRST if self.settings.improve_from == "first" else self.kept(number - 1)

    @property
    def final(self) -> str:
        """The result: the policy that is kept after the last round that was played."""
        return self.kept(len(self.decisions()))

    def decide(self, number: int, before: str, after: str) -> Decision:
        """What follows from a round: the new policy and the one before meet on fresh prompts, and whoever answers judges."""
        past = self.decisions()
        evidence: dict[str, Any] = {
            "comparisons": len(self.comparisons(number)),
            "staleness": deciding.staleness(self.comparisons(number), [FIRST, *(generation(r) for r in range(1, number))]),
        }
        found = read_object(self.folder / f"round{number}" / "ppo" / "result.json")
        if "watch" in found:
            evidence["watch"] = found["watch"]
        newest = self.folder / f"round{number}" / "newest.json"
        if newest.exists():
            evidence["newest_labels"] = read_object(newest)
        won, wins = None, []
        if self.settings.verify:
            self.answer(self.verification(number, before, after), self.labeler)
            asked = list(self.store.comparisons(purpose=deciding.VERIFY))
            won = deciding.preferred(asked, after, before)
            wins = [far for far, _ in deciding.meetings(asked, after, before)]
        if alarms := self.alarms(number, evidence, wins):
            evidence["alarms"] = alarms
        return deciding.decide(number, before, after, won, past, self.settings.patience, evidence)

    def alarms(self, number: int, evidence: Mapping[str, Any], wins: Sequence[float]) -> list[dict[str, Any]]:
        """What people's answers say of a round, as alarms; said, and added to what the round's monitor found."""
        watch = evidence.get("watch", {"stopped": False})
        step = int(watch["rolled_back_to"]) if watch["stopped"] else self.settings.ppo.steps
        back_to = None if self.settings.improve_from == "first" and number > 1 else 0
        found = answered(evidence.get("newest_labels"), wins, step, back_to)
        for finding in found:
            if finding.kind != "labels":  # which was said when they were heard
                self.run.say(f"round {number}: {finding.sentence}")
        rows = [finding.to_json() for finding in found]
        record(self.folder / f"round{number}" / "ppo", rows)
        return rows

    def verification(self, number: int, before: str, after: str) -> list[Query]:
        """Questions about two policies that no reward model learns from, made once and filed in the store."""
        path = self.folder / f"round{number}" / "verification.jsonl"
        if not path.exists():
            chosen = self.seeds.permutation(len(self.prompts), "verify", number)
            prompts = [self.prompts[chosen[i % len(chosen)]] for i in range(self.settings.verify)]
            drawn = [self.sample(number, name, prompts, 1, deciding.VERIFY) for name in (before, after)]
            groups = [[*one, *other] for one, other in zip(*drawn, strict=True)]
            write_atomic(path, _lines(pair_queries(groups, seeds=self.seeds.child("verify", number), purpose=deciding.VERIFY)))
        return self.filed(path)

    def questions(self, number: int, policy: str) -> list[Query]:
        """What is asked in a round about the policy that was kept, made once, kept, and filed in the store."""
        path = self.folder / f"round{number}" / "questions.jsonl"
        how = path.with_name("asked.json")
        if not path.exists():
            past = self.decisions()
            suspects: list[Query] = []
            reward = None
            if number > 1:
                report = read_guard(self.folder / f"round{number - 1}" / "ppo")
                rows = [] if report is None else report["suspects"]
                suspects = suspicious(rows, policy=generation(number - 1), first=FIRST, begun=self.begun(number - 1))
            if number > 1 and self.settings.candidates > 1:  # else nothing is chosen
                reward = load_reward(self.folder / f"round{number - 1}" / "reward" / "model")
            found = asking.draw(
                self.settings, number, policy, [name for name in self.names() if name != policy], self.prompts,
                partial(self.sample, number), self.seeds, suspects=suspects, asked=self.store.queries("train"), reward=reward,
                times=past[-1].times if past else 1,
            )  # fmt: skip
            path.parent.mkdir(exist_ok=True)
            if found.chosen:
                write_atomic(how, json.dumps(asked_event(found.rule, found.chosen, "train")) + "\n")
            write_atomic(path, _lines(found.queries))
        if how.exists():
            payload = read_object(how)
            self.store.note(ASKED, "backflip rounds", payload, key=f"asked:{content_id('asked', payload)}")
        return self.filed(path)

    def filed(self, path: Path) -> list[Query]:
        """The questions that stand in a file, in the store as well."""
        queries = [Query.from_json(json.loads(line)) for line in _read(path)]
        self.store.add_queries(queries)
        return queries

    def sample(self, number: int, policy: str, prompts: Sequence[Prompt], n: int, key: str) -> list[list[Sample]]:
        """Completions for the questions of a round."""
        self.pause()
        seeds = self.seeds.child("queries", number)
        return generate_samples(
            self.load(policy), prompts, n=n, seeds=seeds if key == "queries" else seeds.child(key, policy),
            settings=self.settings.sampling,
        )  # fmt: skip

    def answer(self, queries: list[Query], labeler: Labeler | None) -> None:
        """Have every question answered, or say where people can."""
        if labeler is not None:
            answer_all(self.store, _Interruptible(labeler, self.pause), queries)
            return
        for purpose in {query.purpose for query in queries}:
            offer(self.store, purpose)
        if self.enough is not None:
            wait_for_answers(self.store, queries, self.enough, self.run, self.pause)
            return
        asked = {query.id for query in queries}
        waiting = [query for query in self.store.unanswered() if query.id in asked]
        if waiting:
            stop = Interrupted(told({query.purpose for query in waiting}, len(waiting), len(queries), self.folder))
            stop.exit_code = WAITING
            raise stop

    def hear(self, number: int, asked: Sequence[Query]) -> None:
        """How often the last round's reward model is right on this round's labels, before one learns from them; kept.

        They are about what the policy writes now, so this falls when it has left what the model knows.
        """
        path = self.folder / f"round{number}" / "newest.json"
        if number == 1 or path.exists():
            return
        ids, share = {query.id for query in asked}, self.settings.sentinel
        answers = [c for c in self.store.comparisons() if c.query_id in ids]
        newest = [c for c in answers if not for_sentinel(c.prompt, share, self.seeds)]
        model, prompts = load_reward(self.folder / f"round{number - 1}" / "reward" / "model"), [c.prompt for c in newest]
        left, right = score(model, prompts, [c.left for c in newest]), score(model, prompts, [c.right for c in newest])
        found = label_accuracy(left, right, [c.p_left for c in newest])
        for finding in rules.labels(number, found):
            self.run.say(f"round {number}: {finding.sentence}")
        write_atomic(path, json.dumps(found._asdict()) + "\n")

    def reward_model(self, number: int, policy: LanguagePolicy) -> Learned:
        """The reward model of all comparisons so far, those of the sentinel left out."""
        learned: list[Comparison] = []
        others: list[Comparison] = []
        for comparison in self.comparisons(number):
            kept = others if for_sentinel(comparison.prompt, self.settings.sentinel, self.seeds) else learned
            kept.append(comparison)
        if others:
            self.fit(number, "sentinel", others, policy)
        return self.fit(number, "reward", learned, policy)

    def fit(self, number: int, kind: str, comparisons: list[Comparison], policy: LanguagePolicy) -> Learned:
        """The model of one kind, "reward" or "sentinel", of a round."""
        folder, seeds, settings = self.folder / f"round{number}" / kind, self.seeds.child(kind, number), self.settings.reward
        with self.subrun(folder, "reward", settings) as run:
            if not run.finished:

                def begin(own: Seeds) -> RewardModel:
                    if self.settings.refit == "continued" and number > 1:
                        return RewardModel.load(self.folder / f"round{number - 1}" / kind / "model")
                    return RewardModel.from_policy(
                        self.load(FIRST), seeds=own, head_init=settings.head_init, score_at=settings.score_at,
                        max_length=settings.max_length,
                    )  # fmt: skip

                fitted = fit(begin, comparisons, settings, run, seeds=seeds, samples=self.ruler(number, policy))
                once(folder / "model", fitted.model.save)
                run.finish(fitted.report._asdict() | {"comparisons": len(comparisons)})
        return load_reward(folder / "model")

    def comparisons(self, number: int) -> list[Comparison]:
        """All comparisons, the recorded ones first, up to the moment this was first asked in round `number`.

        Whoever answers on while the reward model is fitted changes the next round, not the run that is under way.
        """
        path = self.folder / f"round{number}" / "comparisons.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, _lines([*self.recorded, *self.store.comparisons()]))
        return [Comparison.from_json(json.loads(line)) for line in _read(path)]

    def ruler(self, number: int, policy: LanguagePolicy) -> list[Sample]:
        """Samples of the current policy on which reward scores are scaled to mean 0 and standard deviation 1."""
        n = self.settings.reward.normalization_samples
        chosen = self.seeds.permutation(len(self.prompts), "ruler", number)
        prompts = [self.prompts[chosen[i % len(chosen)]] for i in range(n)]
        groups = generate_samples(policy, prompts, n=1, seeds=self.seeds.child("ruler", number), settings=self.settings.sampling)
        return [group[0] for group in groups]

    def improve(self, number: int, policy: LanguagePolicy, reward: Learned) -> None:
        """PPO from the current policy, kept within `number` budgets of KL from the first one, by which a monitor measures it too:
        a hack from a round before is not taken for normal."""
        settings = dataclasses.replace(self.settings.ppo, kl_target=number * self.settings.kl_budget)
        folder = self.folder / f"round{number}" / "sentinel" / "model"
        sentinel = load_reward(folder) if folder.is_dir() else None
        by_reference = self.begun(number) != FIRST
        watched = watching(self.settings.watch, self.fresh, sentinel, self.labeler, by_reference=by_reference)
        with self.subrun(self.folder / f"round{number}" / "ppo", "ppo", settings) as run:
            result = improve(
                policy, self.prompts, reward, settings, run, seeds=self.seeds.child("ppo", number), gold=self.gold,
                sentinel=sentinel, watching=watched,
                reference=self.load(FIRST).frozen_copy(), kl_coef=self.last_kl_coef(number),
            )  # fmt: skip
            if not run.finished:
                run.finish(result if watched is None else result | {"watch": watched.outcome()})

    def last_kl_coef(self, number: int) -> float | None:
        """β where the round before left it; a controller that starts anew would first have to find it again."""
        if number == 1:
            return None
        result = json.loads((self.folder / f"round{number - 1}" / "ppo" / "result.json").read_text())
        return float(result["kl_coef"])

    def play(self, names: Sequence[str]) -> None:
        """Every generation against every other on the arena's prompts, blind."""
        written = {}
        for name in names:
            self.pause()
            written[name] = self.arena_samples(name)
        matches = add_matches(self.store, written, seeds=self.seeds.child("arena"))
        self.answer(matches.queries, self.judge or self.labeler)

    def arena_samples(self, name: str) -> list[Sample]:
        """What a generation writes for the arena's prompts; drawn once and kept."""
        path = self.folder / "arena" / f"{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            groups = generate_samples(
                self.load(name),
                self.arena_prompts,
                n=1,
                seeds=self.seeds.child("arena", name),
                settings=self.settings.sampling,
            )
            write_atomic(path, _lines(group[0] for group in groups))
        return [Sample.from_json(json.loads(line)) for line in _read(path)]

    def keep(self, name: str, policy: Callable[[], LanguagePolicy]) -> None:
        """Save a generation, unless it is there."""
        once(self.folder / "generations" / name, lambda folder: policy().merged().save(folder))

    def load(self, name: str) -> LanguagePolicy:
        """A generation as it was saved."""
        return load_policy(self.folder / "generations" / name, name=name)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def pause(self) -> None:
        """Wait or leave here when someone asked for it; the stages that are runs of their own see to it themselves."""
        self.run.obey(where="between two stages")

    def subrun(self, folder: Path, kind: str, settings: Any) -> Run:
        """The run of one stage."""
        return Run.open(folder, kind=kind, settings=settings, quiet=self.run.quiet)


def generation(number: int) -> str:
    """The name of the policy after round `number`."""
    return FIRST if number == 0 else f"round{number}"


@dataclass(frozen=True)
class _Interruptible:
    """A labeler that looks up before each question whether to stop; what it has answered is kept."""

    labeler: Labeler
    pause: Callable[[], None]

    @property
    def name(self) -> str:
        return self.labeler.name

    def answer(self, query: Query) -> Verdict:
        self.pause()
        return self.labeler.answer(query)


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records)


def _read(path: Path) -> list[str]:
    """The lines of a file of records. Only a newline ends one: a text may hold what `splitlines` takes for an end."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]
