"""The supervised stages before the first round: a tiny policy pretrained on the job's texts, a policy fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from backflip.policies.hub import pick_device
from backflip.policies.language import LanguagePolicy
from backflip.policies.tiny import TinyShape, tiny_policy
from backflip.records import Prompt
from backflip.runs import Run
from backflip.runs.atomic import once
from backflip.seeds import Seeds
from backflip.settings import SFT, Tiny
from backflip.train.examples import Example
from backflip.train.sft import sft


def supervised(
    folder: Path,
    settings: SFT,
    start: Callable[[], LanguagePolicy],
    examples: Callable[[LanguagePolicy], Sequence[Example]],
    *,
    seeds: Seeds,
    quiet: bool,
) -> Path:
    """One supervised stage as a run of its own in `folder`; returns the folder of its model."""
    with Run.open(folder, kind="sft", settings=settings, quiet=quiet) as run:
        if not run.finished:
            policy = start()
            result = sft(policy, examples(policy), settings, run, seeds=seeds)
            once(folder / "model", policy.merged().save)
            run.finish(result | {"parameters": sum(p.numel() for p in policy.model.parameters())})
    return folder / "model"


def untrained(size: Tiny, documents: Sequence[tuple[Prompt, str]], seeds: Seeds) -> LanguagePolicy:
    """A tiny policy of that size whose tokenizer fits the documents."""
    shape = TinyShape(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden_size,
        intermediate_size=max(8, size.hidden_size * 11 // 4 // 8 * 8),
        layers=size.layers,
        heads=size.heads,
        context=size.context,
    )
    policy = tiny_policy([prompt.plain + text for prompt, text in documents], seeds=seeds, shape=shape)
    policy.model.to(pick_device())
    return policy


def packed(policy: LanguagePolicy, documents: Sequence[tuple[Prompt, str]], settings: SFT) -> list[Example]:
    """All documents one after another, each closed by the end-of-text token, cut into windows of `max_length` tokens.

    No place is padded, which for short documents halves the time of pretraining; a window may hold the end of one
    document and the beginning of the next, as in GPT-2 and GPT-3 (Brown et al. 2020, appendix B).
    """
    stream: list[int] = []
    for prompt, text in documents:
        stream += (policy.encode(prompt) if prompt.text else []) + policy.encode_completion(text)
    length = min(settings.max_length, policy.context)
    windows = [stream[i : i + length] for i in range(0, len(stream), length)]
    return [Example(window[:1], window[1:]) for window in windows if len(window) > 1]
