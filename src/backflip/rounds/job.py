"""`backflip rounds`: the whole loop on any policy, with people, a reward model that plays them, or recorded comparisons.

texts → pretraining (a tiny policy) → demonstrations → fine-tuning → questions or records → reward model → PPO → … → arena
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backflip.arena import Standings
from backflip.config import to_dict, to_yaml
from backflip.errors import ConfigError
from backflip.feedback.labelers import Oracle
from backflip.job_settings import RoundsJob
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Prompt, Sample
from backflip.rewards.ensemble import Learned, load_reward
from backflip.rewards.protocol import RewardFunction, score
from backflip.rounds import deciding
from backflip.rounds.loop import FIRST, Loop, generation
from backflip.rounds.material import HUMAN, RECORDED, Fitter, Material, read_material
from backflip.rounds.measure import acceptance, mean_difference, sequence_kl, win_rate
from backflip.rounds.stages import packed, supervised, untrained
from backflip.rounds.story import figures_of, tell
from backflip.rounds.waiting import EVERY, studio
from backflip.runs import Run
from backflip.runs.report import write_report
from backflip.seeds import Seeds
from backflip.train.arithmetic import fast_matmul
from backflip.train.reward import measure
from backflip.train.sft import encode_demonstrations


def rounds(job: RoundsJob, *, quiet: bool = False, open_studio: bool = False, browser: bool = True) -> Path:
    """Run the job in `job.output`, or go on with it, and return the path of its report.

    Everything given is read before the folder is opened, so a wrong path leaves nothing behind. While questions wait for people
    it raises Interrupted, with the exit code `WAITING`; or with `open_studio` it opens one, in a `browser` where that is
    wanted, and waits until all are answered. Raises ConfigError for a studio where no people are asked.
    """
    clock = time.monotonic()
    if open_studio and job.labeler != HUMAN:
        raise ConfigError(f"--studio opens pages for people, and {job.labeler} answers here; leave one of the two out")
    settings = {name: value for name, value in to_dict(job).items() if name != "output"}
    finished = (Path(job.output) / "result.json").exists()
    material = None if finished else read_material(job)
    annotator = None if finished or job.labeler in (HUMAN, RECORDED) else load_reward(job.labeler)
    with Run.open(job.output, kind="rounds", settings=settings, quiet=quiet) as run:
        if run.finished:
            run.say("this run is finished; its result follows (for a new one give another --output)")
        elif material is not None:
            with fast_matmul(run):
                place = run.folder / "feedback.db"
                pages = studio(place, run.folder.parent, browser=browser, quiet=quiet) if open_studio else None
                _Job(job, run, material, annotator, clock).go(pages)
        return run.folder / "report.html"


class _Job:
    """One job under way. `clock` is the `time.monotonic()` at which it was started."""

    def __init__(self, job: RoundsJob, run: Run, material: Material, annotator: Learned | None, clock: float) -> None:
        self.job, self.run, self.annotator, self.clock = job, run, annotator, clock
        self.seeds = Seeds(job.seed)
        self.given = material

    def go(self, pages: contextlib.AbstractContextManager[None] | None) -> None:
        """Everything, from the first policy to the report; with `pages`, on which people answer while it waits."""
        job, policy = self.job, load_policy(self.base())
        if not policy.form.one_text:
            raise ConfigError(
                f"{job.policy} is an encoder–decoder model, and a reward model cannot start from one; use a causal model, or "
                "`backflip ppo` with a reward model that has learned already"
            )
        longest = max(job.train.sampling.max_new_tokens, job.train.ppo.sampling.max_new_tokens)
        room = policy.context - longest
        limit = room if job.train.ppo.query_length is None else min(room, job.train.ppo.query_length)
        self.material = Fitter(policy, limit, job.train.ppo.overlong).fit(self.given)
        loop = Loop(
            run=self.run,
            start=self.finetuned,
            prompts=self.material.prompts,
            arena_prompts=self.material.arena_prompts,
            settings=job.train,
            seeds=self.seeds.child("loop"),
            labeler=self.oracle("annotator", self.annotator, job.noise) if self.annotator is not None else None,
            judge=self.judge(),
            gold=self.annotator,
            recorded=self.material.recorded,
            lora=job.lora,
            enough=None if pages is None else EVERY,
        )
        with contextlib.closing(loop), pages or contextlib.nullcontext():
            self.finish(loop, loop.go())

    def base(self) -> str | Path:
        """Where the policy stands that the job starts from: the one given, or a tiny one pretrained on the job's texts."""
        job, documents = self.job, self.given.documents
        if job.policy != "tiny":
            return job.policy
        return supervised(
            self.run.folder / "base",
            job.pretrain,
            lambda: untrained(job.tiny, documents, self.seeds),
            lambda policy: packed(policy, documents, job.pretrain),
            seeds=self.seeds.child("base"),
            quiet=self.run.quiet,
        )

    def finetuned(self) -> LanguagePolicy:
        """The first generation: the policy fine-tuned on the demonstrations, or without any the policy itself."""
        job, demonstrations = self.job, self.material.demonstrations
        if not demonstrations:
            return load_policy(self.base(), name=FIRST)
        folder = supervised(
            self.run.folder / FIRST,
            job.finetune,
            lambda: load_policy(self.base(), lora=job.lora, seed=job.seed),
            lambda policy: encode_demonstrations(policy, demonstrations, job.finetune),
            seeds=self.seeds.child(FIRST),
            quiet=self.run.quiet,
        )
        return load_policy(folder, name=FIRST)

    def judge(self) -> Oracle | None:
        """Who answers the arena's questions, where it is not whoever answers the others."""
        if self.job.labeler == RECORDED:
            return self.oracle("sentinel", lambda *texts, **columns: self.sentinel(*texts, **columns), 0.0)
        return self.oracle("annotator without noise", self.annotator, 0.0) if self.annotator is not None else None

    def oracle(self, name: str, reward: RewardFunction, noise: float) -> Oracle:
        """A labeler that prefers what `reward` scores higher."""

        def utility(prompt: Prompt, text: str) -> float:
            return score(reward, [prompt], [text])[0]

        return Oracle(utility, seeds=self.seeds.child(name), name=name, noise=noise, temperature=0.0)

    @functools.cached_property
    def sentinel(self) -> Learned:
        """The last round's sentinel; it exists once the rounds are over."""
        played = len(deciding.read(self.run.folder, self.job.train.rounds))
        return load_reward(self.run.folder / generation(played) / "sentinel" / "model")

    def finish(self, loop: Loop, table: Standings) -> None:
        """Measure everything on prompts that no stage learned from, write the result and the report."""
        settings, names, last = self.job.train, loop.names(), loop.final
        played = len(names) - 1
        written: dict[str, Sequence[Sample]] = {name: loop.arena_samples(name) for name in names}
        models: dict[str, RewardFunction] = {"proxy": load_reward(self.run.folder / names[-1] / "reward" / "model")}
        if (self.run.folder / names[-1] / "sentinel" / "model").is_dir():
            models["sentinel"] = self.sentinel
        if self.annotator is not None:
            models["gold"] = self.annotator
        rewards = {kind: {name: _scores(model, xs) for name, xs in written.items()} for kind, model in models.items()}
        result: dict[str, Any] = {
            "rounds": played,
            "final": last,
            "decisions": [asdict(decision) for decision in loop.decisions()],
            "labeler": self.job.labeler,
            "comparisons": len(loop.comparisons(played)),
            **{kind: {name: sum(values) / len(values) for name, values in of.items()} for kind, of in rewards.items()},
            "gain": {kind: mean_difference(of[last], of[FIRST]) for kind, of in rewards.items()},
            "win_rate_vs_sft": win_rate(table, last, FIRST) if (last, FIRST) in table.win_rates else None,
            "kl_seq_nats": sequence_kl(
                loop.load(last), loop.load(FIRST), written[last], temperature=settings.sampling.temperature
            ),
            "kl_target_nats": played * settings.kl_budget,
            "unfinished_share": sum(not x.finished for x in written[last]) / len(written[last]),
            "reward_model": self.quality(models, names[-1]),
            "ratings": [asdict(rating) for rating in table.ratings],
            "seed": self.job.seed,
        }
        result["acceptance"] = acceptance(result)
        seconds = time.monotonic() - self.clock
        data = tell(
            self.run.folder,
            title="From comparisons to a better policy",
            summary=self.summary(result),
            figures=figures_of(result, last),
            generations=written,
            rewards=rewards,
            table=table,
            rounds=played,
            kl_budget=settings.kl_budget,
            settings=to_yaml(self.job),
            notes=self.notes(result, seconds),
            shown=10,
        )
        write_report(self.run.folder, data)
        self.run.finish({"seconds": round(seconds, 1)} | result)

    def quality(self, models: dict[str, RewardFunction], last: str) -> dict[str, Any]:
        """How good the last reward model is on comparisons that it has not seen, beside its two bars.

        With recorded comparisons on the arena's prompts these are the measure, else the questions its fit held out.
        """
        fitted: dict[str, Any] = json.loads((self.run.folder / last / "reward" / "result.json").read_text())
        learned_from = {"learned_from": fitted.pop("comparisons")}
        proxy, fresh = models["proxy"], self.material.fresh
        if not fresh:
            return fitted | learned_from | {"measured_on": "questions that its training left out"}
        report = learned_from | measure(proxy, fresh)._asdict()
        if "sentinel" in models:
            report["sentinel_accuracy"] = measure(self.sentinel, fresh).accuracy
        return report | {"measured_on": "recorded comparisons on prompts that nothing was trained on"}

    def summary(self, result: dict[str, Any]) -> str:
        """The report in two or three sentences."""
        quality, rate = result["reward_model"], result["win_rate_vs_sft"]
        learned_from = {HUMAN: "answers of people", RECORDED: "recorded comparisons"}
        source = learned_from.get(self.job.labeler, "answers of a reward model that plays the annotator")
        said = [
            f"A reward model learned from {quality['learned_from']:,} {source}.",
            f"On {quality['n']} {quality['measured_on']} it is right {quality['accuracy']:.1%} of the time; always",
            f"preferring the shorter reply is right {quality['shorter_accuracy']:.1%} of the time.",
            f"PPO moved the policy {result['kl_seq_nats']:.1f} nats away from where it started.",
        ]
        if rate is not None:
            judges = {HUMAN: "people", RECORDED: "the sentinel, a second reward model of other comparisons,"}
            said += [
                f"In the arena {judges.get(self.job.labeler, 'the annotator')} preferred the last policy to the first",
                f"in {rate['mean']:.0%} of {rate['n']} blind comparisons.",
            ]
        if self.annotator is None:
            said.append("Nobody knows the true reward here, so there is no gold curve.")
        return " ".join(said)

    def notes(self, result: dict[str, Any], seconds: float) -> list[str]:
        """How the numbers were made, and what was asked of them."""
        quality = result["reward_model"]
        made = [
            f"Made by `backflip rounds` with seed {self.job.seed}; the last start of the command took {seconds / 60:.1f} "
            "minutes. The arena's prompts, and all demonstrations and comparisons on them, were kept from all training.",
            "KL is the mean over the last policy's own completions of log π/π_sft summed over tokens, in nats.",
            f"The reward model's taste in length: over the {quality['n']} held-out pairs, the difference in score and the "
            f"difference in length correlate at {quality['length_correlation']:+.2f}; below zero it likes short replies.",
        ]
        if "sentinel" in result:
            made.append(
                f"The sentinel learned from the comparisons on {self.job.train.sentinel:.0%} of the prompts, the reward "
                "model from the others; both start as the first policy. Nothing is optimised against the sentinel, so a "
                "proxy that rises without it is being gamed."
            )
        made += [f"Round {d['round']}: {d['act']}, {d['kept']} is kept; {d['why']}." for d in result["decisions"]]
        return made + [
            f"{'Passed' if line['pass'] else 'Not passed'}: {line['what']}: {line['value']:.3f}, bar {line['bar']:.3f}."
            for line in result["acceptance"]
        ]


def _scores(reward: RewardFunction, samples: Sequence[Sample]) -> list[float]:
    return score(reward, [s.prompt for s in samples], [s.text for s in samples])
