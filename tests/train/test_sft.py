"""Supervised fine-tuning: what is learned from, and that it is learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.tiny_models import TEXTS, tiny, weights

from backflip.errors import DataError
from backflip.policies.tokens import token_batch
from backflip.records import Prompt
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import SFT, Optim
from backflip.train.examples import Example
from backflip.train.sft import encode_demonstrations, encode_texts, evaluate, sft

torch.set_num_threads(1)


def test_a_demonstration_is_its_prompt_and_its_completion_with_an_end() -> None:
    policy = tiny()
    [example] = encode_demonstrations(policy, [(Prompt("the film"), " was good.")], SFT())
    assert policy.decode(example.query) == "the film"
    assert policy.decode(example.response) == " was good."
    assert example.response[-1] == policy.eos_id
    [whole] = encode_demonstrations(policy, [(Prompt("the film"), " was good.")], SFT(loss_on_prompt=True))
    assert whole.query + whole.response == example.query + example.response
    assert len(whole.query) == 1


def test_long_demonstrations_keep_their_beginning() -> None:
    policy = tiny()
    full = encode_demonstrations(policy, [(Prompt("no"), "abcdefgh" * 3)], SFT())[0]
    cut = encode_demonstrations(policy, [(Prompt("no"), "abcdefgh" * 3)], SFT(max_length=8))[0]
    assert cut.query == full.query
    assert cut.response == full.response[: 8 - len(full.query)]
    with pytest.raises(DataError, match=r"row 2: the prompt alone has \d+ tokens and max_length is 8"):
        encode_demonstrations(policy, [(Prompt("no"), "a"), (Prompt("xyz" * 9), "a")], SFT(max_length=8))


def test_raw_texts_become_windows_that_hold_every_token_once() -> None:
    policy = tiny()
    windows = encode_texts(policy, TEXTS, SFT(max_length=7))
    assert all(len(w.query) == 1 and 1 <= len(w.response) <= 6 for w in windows)
    total = sum(len(w.query) + len(w.response) for w in windows)
    rows = [policy.encode_completion(text) for text in TEXTS]
    assert total == sum(len(row) - (len(row) % 7 == 1) for row in rows)
    assert windows[0].query + windows[0].response == rows[0][:7]


def test_the_loss_measured_is_the_mean_over_all_tokens() -> None:
    policy = tiny()
    rows = [Example([5, 6], [7, 8, 9]), Example([10], [1])]
    one = [-policy.score(token_batch([r.query], [r.response], fill=0)).logps_BT.sum().item() for r in rows]
    for size in (1, 2):
        settings = SFT(optim=Optim(micro_batch_size=size))
        assert evaluate(policy, rows, settings) == pytest.approx(sum(one) / 4, rel=1e-5)


def test_a_policy_learns_to_write_like_its_data(tmp_path: Path) -> None:
    policy = tiny()
    rows = [(Prompt(f"the {word}"), f" {word} sat on the {word}.") for word in ("cat", "dog", "film", "plot") * 6]
    settings = SFT(
        epochs=6, batch_size=8, holdout=0.25, log_every=2,
        optim=Optim(learning_rate=1e-2, adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip
    examples = encode_demonstrations(policy, rows, settings)
    before = evaluate(policy, examples, settings)
    with Run.open(tmp_path / "run", kind="sft", settings=settings, quiet=True) as run:
        result = sft(policy, examples, settings, run, seeds=Seeds(0))
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    # 24 rows, 18 to learn from, 6 passes of 8 at a time: 13.5 updates, so 14.
    assert (result["steps"], result["examples"]) == (14, 18)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12, 14]
    assert set(lines[0]) == {"step", "loss/sft", "grad_norm", "lr"}
    assert result["eval_loss"] < 0.5 * before
    assert result["eval_loss"] == pytest.approx(evaluate(policy, examples[:4], settings), rel=0.3)


def test_steps_can_be_limited_and_the_same_seed_learns_the_same(tmp_path: Path) -> None:
    settings = SFT(max_steps=2, batch_size=2, holdout=0.0, log_every=1)
    found = []
    for name in ("one", "two"):
        policy = tiny()
        examples = encode_texts(policy, TEXTS, settings)
        with Run.open(tmp_path / name, kind="sft", settings=settings, quiet=True) as run:
            result = sft(policy, examples, settings, run, seeds=Seeds(3))
        assert result == {"steps": 2, "examples": 3}
        found.append((weights(policy.model), (tmp_path / name / "metrics.jsonl").read_bytes()))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(found[1][0][name], x) for name, x in found[0][0].items())


def test_there_must_be_something_to_learn_from(tmp_path: Path) -> None:
    settings = SFT()
    with (
        Run.open(tmp_path / "run", kind="sft", settings=dataclasses.asdict(settings), quiet=True) as run,
        pytest.raises(DataError, match="there are no examples"),
    ):
        sft(tiny(), [], settings, run, seeds=Seeds(0))
