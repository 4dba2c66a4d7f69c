"""The jobs behind `backflip sft`, `reward`, `ppo` and its relatives, and `sample`: open what is given, run the loop, keep what
comes out.

    RUN/model/        the model, a Hugging Face folder
    RUN/result.json   its figures
    RUN/report.html   the run as one page

Everything given is read before the run folder is opened, so a wrong path leaves nothing behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.config import to_dict
from backflip.envs.naming import find_environment
from backflip.envs.text import MakeEnvironment
from backflip.errors import ConfigError, DataError
from backflip.feedback.marks import read_marked
from backflip.feedback.readers import read_comparisons, read_demonstrations, read_prompts, read_texts
from backflip.feedback.rows import load_rows
from backflip.job_settings import DPOJob, PPOJob, RewardJob, RLJob, SampleJob, SFTJob
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.tiny import tiny_policy
from backflip.records import Comparison, Prompt, Sample
from backflip.rewards.code import UnitTests
from backflip.rewards.ensemble import Learned, load_reward
from backflip.rewards.learned import RewardModel
from backflip.rewards.naming import parse_rewards
from backflip.rewards.protocol import RewardFunction, score
from backflip.rewards.weighted import Weighted
from backflip.rollout.local import generate_samples
from backflip.rollout.sampling import check_drawn
from backflip.rounds.watched import kept_apart, watching
from backflip.runs import Run
from backflip.runs.atomic import once, write_atomic
from backflip.runs.report import write_report
from backflip.seeds import Seeds
from backflip.settings import SFT, Direct, Online
from backflip.store import Store
from backflip.store.dialects import SCHEMES
from backflip.train.arithmetic import fast_matmul
from backflip.train.comparisons import split_questions
from backflip.train.composition import check, title
from backflip.train.direct import direct
from backflip.train.examples import Example
from backflip.train.guarding import Watching
from backflip.train.objectives import check_objective
from backflip.train.online import improve
from backflip.train.reward_run import Pretraining, beginning, run_reward
from backflip.train.sft import encode_demonstrations, encode_texts, sft
from backflip.train.verifier import Granularity, check_verifier, fit_verifier, split_prompts

SQLITE = b"SQLite format 3\x00"
Result = dict[str, Any]


# ------------------------------------------------------------------------------------------------------- the jobs


def sft_job(job: SFTJob, *, quiet: bool = False, trackers: Sequence[str] = ()) -> Result:
    """Fine-tune (on raw text: pretrain) `job.policy` on `job.data`; a finished run only gives its result."""

    def prepare() -> Callable[[Run], Result]:
        texts, rows = read_sft_data(job.data, job.max_rows)
        seeds = Seeds(job.seed)
        if job.policy == "tiny":
            policy = tiny_policy(texts or [prompt.plain + completion for prompt, completion in rows], seeds=seeds)
        else:
            policy = load_policy(job.policy, lora=job.lora, seed=job.seed)
        examples = encode_texts(policy, texts, job.train) if texts else encode_demonstrations(policy, rows, job.train)
        return lambda run: run_sft(policy, examples, job.train, run, seeds)

    return perform("sft", job, prepare, quiet=quiet, trackers=trackers)


def reward_job(job: RewardJob, *, quiet: bool = False, trackers: Sequence[str] = ()) -> Result:
    """Fit a reward model, or an ensemble, that starts as `job.policy` to comparisons in `job.data`; or a verifier to marks."""

    def prepare() -> Callable[[Run], Result]:
        if job.labels != "comparisons":
            return _verifier_work(job, job.labels)
        check_drawn(job.sampling, "the scale of a reward model's scores")
        check_objective(job.train)
        comparisons = read_reward_data(job.data)[: job.max_rows]
        before = read_reward_data(job.pretraining) if job.pretraining else []
        shown = [(d.prompt, d.completion) for d in read_demonstrations(job.demonstrations)] if job.demonstrations else []
        policy, begin = beginning(job.policy, job.train, scratch=job.scratch, seeds=Seeds(job.seed))
        first = Pretraining(before, job.pretraining_form, job.pretraining_epochs) if before else None
        if job.improved and policy is None:
            raise ConfigError(f"improved is what a language model became, and {job.policy} is none; leave it out")
        improved = load_policy(job.improved) if job.improved else None
        return lambda run: run_reward(
            policy, comparisons, job.train, job.sampling, run, Seeds(job.seed), begin=begin, sentinel=job.sentinel,
            demonstrations=shown, pretraining=first, folds=job.folds, fold_by=job.fold_by, improved=improved,
        )  # fmt: skip

    return perform("reward", job, prepare, quiet=quiet, trackers=trackers)


def _verifier_work(job: RewardJob, granularity: Granularity) -> Callable[[Run], Result]:
    asked = {"pretraining": job.pretraining, "demonstrations": job.demonstrations, "sentinel": job.sentinel, "folds": job.folds}
    asked |= {"improved": job.improved, "members": job.train.ensemble.members > 1}
    if given := [name for name, value in asked.items() if value]:
        raise ConfigError(f"{given[0]} goes with comparisons; leave it out, or set labels to comparisons")
    marked, seeds = read_marked(job.data)[: job.max_rows], Seeds(job.seed)
    model = beginning(job.policy, job.train, scratch=job.scratch, seeds=seeds)[1](seeds)
    check_verifier(model, granularity)

    def work(run: Run) -> Result:
        report = fit_verifier(model, marked, job.train, run, seeds=seeds, granularity=granularity)
        once(run.folder / "model", model.save)
        held_out = bool(split_prompts(marked, job.train.holdout, seeds)[1])
        return report._asdict() | {"texts": len(marked), "held_out": held_out}

    return work


def online_job(job: PPOJob, *, quiet: bool = False, trackers: Sequence[str] = ()) -> Result:
    """Improve `job.policy` against the reward model in `job.reward` on the prompts in `job.data`."""

    def prepare() -> Callable[[Run], Result]:
        prompts, fresh = kept_apart(read_prompts(job.data)[: job.max_rows], job.watch)
        reward = load_reward(job.reward)
        sentinel = load_reward(job.sentinel) if job.sentinel else None
        watched = watching(job.watch, fresh, sentinel)
        policy = load_policy(job.policy, lora=job.lora, seed=job.seed)
        return lambda run: run_online(
            policy, prompts, reward, job.train, run, Seeds(job.seed), sentinel=sentinel, watched=watched
        )

    return perform(kind_of(job.train), job, prepare, quiet=quiet, trackers=trackers)


TEMPLATES = {
    "r1": "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
    "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer "
    "are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here "
    "</think> <answer> answer here </answer>. User: {prompt}. Assistant:",
}
"""Texts to put around prompts, by name; r1 is table 1 of DeepSeek-R1 (2501.12948)."""


def rl_job(job: RLJob, *, quiet: bool = False, trackers: Sequence[str] = ()) -> Result:
    """Improve `job.policy` against `job.reward` on the prompts in `job.data`."""

    def prepare() -> Callable[[Run], Result]:
        given = [templated(prompt, job.template) for prompt in read_prompts(job.data)[: job.max_rows]]
        prompts, fresh = kept_apart(given, job.watch)
        specs = _apart(",".join(job.reward))
        environment = find_environment(job.environment) if job.environment else None
        whole = parse_rewards(specs, load_model=load_reward) if specs or environment is None else None
        reward: RewardFunction | None = whole
        if whole is not None and len(whole.parts) == 1:  # a learned model by itself may be what a critic starts from
            first, weight = next(iter(whole.parts.values()))
            reward = first if weight == 1.0 and isinstance(first, RewardModel) else whole
        sentinel = load_reward(job.sentinel) if job.sentinel else None
        watched = watching(job.watch, fresh, sentinel)
        check(job.train, reward, environment)
        policy = load_policy(job.policy, lora=job.lora, seed=job.seed)
        texts = read_texts(job.pretraining) if job.pretraining else []
        examples = encode_texts(policy, texts, SFT()) if texts else []

        def work(run: Run) -> Result:
            if whole is not None:
                note_sandboxes(run, whole)
            return run_online(
                policy, prompts, reward, job.train, run, Seeds(job.seed), environment=environment, pretraining=examples,
                sentinel=sentinel, watched=watched,
            )  # fmt: skip

        return work

    return perform(kind_of(job.train), job, prepare, quiet=quiet, trackers=trackers)


def note_sandboxes(run: Run, reward: Weighted) -> None:
    """Keep in RUN/sandbox.json what the programs of each reward run in: the driver, the kernel, what its canaries found."""
    found = {name: part.sandbox.describe() for name, (part, _) in reward.parts.items() if isinstance(part, UnitTests)}
    if found:
        write_atomic(run.folder / "sandbox.json", json.dumps(found, indent=1) + "\n")


def _apart(specs: str) -> list[str]:
    """What stands between the commas that are outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", specs) if part.strip()]


