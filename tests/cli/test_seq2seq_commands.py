"""A T5 that plain transformers saved goes through the commands, with a reward model of another form and tokenizer; beams."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

RUN = ("--quiet", "--batch-size", 8, "--learning-rate", 1e-2)
SHORT = ("--max-new-tokens", 4)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_seq2seq import tiny_seq2seq

    folder = tmp_path_factory.mktemp("t5") / "t5"
    policy = tiny_seq2seq("t5")
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [(), ("--lora", 2)])
def test_an_encoder_decoder_goes_through_every_command(
    lora: tuple[object, ...], t5: Path, kit: Any, backflip: Any, tmp_path: Path
) -> None:
    def command(name: str, *argv: object) -> str:
        said = backflip(name, *argv)
        assert (said.code, said.err) == (0, "")
        return str(said.out)

    sft, ppo = (tmp_path / name / "model" for name in ("sft", "ppo"))
    command("sft", "--policy", t5, "--data", kit.demos, "--output", sft.parent, "--max-steps", 2, *RUN, *lora)
    steps = ("--steps", 2, "--ppo-epochs", 2, *SHORT, *RUN, *lora)
    command("ppo", "--policy", sft, "--reward", kit.reward, "--data", kit.prompts, "--output", ppo.parent, *steps)
    groups = ("--num-generations", 2, "--output", tmp_path / "grpo", *SHORT, *RUN, *lora)
    command("grpo", "--policy", sft, "--reward", kit.reward, "--data", kit.prompts, "--steps", 1, *groups)
    dpo = ("--data", kit.pairs, "--output", tmp_path / "dpo", "--epochs", 0.5, "--max-length", 64, *SHORT, *RUN, *lora)
    command("dpo", "--policy", sft, *dpo)
    models = [AutoModelForSeq2SeqLM.from_pretrained(folder) for folder in (t5, sft, ppo)]
    for before, after in itertools.pairwise(model.state_dict() for model in models):
        assert any(not torch.equal(before[name], after[name]) for name in before)

    samples = tmp_path / "samples.jsonl"
    given = ("--data", kit.prompts, "--max-rows", 2, *SHORT, "--output", samples)
    command("sample", "--policy", ppo, "--reward", kit.reward, *given)
    assert len([json.loads(line) for line in samples.read_text().splitlines()]) == 2

    given = ("--policies", f"before={sft}", f"after={ppo}", "--prompts", kit.prompts, *SHORT)
    assert "blind matches in the store" in command("arena", tmp_path / "feedback.db", *given)
    assert "after" in command("arena", tmp_path / "feedback.db")


def test_what_an_encoder_decoder_cannot_do_is_said_in_one_sentence(t5: Path, kit: Any, backflip: Any, tmp_path: Path) -> None:
    for name, data, what in (
        ("reward", kit.pairs, "use a decoder-only model"),
        ("sft", kit.texts, "give rows with a prompt and a completion"),
    ):
        said = backflip(name, "--policy", t5, "--data", data, "--output", tmp_path / name, "--quiet")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert what in said.err
    given = ("--data", kit.prompts, "--labeler", kit.reward, "--train.arena-prompts", 2)
    said = backflip("rounds", "--policy", t5, *given, "--output", tmp_path / "rounds", "--quiet")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "a reward model cannot start from one" in said.err


@pytest.mark.parametrize("kind", ["causal", "t5"])
def test_beams_from_the_command_line(kind: str, t5: Path, kit: Any, backflip: Any, tmp_path: Path) -> None:
    policy = kit.policy if kind == "causal" else t5

    def written(seed: int, *more: object) -> list[str]:
        path = tmp_path / "samples.jsonl"
        given = ("--policy", policy, "--data", kit.prompts, "--max-rows", 3, "--seed", seed, "--output", path)
        said = backflip("sample", *given, *SHORT, *more)
        assert (said.code, said.err) == (0, "")
        return [json.loads(line)["completion"] for line in path.read_text().splitlines()]

    beams = written(1, "--sampling.num-beams", 4)
    assert beams == written(2, "--num-beams", 4, "--length-penalty", 1)
    assert beams != written(1)
    said = backflip("sample", "--policy", policy, "--data", kit.prompts, "--num-beams", 4, "--n", 2)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "set num_beams to 1" in said.err


def test_beams_are_refused_where_completions_must_be_drawn(kit: Any, backflip: Any, tmp_path: Path) -> None:
    ppo = ("ppo", "--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts)
    rounds = ("rounds", "--policy", kit.policy, "--data", kit.prompts, "--labeler", kit.reward)
    for number, argv in enumerate(
        [(*ppo, "--num-beams", 2), (*rounds, "--train.sampling.num-beams", 2), (*rounds, "--train.ppo.sampling.num-beams", 2)]
    ):
        said = backflip(*argv, "--output", tmp_path / str(number), "--quiet")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "needs completions drawn from the policy" in said.err
