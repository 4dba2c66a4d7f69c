"""Direct preference optimisation: a policy learns from comparisons, without a reward model and without sampling.

    h = [log π − log ρ](y_left | x) − [log π − log ρ](y_right | x)
    dpo   −p log σ(βh) − (1 − p) log σ(−βh)                    Rafailov et al. 2023 (2305.18290), eq. 7
    ipo   p (h − 1/2β)² + (1 − p) (h + 1/2β)²                  Azar et al. 2023 (2310.12036), eq. 17

p is the belief that the left one is better, ρ the reference. Kept of the original code: log-probabilities are sums over a
completion's tokens, its end-of-text token included, and dropout is off. Ours are ties and soft labels, all pairs of a
question in one batch with each completion read once, and a reference that is no second model: ρ never changes, so the policy
itself, as it stands before its first update, says once what ρ says.

Legend: R completions, T response columns, N comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backflip.errors import DataError
from backflip.maths.preference import DirectLoss, dpo, ipo
from backflip.policies.language import LanguagePolicy
from backflip.policies.recompute import recompute
from backflip.records import Comparison, Prompt, content_id
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Direct
from backflip.train.comparisons import Question, RewardReport, judge, split_questions
from backflip.train.examples import Example, log_likelihoods
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, fingerprint, frozen_weights, resume, save


class Encoded(NamedTuple):
    """A question as tokens: one prompt, each completion on it once, and its comparisons as places among the completions,
    beliefs in the left one and weights. `reference` holds the reference's log-probability of each completion."""

    query: list[int]
    responses: list[list[int]]
    left: list[int]
    right: list[int]
    p_left: list[float]
    weights: list[float]
    reference: tuple[float, ...] = ()


class Note(NamedTuple):
    """What a micro-batch saw of its decided comparisons: how many they are, and the sum of each figure over them."""

    decided: int
    sums: dict[str, float]


def direct(
    policy: LanguagePolicy,
    comparisons: Sequence[Comparison],
    settings: Direct,
    run: Run,
    *,
    seeds: Seeds,
    reference: LanguagePolicy | None = None,
) -> RewardReport:
    """Train `policy` in place; returns how well its implicit reward β log(π/ρ) does on the questions held out.

    `reference` ρ (default: the policy as it comes) must share the policy's tokenizer. Raises DataError when there is nothing
    to learn from, ConfigError when a run is resumed with another policy, reference, seed or other comparisons than it was
    begun with, NumericsError when the loss is not finite.
    """
    train, held = split_questions(comparisons, settings.holdout, seeds)
    train = [told for question in train if (told := [c for c in question if c.weight > 0])]
    _check([c for question in train for c in question])
    ref = policy if reference is None else reference
    inputs: Inputs = {
        "seed": seeds.root,
        "comparisons": content_id(comparisons),
        "initial policy (the reference)": fingerprint(ref.model.named_parameters()),
        "frozen weights": frozen_weights(policy),
    }
    total = math.ceil(settings.epochs * len(train) / settings.batch_size)
    learner = Learner(policy.parameters(), settings.optim, total=total, say=run.say)
    if settings.optim.gradient_checkpointing:
        recompute(policy.model)
    with learner.arithmetic():
        rows = look(ref, [encode_question(policy, q, settings) for q in [*train, *held]], settings, run)
    learn, watch = rows[: len(train)], rows[len(train) :]
    models = {"policy": policy}
    start = resume(run, models, learner, inputs=inputs)["step"]
    _warn(total, settings, run)
    shown = _prompts_to_show(policy, held or train, settings)
    if start == 0:
        run.samples(0, _samples(policy, shown, settings, seeds))
    with run.progress(total, settings.loss.upper(), done=start) as bar:
        for step in range(start, total):
            batch = [learn[i] for i in cyclic_batch(seeds, len(learn), settings.batch_size, step)]
            weight = sum(sum(question.weights) for question in batch)
            tokens = [sum(len(question.query) + len(r) for r in question.responses) for question in batch]
            update = learner.update(batch, partial(_share, policy, settings=settings, weight=weight), tokens=tokens)
            figures = _means(update.notes)
            if (step + 1) % settings.log_every == 0 or step + 1 == total:
                kept = {"grad_norm": update.grad_norm, "lr": update.learning_rate}
                run.log(step + 1, {"loss/direct": update.loss} | figures | kept)
            if step + 1 == total:
                run.samples(total, _samples(policy, shown, settings, seeds))
            if run.asked or (step + 1) % settings.save_every == 0 or step + 1 == total:
                save(run, step + 1, models, learner, {}, inputs=inputs)
            bar.advance(loss=update.loss, accuracy=figures.get("rewards/accuracies", 0.5))
            if step + 1 < total:
                run.obey(step + 1)
    with learner.arithmetic():
        return measure(policy, watch or learn, [c for question in held or train for c in question], settings)


