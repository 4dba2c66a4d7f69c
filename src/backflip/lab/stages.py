"""The parts that experiments on worlds of words are made of: a base model, one improvement, a measurement kept in a file.

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.tiny import TinyShape, tiny_policy, word_tokenizer
from backflip.records import Prompt
from backflip.rounds.stages import supervised
from backflip.runs import Run
from backflip.runs.atomic import once, write_atomic
from backflip.runs.logs import read_lines, read_object
from backflip.seeds import Seeds
from backflip.settings import SFT, Online, Tiny
from backflip.train.arithmetic import fast_matmul
from backflip.train.sft import Example


def pretrained(
    folder: Path, size: Tiny, words: Sequence[str], rows: Callable[[], Sequence[tuple[Prompt, str]]], settings: SFT,
    seeds: Seeds, quiet: bool,
) -> Path:  # fmt: skip
    """Pretrain a model of that size in `folder`, each of `words` one token, on the prompts and completions that `rows` gives;
    returns the folder of the model."""

    def start() -> LanguagePolicy:
        shape = TinyShape(
            hidden_size=size.hidden_size, intermediate_size=size.hidden_size * 11 // 4 // 8 * 8, layers=size.layers,
            heads=size.heads, context=size.context,
        )  # fmt: skip
        return tiny_policy(seeds=seeds, shape=shape, tokenizer=word_tokenizer(words), name="base")

    def examples(policy: LanguagePolicy) -> list[Example]:
        # All at once, which is many times faster than text by text.
        queries, responses = (
            policy.tokenizer(list(texts))["input_ids"] for texts in zip(*((p.plain, text) for p, text in rows()), strict=True)
        )
        made = []
        for query, response in zip(queries, responses, strict=True):
            read = 1 if settings.loss_on_prompt else len(query)
            whole = [*query, *response, policy.eos_id][: settings.max_length]
            made.append(Example(whole[:read], whole[read:]))
        return made

    return supervised(folder, settings, start, examples, seeds=seeds, quiet=quiet)


def improved(
    folder: Path, start: Path, settings: Online, work: Callable[[LanguagePolicy, Run], Mapping[str, float]], *, kind: str,
    quiet: bool, keep: int = 2,
) -> Path:  # fmt: skip
    """Do `work`, a run of the online loop, on the model in `start`, once; returns the folder of the model it ends with.

    The last `keep` checkpoints stay, and the result holds the peak memory of this process.
    """
    with Run.open(folder, kind=kind, settings=settings, quiet=quiet, keep=keep) as run:
        if not run.finished:
            policy = load_policy(start, name=folder.name)
            with fast_matmul(run):
                result = work(policy, run)
            once(folder / "model", policy.save)
            run.finish({**result, "peak_rss_mb": peak_memory()})
    return folder / "model"


def kept(path: Path, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Figures that are measured once and kept in `path` as JSON."""
    if not path.exists():
        figures = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return read_object(path)


def peak_memory() -> float:
    """The most memory this process has held, in MB. Linux counts a parent's in `ru_maxrss`, but not in VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def columns(folder: Path, names: Mapping[str, str]) -> dict[str, list[float]]:
    """Metrics of a run step by step, under the names given: our name → the metric's. One that was not logged is left out."""
    rows = read_lines(folder / "metrics.jsonl")
    return {ours: [float(row[theirs]) for row in rows] for ours, theirs in names.items() if theirs in rows[0]}


def checkpoints(folder: Path) -> dict[int, Path]:
    """The models that a run left, by the number of steps before them."""
    return {int(path.name.removeprefix("step-")): path / "policy" for path in sorted((folder / "checkpoints").glob("step-*"))}


def seconds(folder: Path) -> float:
    """What the steps of a run took, all parts together."""
    rows = read_lines(folder / "timings.jsonl")
    return float(sum(value for row in rows for name, value in row.items() if name != "step"))
