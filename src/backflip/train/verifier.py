"""Fit a verifier: a reward model that says whether a text, or each of its steps, is right.

    L = − Σ_rows 1/|M| Σ_{m∈M} [y_m log σ(s_m) + (1 − y_m) log σ(−s_m)] / rows

s is the score at a token. The marks M of a text are its last token alone (an outcome model), every token of the completion with
the label of the whole (the token-level verifier of Cobbe et al. 2021, 2110.14168, section 4.2, which there has a squared loss
and a language-model loss beside it), or the last token of each step with a label of its own (a process model, Lightman et al.
2023, 2305.20050, section 2.6).

Legend: B rows, L tokens, N marks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from backflip.errors import ConfigError, DataError
from backflip.feedback.marks import Marked
from backflip.maths.calibration import ranking_area
from backflip.maths.ratings import wilson
from backflip.policies.language import training_mode
from backflip.policies.recompute import recompute
from backflip.policies.tokens import pad
from backflip.policies.transfer import send
from backflip.records import content_id
from backflip.rewards.learned import RewardModel
from backflip.rewards.reading import LastToken
from backflip.rewards.spans import PrefixLengths, ending_token
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Reward
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, resume, save

Granularity = Literal["outcome", "token", "step"]


class Row(NamedTuple):
    """A text as tokens, and the places that are marked with whether they are right."""

    ids: list[int]
    places: list[int]
    labels: list[float]


class VerifierReport(NamedTuple):
    """How good a verifier is on texts that were held out: of its marks (of an outcome or token model, one for each text).

    `accuracy` is how often score > 0 says the label, beside `majority`, the share of the commoner label; `area` is the chance
    that a right one scores above a wrong one (None where all are alike).
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    n: int
    majority: float
    area: float | None
    log_loss: float


def fit_verifier(
    model: RewardModel, marked: Sequence[Marked], settings: Reward, run: Run, *, seeds: Seeds, granularity: Granularity
) -> VerifierReport:
    """Train `model` in place on texts that are marked right or wrong, and measure it on prompts held out.

    Scores are log-odds of being right and are not scaled. Of `settings` those about losses of comparisons and about scaling play
    no part. Raises ConfigError for an encoder, or for steps read at an end-of-text token that beginnings do not have; DataError
    when there is nothing to learn from, or everything has one label.
    """
    check_verifier(model, granularity)
    train, held = split_prompts(marked, settings.holdout, seeds)
    rows = [encode(model, text, granularity) for text in train]
    labels = {label for row in rows for label in row.labels}
    if len(labels) < 2:
        raise DataError(
            f"all {len(train)} texts are marked alike, so there is nothing to tell apart; give right ones and wrong ones"
        )
    total = math.ceil(settings.epochs * len(rows) / settings.batch_size)
    learner = Learner(model.parameters(), settings.optim, total=total, say=run.say)
    if settings.optim.gradient_checkpointing:
        recompute(model.model)
    model.gain.requires_grad_(settings.train_gain)
    inputs: Inputs = {"seed": seeds.root, "texts": content_id([text.to_json() for text in marked]), "marks": granularity}
    start = resume(run, {"reward": model}, learner, inputs=inputs)["step"]
    with run.progress(total, "verifier", done=start) as bar:
        for step in range(start, total):
            batch = [rows[i] for i in cyclic_batch(seeds, len(rows), settings.batch_size, step)]
            with training_mode(model.model, settings.dropout, seed=seeds.integer("dropout", step)):
                update = learner.update(batch, partial(_share, model, n=len(batch)), tokens=[len(row.ids) for row in batch])
            if (step + 1) % settings.log_every == 0 or step + 1 == total:
                kept = {"grad_norm": update.grad_norm, "lr": update.learning_rate, "gain": model.gain.item()}
                run.log(step + 1, {"loss/reward": update.loss} | kept)
            if run.asked or (step + 1) % settings.save_every == 0 or step + 1 == total:
                save(run, step + 1, {"reward": model}, learner, {}, inputs=inputs)
            bar.advance(loss=update.loss)
            if step + 1 < total:
                run.obey(step + 1)
    model.fold()
    model.gain.requires_grad_(True)
    return measure_verifier(model, held or train, granularity)


