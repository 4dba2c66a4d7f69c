"""Learning from comparisons directly: what is read, what is added up, what is logged, and that it is learned."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import gradients, tiny, tiny_of, weights
from torch.nn.functional import logsigmoid

from backflip.errors import ConfigError, DataError, NumericsError
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import with_lora
from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Direct, Optim, Sampling
from backflip.train.comparisons import split_questions
from backflip.train.direct import compare, completion_logps, direct, encode_question, look, measure
from backflip.train.learner import Learner, Share
from backflip.train.optim import AdamW

torch.set_num_threads(1)

QUICK = Direct(
    batch_size=8, holdout=0.2, log_every=1, max_length=48, sample_prompts=2,
    sampling=Sampling(temperature=1.0, max_new_tokens=6),
    optim=Optim(learning_rate=1e-3, adam_eps=1e-8, adam_eps_convention="torch", micro_batch_size=3),
)  # fmt: skip
FIGURES = {"rewards/accuracies", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"}
DOUBLE = torch.float64


def opinions(n: int = 96, seed: int = 0) -> list[Comparison]:
    """Somebody who likes the letter z."""
    draw = random.Random(seed)
    texts = ["".join(draw.choice("aez") for _ in range(6)) for _ in range(2 * n)]
    made = []
    for i, (left, right) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        a, b = left.count("z"), right.count("z")
        made.append(Comparison(Prompt(f"the film {i}"), left, right, p_left=0.5 if a == b else float(a > b)))
    return made


def ranking() -> list[Comparison]:
    """Three completions of one prompt, the last two equal: three pairs of a third each."""
    query = Query(Prompt("the plot was"), (" good", " dull. the film was", " bad"))
    return Verdict(query.id, "ann", "ranking", ((0,), (1, 2))).comparisons(query)


MIXED = [
    *ranking(),
    Comparison(Prompt("a cat"), " sat on the mat", " saw", p_left=0.3, weight=2.0),
    Comparison(Prompt("no"), " end", " end in sight", p_left=1.0),
    Comparison(Prompt("a cat sat on the mat"), "", " dog", p_left=0.0),
]


def double(policy: LanguagePolicy) -> LanguagePolicy:
    policy.model.to(DOUBLE)
    return policy


def train(folder: Path, policy: LanguagePolicy, comparisons: list[Comparison], settings: Direct = QUICK, **given: Any) -> Any:
    with Run.open(folder, kind="dpo", settings=settings, quiet=True) as run:
        return direct(policy, comparisons, settings, run, seeds=Seeds(0), **given)


def ready(folder: Path, policy: LanguagePolicy, comparisons: list[Comparison], settings: Direct, reference: Any = None) -> Any:
    """The questions as tokens, with what the reference says of them."""
    questions = [encode_question(policy, q, settings) for q in split_questions(comparisons, 0.0, Seeds(0))[0]]
    with Run.open(folder, kind="dpo", settings=settings, quiet=True) as run:
        return look(reference or policy, questions, settings, run)


def nudged(policy: LanguagePolicy) -> LanguagePolicy:
    """The policy after a random step."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, p in policy.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return policy


# --------------------------------------------------------------------------------------------------- what is read


def test_a_question_holds_its_prompt_and_each_completion_once() -> None:
    policy = tiny()
    encoded = encode_question(policy, ranking(), QUICK)
    assert policy.decode(encoded.query) == "the plot was"
    assert [policy.decode(ids) for ids in encoded.responses] == [" good", " dull. the film was", " bad"]
    assert all(ids[-1] == policy.eos_id for ids in encoded.responses), "the end of the text counts"
    assert (encoded.left, encoded.right) == ([0, 0, 1], [1, 2, 2])
    assert (encoded.p_left, encoded.weights) == ([1.0, 1.0, 0.5], [1 / 3] * 3)


def test_long_questions_lose_the_start_of_the_prompt_then_the_end_of_completions() -> None:
    policy = tiny()
    whole = encode_question(policy, [Comparison(Prompt("qxqxqxqxqxqx"), "xy", "uvwxyz", p_left=1.0)], QUICK)
    sizes = [len(whole.query), *map(len, whole.responses)]
    assert sizes == [12, 3, 7], "letters are tokens of their own here"
    for length, query, responses in [(19, 12, [3, 7]), (16, 9, [3, 7]), (12, 6, [3, 6]), (8, 4, [3, 4]), (2, 1, [1, 1])]:
        settings = dataclasses.replace(QUICK, max_length=length)
        cut = encode_question(policy, [Comparison(Prompt("qxqxqxqxqxqx"), "xy", "uvwxyz", p_left=1.0)], settings)
        assert cut.query == whole.query[-query:]
        assert cut.responses == [ids[:n] for ids, n in zip(whole.responses, responses, strict=True)]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("averaged", [False, True])