def encode_question(policy: LanguagePolicy, question: Question, settings: Direct) -> Encoded:
    """A question as tokens, prompt and completion at most `max_length` together.

    Where they are longer the prompt loses its start, the same for every completion, but keeps up to half of `max_length`;
    then completions lose their end (max_length 512 and max_prompt_length 256 in the original code).
    """
    length = min(settings.max_length, policy.context)
    texts = list(dict.fromkeys(text for c in question for text in (c.left, c.right)))
    responses = [policy.encode_completion(text) for text in texts]
    room = max(length - max(map(len, responses)), length // 2)
    query = policy.encode(question[0].prompt)[-room:]
    return Encoded(
        query=query,
        responses=[response[: length - len(query)] for response in responses],
        left=[texts.index(c.left) for c in question],
        right=[texts.index(c.right) for c in question],
        p_left=[c.p_left for c in question],
        weights=[c.weight for c in question],
    )


@torch.no_grad()
def look(reference: LanguagePolicy, questions: Sequence[Encoded], settings: Direct, run: Run) -> list[Encoded]:
    """The questions with the reference's log-probability of each completion."""
    size = settings.optim.micro_batch_size
    found: list[Encoded] = []
    with run.progress(math.ceil(len(questions) / size), "reference") as bar:
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            values = iter(completion_logps(reference, part, settings).tolist())
            found += [q._replace(reference=tuple(next(values) for _ in q.responses)) for q in part]
            bar.advance()
            run.obey()
    return found


def completion_logps(policy: LanguagePolicy, questions: Sequence[Encoded], settings: Direct) -> Tensor:
    """log π of every completion of these questions, in order, (R,) in nats: summed over its tokens or, where the settings
    say so, averaged. Differentiable in the weights."""
    rows = [Example(question.query, response) for question in questions for response in question.responses]
    sums_R = log_likelihoods(policy, rows)
    if not averages_tokens(settings):
        return sums_R
    return sums_R / torch.tensor([len(row.response) for row in rows], device=sums_R.device)


def averages_tokens(settings: Direct) -> bool:
    """Whether log-probabilities are means over tokens: as the settings say or, where they do not, as the loss's authors do."""
    return settings.loss == "ipo" if settings.length_normalized is None else settings.length_normalized


def compare(policy: LanguagePolicy, questions: Sequence[Encoded], settings: Direct, weight: float) -> tuple[DirectLoss, Note]:
    """These questions' share of the batch's loss, and what is logged about them; `weight` is the whole batch's."""
    logps_R = completion_logps(policy, questions, settings)
    left_N, right_N, starts = [], [], 0
    for question in questions:
        left_N += [starts + place for place in question.left]
        right_N += [starts + place for place in question.right]
        starts += len(question.responses)

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logps_R.dtype, device=logps_R.device)

    ref_R = column([value for question in questions for value in question.reference])
    believed_N = column([p for question in questions for p in question.p_left])
    wrong = settings.label_smoothing
    loss = {"dpo": dpo, "ipo": ipo}[settings.loss]
    found = loss(
        logps_R[left_N], logps_R[right_N], ref_R[left_N], ref_R[right_N],
        beta=settings.beta,
        p_chosen_N=(1 - wrong) * believed_N + wrong * (1 - believed_N),
        weight_N=column([w for question in questions for w in question.weights]),
        denominator=weight,
    )  # fmt: skip
    logps_R = logps_R.detach()
    return found, _note(found, logps_R[left_N], logps_R[right_N], believed_N)


