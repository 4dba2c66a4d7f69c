"""Supervised fine-tuning: maximise log π(completion | prompt) on demonstrations.

On raw text, where the "prompt" is a row's first token, the same loop is pretraining. From the textbook it keeps the mean over
all tokens of a batch (not of means per row), counted before the first forward, so that micro-batches do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from backflip.errors import ConfigError, DataError
from backflip.policies.language import LanguagePolicy
from backflip.policies.recompute import recompute
from backflip.records import Prompt, content_id
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import SFT
from backflip.train.examples import Example, negative_log_likelihood
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, frozen_weights, resume, save


def encode_demonstrations(policy: LanguagePolicy, rows: Sequence[tuple[Prompt, str]], settings: SFT) -> list[Example]:
    """Prompt and completion (with the end-of-text token) of each row, at most `max_length` tokens together.

    A prompt that alone fills `max_length` leaves nothing to learn from: DataError names the row. Raises ConfigError for
    `loss_on_prompt` with a model that never writes prompts.
    """
    if settings.loss_on_prompt and not policy.form.one_text:
        raise ConfigError(
            f"loss_on_prompt teaches a model to write its prompts, and {policy.name!r} reads them with an encoder and never "
            "writes one; set loss_on_prompt to false"
        )
    length = min(settings.max_length, policy.context)
    examples = []
    for i, (prompt, completion) in enumerate(rows):
        query, response = policy.encode(prompt), policy.encode_completion(completion)
        if settings.loss_on_prompt:
            query, response = query[:1], query[1:] + response
        if len(query) >= length:
            raise DataError(
                f"row {i + 1}: the prompt alone has {len(query)} tokens and max_length is {length}; "
                "raise max_length or shorten it"
            )
        examples.append(Example(query, response[: length - len(query)]))
    return examples


def encode_texts(policy: LanguagePolicy, texts: Sequence[str], settings: SFT) -> list[Example]:
    """Raw texts, each closed by the end-of-text token and cut into windows of at most `max_length` tokens.

    Raises DataError for an encoder–decoder model, to which a text is two.
    """
    if not policy.form.one_text:
        raise DataError(
            f"raw text does not say what the encoder of {policy.name!r} should read and what its decoder should write; "
            "give rows with a prompt and a completion"
        )
    length = min(settings.max_length, policy.context)
    rows = [policy.encode_completion(text) for text in texts]
    windows = [row[i : i + length] for row in rows for i in range(0, len(row), length)]
    return [Example(w[:1], w[1:]) for w in windows if len(w) > 1]


def sft(policy: LanguagePolicy, examples: Sequence[Example], settings: SFT, run: Run, *, seeds: Seeds) -> dict[str, float]:
    """Train `policy` in place; returns the final figures, also in the run's result.

    Raises DataError when there is nothing to learn from, NumericsError when the loss is not finite.
    """
    if not examples:
        raise DataError("there are no examples to learn from; every row was empty")
    order = seeds.permutation(len(examples), "holdout")
    n_held = int(len(examples) * settings.holdout)
    held, train = [examples[i] for i in order[:n_held]], [examples[i] for i in order[n_held:]]
    total = math.ceil(settings.epochs * len(train) / settings.batch_size)
    total = total if settings.max_steps is None else min(total, settings.max_steps)
    learner = Learner(policy.parameters(), settings.optim, total=total, say=run.say)
    if settings.optim.gradient_checkpointing:
        recompute(policy.model)
    models = {"policy": policy}
    inputs: Inputs = {"seed": seeds.root, "examples": content_id(examples), "frozen weights": frozen_weights(policy)}
    start = resume(run, models, learner, inputs=inputs)["step"]
    with run.progress(total, "fine-tuning", done=start) as bar:
        for step in range(start, total):
            batch = [train[i] for i in cyclic_batch(seeds, len(train), settings.batch_size, step)]
            n_tokens = sum(len(example.response) for example in batch)
            tokens = [example.length for example in batch]
            update = learner.update(batch, partial(_share, policy, n_tokens=n_tokens), tokens=tokens)
            if (step + 1) % settings.log_every == 0 or step + 1 == total:
                run.log(step + 1, {"loss/sft": update.loss, "grad_norm": update.grad_norm, "lr": update.learning_rate})
            if run.asked or (step + 1) % settings.save_every == 0 or step + 1 == total:
                save(run, step + 1, models, learner, {}, inputs=inputs)
            bar.advance(loss=update.loss)
            if step + 1 < total:
                run.obey(step + 1)
    result = {"steps": float(total), "examples": float(len(train))}
    return result | ({"eval_loss": evaluate(policy, held, settings)} if held else {})


@torch.no_grad()
def evaluate(policy: LanguagePolicy, examples: Sequence[Example], settings: SFT) -> float:
    """Mean negative log-likelihood in nats per token."""
    size = settings.optim.micro_batch_size
    total = sum(negative_log_likelihood(policy, examples[i : i + size]).item() for i in range(0, len(examples), size))
    return total / sum(len(example.response) for example in examples)


def _share(policy: LanguagePolicy, rows: Sequence[Example], n_tokens: int) -> Share:
    """These rows' share of a loss over `n_tokens` tokens."""
    return Share(negative_log_likelihood(policy, rows) / n_tokens)