def test_log_probabilities_are_those_of_plain_transformers(kind: str, averaged: bool, tmp_path: Path) -> None:
    policy = double(tiny_of(kind))
    settings = dataclasses.replace(QUICK, length_normalized=averaged)
    [question] = ready(tmp_path, policy, ranking(), settings)
    found = completion_logps(policy, [question], settings)
    expected = [plain_logp(policy, question.query, ids) / (len(ids) if averaged else 1) for ids in question.responses]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)
    assert question.reference == tuple(found.tolist()), "before any update the policy is its reference"


def plain_logp(policy: LanguagePolicy, query: list[int], response: list[int]) -> torch.Tensor:
    """log π(response | query), one row at a time, by the model alone."""
    logits = policy.model(torch.tensor([query + response])).logits[0, len(query) - 1 : -1]
    return logits.log_softmax(-1)[range(len(response)), response].sum()


# -------------------------------------------------------------------------------------------- what is added up


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_the_gradient_is_that_of_the_equation(loss: Any, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, loss=loss, beta=0.3, label_smoothing=0.1)
    policy, reference = nudged(double(tiny())), double(tiny())
    questions = ready(tmp_path, policy, MIXED, settings, reference)
    learner = Learner(policy.parameters(), dataclasses.replace(settings.optim, learning_rate=0.0, max_grad_norm=None), total=1)
    weight = sum(c.weight for c in MIXED)
    update = learner.update(questions, lambda rows: Share(compare(policy, rows, settings, weight)[0].loss))
    found = gradients(policy.parameters())

    learner.optimizer.zero_grad()
    total = torch.zeros((), dtype=DOUBLE)
    for c in MIXED:
        h = torch.zeros((), dtype=DOUBLE)
        for sign, text in ((1, c.left), (-1, c.right)):
            query, response = policy.encode(c.prompt), policy.encode_completion(text)
            with torch.no_grad():
                before = plain_logp(reference, query, response)
            size = len(response) if loss == "ipo" else 1
            h = h + sign * (plain_logp(policy, query, response) - before) / size
        p = 0.9 * c.p_left + 0.1 * (1 - c.p_left)
        if loss == "dpo":
            value = -p * logsigmoid(0.3 * h) - (1 - p) * logsigmoid(-0.3 * h)
        else:
            value = p * (h - 1 / 0.6) ** 2 + (1 - p) * (h + 1 / 0.6) ** 2
        total = total + c.weight * value / weight
    total.backward()
    # transformers takes norms and angles in float32 whatever the weights are.
    assert update.loss == pytest.approx(total.item(), abs=1e-6)
    expected = gradients(policy.parameters())
    assert max(g.abs().max().item() for g in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_micro_batches_change_neither_gradient_nor_figures(loss: Any, tmp_path: Path) -> None:
    found = []
    for size in (1, 2, 8):
        settings = dataclasses.replace(
            QUICK, loss=loss, holdout=0.0, batch_size=4, optim=dataclasses.replace(QUICK.optim, micro_batch_size=size)
        )
        policy = double(tiny())
        train(tmp_path / str(size), policy, MIXED, settings)
        found.append((weights(policy.model), read_lines(tmp_path / str(size) / "metrics.jsonl")[-1]))
    for parts, line in found[1:]:
        for name, value in parts.items():
            torch.testing.assert_close(value, found[0][0][name], rtol=0, atol=1e-6)
        assert line == pytest.approx(found[0][1], abs=1e-6)


def test_a_tie_between_sides_and_the_order_of_sides_do_not_matter(tmp_path: Path) -> None:
    there, back = double(tiny()), double(tiny())
    settings = dataclasses.replace(QUICK, holdout=0.0, label_smoothing=0.1)
    train(tmp_path / "there", there, MIXED, settings)
    train(tmp_path / "back", back, [c.swap() for c in MIXED], settings)
    lines = [read_lines(tmp_path / name / "metrics.jsonl") for name in ("there", "back")]
    assert len(lines[0]) == len(lines[1])
    for line, swapped in zip(*lines, strict=True):
        if line["step"] == 1:  # all rewards are 0 up to rounding, so who is ahead means nothing
            del line["rewards/accuracies"], swapped["rewards/accuracies"]
        assert swapped == pytest.approx(line, abs=1e-9)
    for name, value in weights(there.model).items():
        torch.testing.assert_close(weights(back.model)[name], value, rtol=0, atol=1e-8)


def test_a_pair_of_weight_zero_counts_for_nothing(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, holdout=0.0, batch_size=4)
    silent = [*MIXED, Comparison(Prompt("a dog"), "x", "y", p_left=1.0, weight=0.0)]
    policies = []
    for name, comparisons in (("without", MIXED), ("with", silent)):
        policy = tiny()
        train(tmp_path / name, policy, comparisons, settings)
        policies.append(weights(policy.model))
    assert all(torch.equal(policies[1][name], value) for name, value in policies[0].items())


def test_the_report_does_not_weigh(tmp_path: Path) -> None:
    comparisons = opinions(24)
    held = {c.prompt.id for q in split_questions(comparisons, 0.2, Seeds(0))[1] for c in q}
    weighed = [dataclasses.replace(c, weight=0.0 if c.prompt.id in held else 1.0) for c in comparisons]
    assert train(tmp_path / "one", tiny(), weighed) == train(tmp_path / "other", tiny(), comparisons)


# ----------------------------------------------------------------------------------------------- the reference


def test_a_fresh_adapter_needs_no_second_model(tmp_path: Path) -> None:
    plain = tiny()
    frozen, adapted = plain.frozen_copy(), with_lora(plain, rank=2, seeds=Seeds(0))
    by_itself = ready(tmp_path / "itself", adapted, MIXED, QUICK)
    assert by_itself == ready(tmp_path / "frozen", adapted, MIXED, QUICK, frozen)
    nudged(adapted)
    moved = ready(tmp_path / "moved", adapted, MIXED, QUICK)
    assert moved != by_itself, "log-probabilities are the adapter's too"
    with adapted.model.disable_adapter():
        assert ready(tmp_path / "off", adapted, MIXED, QUICK) == by_itself


def test_another_reference_may_be_given_and_stays_as_it_is(tmp_path: Path) -> None:
    reference, policy = tiny(1), tiny(0)
    before = weights(reference.model)
    train(tmp_path, policy, MIXED, dataclasses.replace(QUICK, holdout=0.0), reference=reference)
    assert all(torch.equal(value, before[name]) for name, value in weights(reference.model).items())
    first = read_lines(tmp_path / "metrics.jsonl")[0]
    assert abs(first["rewards/chosen"]) > 0.01, "the policy does not start at this reference"


# --------------------------------------------------------------------------------- what is logged and learned


def test_a_taste_is_learned_and_everything_said_is_true(tmp_path: Path) -> None:
    policy, comparisons = tiny(), opinions()
    settings = dataclasses.replace(QUICK, epochs=8.0, optim=dataclasses.replace(QUICK.optim, learning_rate=5e-3))
    report = train(tmp_path, policy, comparisons, settings)
    lines = read_lines(tmp_path / "metrics.jsonl")
    train_side, held = split_questions(comparisons, 0.2, Seeds(0))
    assert [line["step"] for line in lines] == list(range(1, len(train_side) + 1)), "8 passes of 8 questions at a time"
    assert set(lines[0]) == {"step", "loss/direct", "grad_norm", "lr"} | FIGURES
    # Before the first update the policy is its reference: no reward, a loss of ln 2, a coin's accuracy.
    assert lines[0]["loss/direct"] == pytest.approx(0.6931472, abs=1e-5)
    assert lines[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    # The margin grows, and yet the chosen text becomes less likely than it was: only the difference is trained.
    assert lines[-1]["rewards/margins"] > 1.0
    assert lines[-1]["rewards/chosen"] < -0.1
    for line in lines:
        assert line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"], abs=1e-5)
    assert report.n == sum(c.p_left != 0.5 for question in held for c in question)
    assert report.accuracy > 0.75
    assert report.accuracy_low < report.accuracy <= report.accuracy_high
    questions = ready(tmp_path / "again", policy, [c for question in held for c in question], settings, tiny())
    again = measure(policy, questions, [c for question in held for c in question], settings)
    assert again == pytest.approx(report, abs=1e-5)


def test_samples_are_those_of_before_and_after(tmp_path: Path) -> None:
    policy = tiny()
    train(tmp_path, policy, opinions(20))
    rows = read_lines(tmp_path / "samples.jsonl")
    assert [row["step"] for row in rows] == [0, 0, 2, 2]
    assert [row["prompt"] for row in rows[:2]] == [row["prompt"] for row in rows[2:]]
    held = {q[0].prompt.plain for q in split_questions(opinions(20), 0.2, Seeds(0))[1]}
    assert {row["prompt"] for row in rows} <= held
    assert set(rows[0]) == {"step", "prompt", "completion", "tokens", "finished"}
    none = dataclasses.replace(QUICK, sampling=Sampling(max_new_tokens=64))
    train(tmp_path / "no room", tiny(), opinions(20), none)
    assert not (tmp_path / "no room" / "samples.jsonl").exists() or not read_lines(tmp_path / "no room" / "samples.jsonl")


def test_a_batch_of_ties_has_a_loss_and_no_figures(tmp_path: Path) -> None:
    mixed = [Comparison(Prompt(f"p{i}"), "a", "b", p_left=0.5 if i else 1.0) for i in range(3)]
    train(tmp_path, tiny(), mixed, dataclasses.replace(QUICK, batch_size=1, holdout=0.0))
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert sorted(set(line) >= FIGURES for line in lines) == [False, False, True]
    assert all(line["loss/direct"] > 0 for line in lines)


def test_the_same_seed_learns_the_same(tmp_path: Path) -> None:
    policies = [tiny(), tiny()]
    for number, policy in enumerate(policies):
        train(tmp_path / str(number), policy, opinions(24))
    one, two = (weights(policy.model) for policy in policies)
    assert all(torch.equal(two[name], value) for name, value in one.items())
    assert (tmp_path / "0" / "metrics.jsonl").read_bytes() == (tmp_path / "1" / "metrics.jsonl").read_bytes()


def test_the_default_optimizer_is_rmsprop() -> None:
    # PyTorch's RMSprop does not correct the bias of its average, ours does: the same but for √(1 − 0.99ᵗ), which the
    # warm-up of 150 updates covers.
    optim = Direct().optim
    ours, theirs = (torch.nn.Parameter(torch.ones(3, dtype=DOUBLE)) for _ in range(2))
    beta1, beta2 = optim.adam_betas
    adam = AdamW([("x", ours)], betas=(beta1, beta2), eps=1e-30, eps_convention=optim.adam_eps_convention)
    rmsprop = torch.optim.RMSprop([theirs], lr=1.0, alpha=0.99, eps=1e-30)
    generator = torch.Generator().manual_seed(0)
    for t in range(1, 200):
        gradient = torch.randn(3, generator=generator, dtype=DOUBLE)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        adam.step(1e-3)
        for group in rmsprop.param_groups:
            group["lr"] = 1e-3 * (1 - 0.99**t) ** 0.5
        rmsprop.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    assert (optim.learning_rate, optim.warmup_steps, optim.lr_schedule, optim.max_grad_norm) == (1e-6, 150, "constant", 10.0)


def test_a_warm_up_as_long_as_the_run_is_said(tmp_path: Path, capsys: Any) -> None:
    for warmup in (2, 1):
        settings = dataclasses.replace(QUICK, optim=dataclasses.replace(QUICK.optim, warmup_steps=warmup))
        with Run.open(tmp_path / str(warmup), kind="dpo", settings=settings) as run:
            direct(tiny(), opinions(20), settings, run, seeds=Seeds(0))
        said = "warmup_steps 2 is not shorter than the run (2 updates)" in capsys.readouterr().err
        assert said == (warmup == 2)


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("comparisons", "sentence"),
    [
        ([], "there are no comparisons to learn from"),
        ([Comparison(Prompt("x"), "a", "b", p_left=1.0, weight=0.0)], "there are no comparisons to learn from"),
        ([Comparison(Prompt("x"), "a", "b", p_left=0.5)] * 3, "none of the 3 comparisons prefers one text to another"),
        ([Comparison(Prompt("x"), "a", "a", p_left=1.0)], "none of the 1 comparisons prefers one text to another"),
    ],
)
def test_there_must_be_something_to_learn_from(comparisons: list[Comparison], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        train(tmp_path, tiny(), comparisons)


def test_a_loss_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    policy, reference = tiny(), tiny(1)
    with torch.no_grad():
        next(reference.model.parameters()).fill_(float("nan"))
    before = weights(policy.model)
    with pytest.raises(NumericsError, match="the loss of update 1 is nan"):
        train(tmp_path, policy, opinions(20), reference=reference)
    assert all(torch.equal(value, before[name]) for name, value in weights(policy.model).items())


def test_a_run_begun_from_another_policy_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(QUICK, save_every=1)
    counter, update = itertools.count(), Learner.update

    def dying(self: Learner, *given: Any, **named: Any) -> Any:
        if next(counter) == 1:
            raise KeyboardInterrupt
        return update(self, *given, **named)

    monkeypatch.setattr(Learner, "update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny(0), opinions(20), settings)
    with pytest.raises(ConfigError, match=r"initial policy \(the reference\) changed"):
        train(tmp_path, tiny(1), opinions(20), settings)
    with pytest.raises(ConfigError, match="comparisons changed"):
        train(tmp_path, tiny(0), opinions(20)[1:], settings)
    assert train(tmp_path, tiny(0), opinions(20), settings).n > 0
