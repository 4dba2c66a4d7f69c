"""The main job: from nothing to a policy that people prefer, on a laptop, in minutes.

    corpus → pretraining → fine-tuning → (questions → reward model → PPO → arena) twice → report

Everything is made on the spot: the corpus comes from a procedural world of short reviews, the people are simulated and their
hidden taste, gold, is known, so the report can show both what was optimised and what was meant.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backflip.arena import Standings
from backflip.config import to_yaml
from backflip.feedback.labelers import Oracle
from backflip.feedback.queries import pair_queries
from backflip.job_settings import DemoJob
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.tiny import TinyShape, tiny_policy
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.rewards.ensemble import Learned, load_reward
from backflip.rewards.protocol import RewardFunction, score
from backflip.rollout.local import generate_samples
from backflip.rounds.loop import FIRST, Loop, generation
from backflip.rounds.measure import sequence_kl, win_rate
from backflip.rounds.stages import supervised
from backflip.rounds.story import figures_of, tell
from backflip.rounds.waiting import studio
from backflip.runs import Run
from backflip.runs.logs import read_object
from backflip.runs.report import write_report
from backflip.seeds import Seeds
from backflip.settings import SFT
from backflip.store.projects import Project, Projects
from backflip.train.arithmetic import fast_matmul
from backflip.train.examples import Example
from backflip.train.sft import encode_demonstrations, encode_texts
from backflip.worlds.annotators import Panel, tastes
from backflip.worlds.reviews import Reviews

CONTEXT = 128
HUMAN_PROJECTS = (
    Project(
        id="reviews", purpose="train", title="Reviews", question="Which review would you rather read?",
        guideline="Each question shows what a small model wrote for the same prompt, twice. **Choose by your own taste**, and "
        "keep to it: the policy learns what you reward. Prefer what is short, or what is warm, or what has its facts right.",
    ),
    Project(
        id="arena", purpose="arena", title="Arena: before or after?", question="Which review would you rather read?",
        guideline="One of the two was written by the model before it was taught, the other after. You learn which only after "
        "your answer.", reveal=True,
    ),
)  # fmt: skip
TRAIN_PROMPTS = 4000
FRESH_PAIRS = 400


@dataclass(frozen=True)
class People:
    """A panel of simulated annotators as one labeler: every question goes to one of them."""

    panel: Panel
    seeds: Seeds
    noise: float
    temperature: float
    tie_width: float
    name: str = "people"

    def answer(self, query: Query) -> Verdict:
        """The verdict of whoever the panel assigns."""
        person = self.panel.assign(query)
        oracle = Oracle(
            person, seeds=self.seeds, name=person.name, noise=self.noise, temperature=self.temperature, tie_width=self.tie_width
        )
        return oracle.answer(query)


def demo(settings: DemoJob, *, quiet: bool = False, browser: bool = True, clock: float | None = None) -> Path:
    """Run the demo in `settings.output` (or go on with it) and return the path of its report.

    With `settings.human` a studio is open meanwhile, and the browser on it where `browser` says so. `clock` is the
    `time.monotonic()` from which the seconds in the result count, by default now.
    """
    with Run.open(settings.output, kind="demo", settings=settings, quiet=quiet) as run:
        if not run.finished:
            with fast_matmul(run):
                _Demo(settings, run, time.monotonic() if clock is None else clock, browser).go()
        return run.folder / "report.html"


class _Demo:
    def __init__(self, settings: DemoJob, run: Run, clock: float, browser: bool) -> None:
        self.settings, self.run, self.clock, self.browser = settings, run, clock, browser
        self.seeds = Seeds(settings.seed)
        self.world = Reviews()

    def go(self) -> None:
        s, seeds = self.settings, self.seeds
        arena = self.world.prompts(s.loop.arena_prompts, seeds.child("arena prompts"), "test")
        loop = Loop(
            run=self.run,
            start=self.finetuned,
            prompts=self.world.prompts(TRAIN_PROMPTS, seeds.child("prompts")),
            arena_prompts=arena,
            settings=s.loop,
            seeds=seeds.child("loop"),
            labeler=None if s.human else self.people("annotators", s.people, s.noise, s.choice_temperature, s.tie_width),
            judge=None if s.human else self.people("fresh annotators", s.people, 0.0, 0.0, 0.0),
            gold=None if s.human else self.world.gold_reward,
            enough=s.answers if s.human else None,
        )
        with contextlib.closing(loop), self.studio(loop) if s.human else contextlib.nullcontext():
            self.finish(loop, loop.go())

    def studio(self, loop: Loop) -> contextlib.AbstractContextManager[None]:
        """The studio, with a project for the questions and one for the blind arena."""
        projects = Projects(loop.store)
        for project in HUMAN_PROJECTS:
            if projects.get(project.id) is None:
                projects.save(project, by="demo")
        return studio(self.run.folder / "feedback.db", self.run.folder.parent, browser=self.browser, quiet=self.run.quiet)

    def people(self, key: str, n: int, noise: float, temperature: float, tie_width: float) -> People:
        """A panel of its own people; "fresh" ones share no taste with those who taught."""
        seeds = self.seeds.child(key)
        return People(
            Panel(tastes(self.world, n, seeds, self.settings.taste_spread), seeds), seeds, noise, temperature, tie_width
        )

    def base(self) -> Path:
        """The folder of the pretrained model."""
        s = self.settings
        texts = self.world.corpus(s.documents, self.seeds.child("corpus"))

        def examples(policy: LanguagePolicy) -> list[Example]:
            return encode_texts(policy, texts, s.pretrain)

        shape = TinyShape(vocab_size=s.vocabulary, context=CONTEXT)
        return self.stage("base", s.pretrain, lambda: tiny_policy(texts[:4000], seeds=self.seeds, shape=shape), examples)

    def finetuned(self) -> LanguagePolicy:
        """The fine-tuned policy."""
        base, s = self.base(), self.settings
        demonstrations = self.world.demonstrations(s.demonstrations, self.seeds.child("demonstrations"))

        def examples(policy: LanguagePolicy) -> list[Example]:
            return encode_demonstrations(policy, demonstrations, s.finetune)

        return load_policy(self.stage(FIRST, s.finetune, lambda: load_policy(base), examples), name=FIRST)

    def stage(
        self,
        name: str,
        settings: SFT,
        start: Callable[[], LanguagePolicy],
        examples: Callable[[LanguagePolicy], Sequence[Example]],
    ) -> Path:
        """One supervised stage; returns the folder of its model."""
        folder = self.run.folder / name
        return supervised(folder, settings, start, examples, seeds=self.seeds.child(name), quiet=self.run.quiet)

    def finish(self, loop: Loop, table: Standings) -> None:
        """Measure everything on prompts nobody trained on, write the result and the report."""
        s, names, last = self.settings, loop.names(), loop.final
        reward = load_reward(self.run.folder / names[-1] / "reward" / "model")
        base = load_policy(self.run.folder / "base" / "model", name="base")
        generations: dict[str, Sequence[Sample]] = {
            "base": self.sample(base, loop.arena_prompts, "base"),
            **{name: loop.arena_samples(name) for name in names},
        }
        judges: dict[str, RewardFunction] = {"proxy": reward} if s.human else {"gold": self.world.gold_reward, "proxy": reward}
        rewards = {
            kind: {name: score(judge, [x.prompt for x in xs], [x.text for x in xs]) for name, xs in generations.items()}
            for kind, judge in judges.items()
        }
        policy, final = loop.load(last), generations[last]
        result: dict[str, Any] = {
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "rounds": len(names) - 1,
            "final": last,
            "comparisons": len(loop.store.comparisons()),
            **({"reward_model": self.fitted(names[-1])} if s.human else {"rm_accuracy": self.accuracy(loop, reward)}),
            **{kind: {name: _mean(values) for name, values in of.items()} for kind, of in rewards.items()},
            "win_rate_vs_sft": win_rate(table, last, FIRST) if (last, FIRST) in table.win_rates else None,
            "kl_seq_nats": sequence_kl(policy, loop.load(FIRST), final, temperature=s.loop.sampling.temperature),
            "kl_target_nats": (len(names) - 1) * s.loop.kl_budget,
            "unfinished_share": _mean([not (x.finished and self.world.measure(x.prompt, x.text).well_formed) for x in final]),
            "ratings": [asdict(rating) for rating in table.ratings],
            "seed": s.seed,
        }
        seconds = time.monotonic() - self.clock
        data = tell(
            self.run.folder,
            title="From clicks to a better policy",
            summary=self.summary(result, seconds),
            figures=figures_of(result, last),
            generations=generations,
            rewards=rewards,
            table=table,
            rounds=len(names) - 1,
            kl_budget=s.loop.kl_budget,
            settings=to_yaml(s),
            notes=[
                f"Made by `backflip demo --seed {s.seed}{' --human yes' if s.human else ''}` in {seconds:.0f} seconds; "
                "every number is on prompts that no stage was trained on.",
                "Whoever taught also judged the arena, without knowing who wrote what."
                if s.human
                else "The arena's annotators are fresh and noise-free; "
                f"those who taught err {s.noise:.0%} of the time and differ in taste.",
                "KL is the mean over the last policy's own completions of log π/π_sft summed over tokens, in nats.",
            ],
        )
        write_report(self.run.folder, data)
        self.run.finish({"seconds": round(seconds, 1)} | result)

    def summary(self, result: dict[str, Any], seconds: float) -> str:
        """The report in a sentence or two."""
        rate, last = result["win_rate_vs_sft"], result["final"]
        if self.settings.human:
            preferred = (
                "" if rate is None else f"; blind, you prefer the last policy to the first in {rate['mean']:.0%} of comparisons"
            )
            return (
                f"A language model of a million parameters was trained from nothing, taught by {result['comparisons']:,} of your "
                f"answers, and moved {result['kl_seq_nats']:.1f} nats{preferred}."
            )
        gold = result["gold"]
        return (
            f"In {seconds / 60:.1f} minutes a language model of a million parameters was trained from nothing, "
            f"taught by {result['comparisons']:,} "
            f"comparisons of simulated people, and improved in {result['rounds']} rounds: gold went from {gold[FIRST]:+.2f} to "
            f"{gold[last]:+.2f}, and fresh annotators prefer the last policy to the fine-tuned one "
            f"in {rate['mean']:.0%} of blind comparisons."
        )

    def fitted(self, last: str) -> dict[str, Any]:
        """What the last reward model's fit says of itself: accuracy on the answers it left out, beside its bars."""
        found: dict[str, Any] = read_object(self.run.folder / last / "reward" / "result.json")
        return found

    def accuracy(self, loop: Loop, reward: Learned) -> float:
        """Share of fresh pairs whose better text, by gold, the reward model finds.

        The pairs are made like the questions it learned from, by the same generations, on prompts never trained on.
        """
        right = n = 0.0
        for r in range(len(loop.decisions())):
            samples = self.sample(loop.load(generation(r)), loop.arena_prompts, f"fresh {r}", n=2)
            for query in pair_queries(samples, seeds=self.seeds.child("fresh", r))[:FRESH_PAIRS]:
                gold = [self.world.gold(query.prompt, c) for c in query.completions]
                said = score(reward, [query.prompt] * 2, query.completions)
                if gold[0] != gold[1]:
                    n += 1
                    right += (said[0] > said[1]) == (gold[0] > gold[1])
        return right / n

    def sample(self, policy: LanguagePolicy, prompts: Sequence[Prompt], key: str, n: int = 1) -> Any:
        """Completions of prompts: one list, or with n > 1 a list per prompt."""
        groups = generate_samples(
            policy, prompts, n=n, seeds=self.seeds.child("sample", key), settings=self.settings.loop.sampling
        )
        return groups if n > 1 else [group[0] for group in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