def _share(policy: LanguagePolicy, questions: Sequence[Encoded], settings: Direct, weight: float) -> Share:
    found, note = compare(policy, questions, settings, weight)
    return Share(found.loss, note)


@torch.no_grad()
def measure(
    policy: LanguagePolicy, questions: Sequence[Encoded], comparisons: Sequence[Comparison], settings: Direct
) -> RewardReport:
    """The implicit reward of the policy as a judge of `comparisons`, which are those of `questions` in order."""
    size = settings.optim.micro_batch_size
    found = [compare(policy, questions[i : i + size], settings, weight=1.0)[0] for i in range(0, len(questions), size)]
    left = [value for part in found for value in part.chosen_rewards_N.tolist()]
    right = [value for part in found for value in part.rejected_rewards_N.tolist()]
    return judge(left, right, comparisons)


def _note(found: DirectLoss, left_logps_N: Tensor, right_logps_N: Tensor, believed_N: Tensor) -> Note:
    """Sums over the decided comparisons, each seen from the side that is believed better."""
    left_won_N, decided_N = believed_N > 0.5, believed_N != 0.5

    def winner(left_N: Tensor, right_N: Tensor) -> Tensor:
        return torch.where(left_won_N, left_N, right_N)[decided_N]

    sides = (found.chosen_rewards_N, found.rejected_rewards_N)
    chosen_N, rejected_N = winner(*sides), winner(*reversed(sides))
    figures = {
        "rewards/accuracies": 0.5 + 0.5 * (chosen_N - rejected_N).sign(),
        "rewards/chosen": chosen_N,
        "rewards/rejected": rejected_N,
        "rewards/margins": chosen_N - rejected_N,
        "logps/chosen": winner(left_logps_N, right_logps_N),
        "logps/rejected": winner(right_logps_N, left_logps_N),
    }
    return Note(int(decided_N.sum()), {name: values_N.sum().item() for name, values_N in figures.items()})


def _means(notes: Sequence[Note]) -> dict[str, float]:
    """The batch's figures; none when all its comparisons are ties."""
    decided = sum(note.decided for note in notes)
    if not decided:
        return {}
    return {name: sum(note.sums[name] for note in notes) / decided for name in notes[0].sums}


def _check(comparisons: Sequence[Comparison]) -> None:
    if not comparisons:
        raise DataError(
            "there are no comparisons to learn from; every verdict was a skip or had no weight, or the store is empty"
        )
    if all(c.p_left == 0.5 or c.left == c.right for c in comparisons):
        raise DataError(
            f"none of the {len(comparisons)} comparisons prefers one text to another, so there is nothing to learn; "
            "ask questions on completions that differ more"
        )


def _warn(total: int, settings: Direct, run: Run) -> None:
    if total <= settings.optim.warmup_steps:
        run.say(
            f"warmup_steps {settings.optim.warmup_steps} is not shorter than the run ({total} updates), so the learning rate "
            "is still rising at its end; lower it, or raise epochs"
        )


def _prompts_to_show(policy: LanguagePolicy, questions: Sequence[Question], settings: Direct) -> list[Prompt]:
    """The first prompts that leave room for a completion."""
    room = policy.context - settings.sampling.max_new_tokens
    distinct = {question[0].prompt.id: question[0].prompt for question in questions}.values()
    return [prompt for prompt in distinct if len(policy.encode(prompt)) <= room][: settings.sample_prompts]


def _samples(policy: LanguagePolicy, prompts: Sequence[Prompt], settings: Direct, seeds: Seeds) -> list[dict[str, Any]]:
    """What the policy writes, with the same random numbers whenever it is asked."""
    if not prompts:
        return []
    groups = generate_samples(policy, prompts, n=1, seeds=seeds.child("samples"), settings=settings.sampling)
    return [{"prompt": s.prompt.plain, "completion": s.text, "tokens": s.n_tokens, "finished": s.finished} for (s,) in groups]