def templated(prompt: Prompt, template: str | None) -> Prompt:
    """A prompt inside a template: one of `TEMPLATES`, or a text that says {prompt}. Raises ConfigError where it does not."""
    if template is None:
        return prompt
    text = TEMPLATES.get(template, template)
    if "{prompt}" not in text:
        raise ConfigError(f"template {template[:60]!r} does not say {{prompt}}; write where the prompt stands, or use r1")
    return Prompt(text.replace("{prompt}", prompt.plain), prompt.columns)


def dpo_job(job: DPOJob, *, quiet: bool = False, trackers: Sequence[str] = ()) -> Result:
    """Improve `job.policy` on the comparisons in `job.data` without a reward model."""

    def prepare() -> Callable[[Run], Result]:
        comparisons = read_reward_data(job.data)[: job.max_rows]
        policy = load_policy(job.policy, lora=job.lora, seed=job.seed)
        return lambda run: run_dpo(policy, comparisons, job.train, run, Seeds(job.seed))

    return perform("dpo", job, prepare, quiet=quiet, trackers=trackers)


def sample_job(job: SampleJob) -> list[list[tuple[Sample, float | None]]]:
    """Completions of each prompt with their scores (None without a reward model), written to `job.output` if given."""
    if job.output is not None and not Path(job.output).parent.is_dir():
        raise DataError(f"{job.output} cannot be written: there is no folder {Path(job.output).parent}")
    prompts = read_prompts(job.data)[: job.max_rows]
    policy = load_policy(job.policy)
    reward = load_reward(job.reward) if job.reward else None
    with fast_matmul(None):
        groups = generate_samples(policy, prompts, n=job.n, seeds=Seeds(job.seed), settings=job.sampling)
        scored = [list(zip(group, _scores(reward, group), strict=True)) for group in groups]
    if job.output is not None:
        rows = [sample_row(sample, value) for group in scored for sample, value in group]
        write_atomic(Path(job.output), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return scored


def perform(
    kind: str, job: Any, prepare: Callable[[], Callable[[Run], Result]], *, quiet: bool, trackers: Sequence[str] = ()
) -> Result:
    """Run a job in its folder `job.output`, or go on with it, and return its result.

    `prepare` reads everything given and returns the work; neither happens again when the run is finished. The folder's
    name is not part of what makes the run the same run, so a folder may be moved.
    """
    settings = {name: value for name, value in to_dict(job).items() if name != "output"}
    work = None if (Path(job.output) / "result.json").exists() else prepare()
    with Run.open(job.output, kind=kind, settings=settings, quiet=quiet, trackers=trackers) as run:
        if run.finished:
            run.say("this run is finished; its result follows (for a new one give another --output)")
        elif work is not None:
            with fast_matmul(run):
                run.finish(work(run))
        if not (run.folder / "report.html").exists():
            write_report(run.folder)
        return run.result


# ------------------------------------------------------------------------------- one loop, and the model it leaves


def run_sft(policy: LanguagePolicy, examples: Sequence[Example], settings: SFT, run: Run, seeds: Seeds) -> Result:
    """Fine-tune `policy` in place and write it to RUN/model (a LoRA adapter merged in)."""
    result = sft(policy, examples, settings, run, seeds=seeds)
    once(run.folder / "model", policy.merged().save)
    return result


def kind_of(settings: Online) -> str:
    """What a run with this choice of parts is called in its folder."""
    return title(settings).lower().replace(". ", "_")


def run_online(
    policy: LanguagePolicy, prompts: Sequence[Prompt], reward: RewardFunction | None, settings: Online, run: Run, seeds: Seeds,
    gold: RewardFunction | None = None, pretraining: Sequence[Example] = (), environment: MakeEnvironment | None = None,
    sentinel: RewardFunction | None = None, watched: Watching | None = None,
) -> Result:  # fmt: skip
    """Improve `policy` in place and write it to RUN/model (a LoRA adapter merged in).

    Where somebody watched, the result says what became of that; a run that was stopped ends with the policy it went back to.
    """
    result: Result = improve(
        policy, prompts, reward, settings, run, seeds=seeds, environment=environment, gold=gold, sentinel=sentinel,
        pretraining=pretraining, watching=watched,
    )  # fmt: skip
    once(run.folder / "model", policy.merged().save)
    return result if watched is None else result | {"watch": watched.outcome()}


def run_dpo(
    policy: LanguagePolicy, comparisons: Sequence[Comparison], settings: Direct, run: Run, seeds: Seeds
) -> Result:  # fmt: skip
    """Improve `policy` in place on comparisons and write it to RUN/model (a LoRA adapter merged in)."""
    report = direct(policy, comparisons, settings, run, seeds=seeds)
    once(run.folder / "model", policy.merged().save)
    held_out = bool(split_questions(comparisons, settings.holdout, seeds)[1])
    return report._asdict() | {"comparisons": len(comparisons), "held_out": held_out}


# --------------------------------------------------------------------------------------------- data, in and out


def read_sft_data(path: str, max_rows: int | None = None) -> tuple[list[str], list[tuple[Prompt, str]]]:
    """Raw texts to pretrain on, or demonstrations to imitate: one of the two lists is empty.

    A .txt file, and rows that have nothing but `text` to learn from, are raw text.
    """
    other = {"prompt", "completion", "messages", "conversations", "chosen"}
    plain = path.removesuffix(".gz").endswith(".txt")
    if plain or all("text" in row.values and not other & row.values.keys() for row in load_rows(path)):
        return read_texts(path)[:max_rows], []
    return [], [(row.prompt, row.completion) for row in read_demonstrations(path)[:max_rows]]


def read_reward_data(path: str) -> list[Comparison]:
    """Comparisons from a feedback store (told by its content, or by .db when it is not there) or from a file."""
    file = Path(path)
    is_store = path.partition(":")[0] in SCHEMES or file.suffix == ".db"
    if not is_store and file.is_file():
        with file.open("rb") as opened:
            is_store = opened.read(len(SQLITE)) == SQLITE
    if not is_store:
        return read_comparisons(path)
    with Store(path, read_only=True) as store:
        return store.comparisons()


def sample_row(sample: Sample, value: float | None) -> Mapping[str, Any]:
    """A sample as a line of JSON that every reader of prompts or demonstrations understands."""
    prompt = sample.prompt
    row = {
        **prompt.columns,
        "prompt": prompt.text if isinstance(prompt.text, str) else [m.to_json() for m in prompt.text],
        "completion": sample.text,
        "policy": sample.policy,
        "tokens": sample.n_tokens,
        "finished": sample.finished,
    }
    return row if value is None else row | {"reward": value}


def _scores(reward: Learned | None, group: Sequence[Sample]) -> list[float | None]:
    if reward is None:
        return [None] * len(group)
    return list(score(reward, [s.prompt for s in group], [s.text for s in group]))
