"""The work of `r1-zero`: a base model from a noisy corpus, reinforcement with a checked reward, and measuring.

    SEED/base/             pretraining            SEED/measured/NAME-STEP.json   figures of one checkpoint
    SEED/NAME/             one run of the online loop: grpo, control, control-biased
    SEED/compare/NAME/     the runs at equal samples: grpo, ppo, rloo, reinforce

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from backflip.lab.r1_zero_figures import judged, summarize
from backflip.lab.r1_zero_settings import Settings
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.tiny import TinyShape, tiny_policy, word_tokenizer
from backflip.rollout.local import generate_samples
from backflip.rounds.loop import once
from backflip.rounds.stages import supervised
from backflip.runs import Run
from backflip.runs.atomic import write_atomic
from backflip.runs.logs import read_lines, read_object
from backflip.seeds import Seeds
from backflip.settings import Online, Sampling
from backflip.train.arithmetic import fast_matmul
from backflip.train.online import improve
from backflip.train.sft import Example
from backflip.worlds.arithmetic import WORDS, Arithmetic, accuracy, reward
from backflip.worlds.arithmetic.notation import Task

EVERY_CHECKPOINT = 1000
"""How many checkpoints of a run are kept: all, for they are measured afterwards."""


def base(settings: Settings, folder: Path, seeds: Seeds, quiet: bool) -> Path:
    """Pretrain in `folder`; returns the folder of the model."""

    def start() -> LanguagePolicy:
        size = settings.tiny
        shape = TinyShape(
            hidden_size=size.hidden_size, intermediate_size=size.hidden_size * 11 // 4 // 8 * 8, layers=size.layers,
            heads=size.heads, context=size.context,
        )  # fmt: skip
        return tiny_policy(seeds=seeds, shape=shape, tokenizer=word_tokenizer(WORDS), name="base")

    def examples(policy: LanguagePolicy) -> list[Example]:
        rows = Arithmetic().corpus(
            settings.documents, seeds, styles=settings.mixture(), noise=settings.noise(), copies=settings.copies,
            drills=settings.drills,
        )  # fmt: skip
        # All at once, which is many times faster than text by text; none is longer than the model's context.
        queries, responses = (
            policy.tokenizer(list(texts))["input_ids"] for texts in zip(*((p.plain, text) for p, text in rows), strict=True)
        )
        return [Example(query, [*response, policy.eos_id]) for query, response in zip(queries, responses, strict=True)]

    return supervised(folder, settings.pretrain, start, examples, seeds=seeds, quiet=quiet)


def reinforce(folder: Path, start: Path, settings: Online, task: Task, seeds: Seeds, quiet: bool) -> None:
    """Improve the model in `start` on problems that come once each; the result holds the peak memory of this process."""
    with Run.open(folder, kind="r1-zero", settings=settings, quiet=quiet, keep=EVERY_CHECKPOINT) as run:
        if run.finished:
            return
        policy = load_policy(start, name=folder.name)
        n = settings.steps * settings.batch_size // settings.num_generations
        prompts = Arithmetic().prompts(n, seeds.child("problems", task), task=task)
        with fast_matmul(run):
            result = improve(policy, prompts, reward, settings, run, seeds=seeds, gold=accuracy)
        once(folder / "model", policy.save)
        run.finish(result | {"peak_rss_mb": peak_memory()})


def apart(folder: Path, start: Path, settings: Online, task: Task, seeds: Seeds, quiet: bool) -> None:
    """`reinforce` in a process of its own, so that its peak memory is its own."""
    if (folder / "result.json").exists():
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(reinforce, folder, start, settings, task, seeds, quiet).result()


def peak_memory() -> float:
    """The most memory this process has held, in MB. Linux counts a parent's in `ru_maxrss`, but not in VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(
    path: Path, model: Path, task: Task, settings: Settings, seeds: Seeds, *, problems: int, problems_seed: str = "test"
) -> dict[str, Any]:
    """The figures of a model on test problems, and a few of its texts; measured once and kept in `path`.

    Every model of a seed meets the same problems.
    """
    if path.exists():
        return read_object(path)
    prompts = Arithmetic().prompts(problems, seeds.child(problems_seed), "test", task)
    sampling = Sampling(temperature=1.0, max_new_tokens=settings.grpo.sampling.max_new_tokens, slots=256)
    groups = generate_samples(
        load_policy(model), prompts, n=settings.tries, seeds=seeds.child("measure", path.stem), settings=sampling
    )
    figures = summarize(
        [
            (
                prompt.columns["answer"],
                [judged(prompt.plain, prompt.columns["answer"], s.text, finished=s.finished, length=s.n_tokens) for s in samples],
            )
            for prompt, samples in zip(prompts, groups, strict=True)
        ]
    )
    shown = [{"prompt": samples[0].prompt.plain, "texts": [s.text for s in samples[:3]]} for samples in groups[:6]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(figures | {"shown": shown}, indent=1) + "\n")
    return read_object(path)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The models that a run left, by the number of steps before them."""
    return {int(path.name.removeprefix("step-")): path / "policy" for path in sorted((folder / "checkpoints").glob("step-*"))}


def curve(folder: Path) -> dict[str, list[float]]:
    """A run's figures step by step; the format's are what the sum of both rewards leaves."""
    rows = read_lines(folder / "metrics.jsonl")
    names = {
        "step": "step", "pass@1": "objective/gold", "length": "rollout/length", "entropy": "objective/entropy",
        "kl": "kl/seq_nats", "dead groups": "group/zero_std_share", "unfinished": "rollout/unfinished_share",
    }  # fmt: skip
    found = {ours: [float(row[theirs]) for row in rows] for ours, theirs in names.items() if theirs in rows[0]}
    found["format"] = [(row["objective/scores"] - row["objective/gold"]) / 0.1 for row in rows]
    return found


def seconds(folder: Path) -> float:
    """What the steps of a run took, all parts together."""
    rows = read_lines(folder / "timings.jsonl")
    return float(sum(value for row in rows for name, value in row.items() if name != "step"))