def check_verifier(model: RewardModel, granularity: Granularity) -> None:
    """Raises ConfigError for a model that cannot be marked so."""
    if not isinstance(model.reading, LastToken) and granularity != "outcome":
        raise ConfigError(f"{type(model.model).__name__} reads a text as a whole; mark outcomes, or use a decoder")
    if granularity == "step" and model.score_at == "eos":
        raise ConfigError("a step is judged at its own last token; set score_at to last")


def split_prompts(marked: Sequence[Marked], holdout: float, seeds: Seeds) -> tuple[list[Marked], list[Marked]]:
    """Texts to learn from and texts held out; all on one prompt on the same side."""
    ids = [text.prompt.id for text in marked]
    prompts = list(dict.fromkeys(ids))
    order = seeds.permutation(len(prompts), "holdout")
    held = {prompts[i] for i in order[: int(len(prompts) * holdout)]}
    sides: tuple[list[Marked], list[Marked]] = ([], [])
    for name, text in zip(ids, marked, strict=True):
        sides[name in held].append(text)
    return sides


def encode(model: RewardModel, text: Marked, granularity: Granularity) -> Row:
    """A text as tokens with its marks. What `max_length` cuts off at the start takes its marks with it."""
    ids = model.encode(text.prompt, text.completion)
    right = float(text.right)
    if granularity == "outcome":
        return Row(ids, [len(ids) - 1], [right])
    own = list(model.tokenizer(text.completion, add_special_tokens=False)["input_ids"])
    ends = model.score_at == "eos"
    first = len(ids) - len(own) - ends
    if granularity == "token":
        places = [place for place in range(first, len(ids)) if place >= 0] or [len(ids) - 1]
        return Row(ids, places, [right] * len(places))
    lengths = PrefixLengths(own, text.completion, lambda tokens: str(model.tokenizer.decode(tokens)))
    found = [(first + ending_token(lengths, end, len(own)), float(label)) for end, label in text.marks]
    kept = [(place, label) for place, label in found if place >= 0] or [(len(ids) - 1, float(text.marks[-1][1]))]
    return Row(ids, [place for place, _ in kept], [label for _, label in kept])


@torch.no_grad()
def measure_verifier(model: RewardModel, marked: Sequence[Marked], granularity: Granularity) -> VerifierReport:
    """How good `model` is on marked texts: at the last token of each, or at each of its steps."""
    kind: Granularity = "step" if granularity == "step" else "outcome"
    rows = sorted((encode(model, text, kind) for text in marked), key=lambda row: len(row.ids))
    scores: list[float] = []
    for start in range(0, len(rows), model.batch_size):
        scores += _marked_scores(model, rows[start : start + model.batch_size]).tolist()
    labels = [label for row in rows for label in row.labels]
    n = len(labels)
    right = sum((score > 0) == bool(label) for score, label in zip(scores, labels, strict=True)) / n
    good, bad = ([s for s, label in zip(scores, labels, strict=True) if label == side] for side in (1.0, 0.0))
    loss = binary_cross_entropy_with_logits(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64))
    return VerifierReport(
        right, *wilson(right, n), n, max(len(good), len(bad)) / n, ranking_area(bad, good) if good and bad else None, loss.item()
    )


def _marked_scores(model: RewardModel, rows: Sequence[Row]) -> torch.Tensor:
    """The scores at the marks of some rows, (N,), row by row, differentiable."""
    if not isinstance(model.reading, LastToken):
        return model.scores([row.ids for row in rows])
    fill = int(model.tokenizer.pad_token_id or 0)
    ids_BL, mask_BL = (send(t, model.device) for t in pad([row.ids for row in rows], fill=fill, left=False))
    row_N = [b for b, row in enumerate(rows) for _ in row.places]
    return model.token_scores(ids_BL, mask_BL)[row_N, [place for row in rows for place in row.places]]


def _share(model: RewardModel, rows: Sequence[Row], n: int) -> Share:
    """These rows' share of the loss of a batch of n."""
    scores_N = _marked_scores(model, rows)
    label_N = scores_N.new_tensor([label for row in rows for label in row.labels])
    weight_N = scores_N.new_tensor([1.0 / len(row.places) for row in rows for _ in row.places])
    return Share(binary_cross_entropy_with_logits(scores_N, label_N, weight=weight_N, reduction="sum") / n)
