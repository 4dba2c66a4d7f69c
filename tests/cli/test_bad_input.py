"""Whatever is wrong with what a person gives: one sentence, exit code 2, and nothing lost.

Every test drives the command line in this process. `refused` asserts what all refusals have in common.
"""

from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

QUICK = ("--quiet", "--batch-size", 8, "--save-every", 1)
FAST_PPO = (*QUICK, "--ppo-epochs", 1, "--max-new-tokens", 5, "--steps", 2)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder but the empty lock."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}


@pytest.fixture
def refused(backflip: Any, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must refuse; returns its sentence. Files that were there are as they were."""

    def run(*argv: object) -> str:
        before = contents(tmp_path)
        said = backflip(*argv)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("backflip: ")
        assert said.err.count("\n") == 1, f"one line, not:\n{said.err}"
        assert "Traceback" not in said.err
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before, "a file that was there has changed"
        return str(said.err.removeprefix("backflip: ").rstrip("\n"))

    return run


@pytest.fixture
def copy(kit: Any, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the kit's policy or reward model, to be spoiled."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(getattr(kit, name), tmp_path / f"spoiled-{name}"))

    return make


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def spoil_weights(folder: Path, value: float) -> None:
    """Put `value` into one weight of every token's embedding."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if "embed_tokens" in n)
    weights[name][:, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("what", ["policy", "reward", "data"])
def test_a_missing_path(what: str, kit: Any, refused: Any, tmp_path: Path) -> None:
    given = {"policy": kit.policy, "reward": kit.reward, "data": kit.prompts} | {what: tmp_path / "nowhere" / "x"}
    argv = [word for name, value in given.items() for word in (f"--{name}", value)]
    sentence = refused("ppo", *argv, "--output", tmp_path / "r", *FAST_PPO)
    assert str(tmp_path / "nowhere" / "x") in sentence
    assert not (tmp_path / "r").exists(), "what is given is read before anything is made"


def test_a_folder_that_is_no_model(kit: Any, refused: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "cat.png").write_text("x")
    given = ("sft", "--data", kit.demos, "--output", tmp_path / "r", *QUICK)
    assert refused(*given, "--policy", folder).endswith("it has no config.json (it holds cat.png)")
    assert "is a file" in refused(*given, "--policy", folder / "cat.png")


def test_a_run_folder_where_its_model_is_meant(kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    copy("policy").rename(tmp_path / "run" / "model")
    sentence = refused("sft", "--policy", tmp_path / "run", "--data", kit.demos, "--output", tmp_path / "r", *QUICK)
    assert sentence == f"{tmp_path}/run is not a model folder; is {tmp_path}/run/model meant?"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", b"{", "cannot be loaded"),
        ("config.json", b'{"model_type": "parrot"}', "cannot be loaded"),
        ("model.safetensors", b"\0" * 100, "cannot be loaded"),
        ("tokenizer.json", b"{", "cannot be loaded"),
    ],
)
def test_a_broken_model_folder(file: str, content: bytes, reason: str, kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    folder = copy("policy")
    (folder / file).write_bytes(content)
    sentence = refused("sft", "--policy", folder, "--data", kit.demos, "--output", tmp_path / "r", *QUICK)
    assert str(folder) in sentence
    assert reason in sentence


def test_a_policy_is_no_reward_model_and_the_other_way_round(kit: Any, refused: Any, tmp_path: Path) -> None:
    given = ("ppo", "--data", kit.prompts, "--output", tmp_path / "r", *FAST_PPO)
    assert "is not a reward model" in refused(*given, "--policy", kit.policy, "--reward", kit.policy)
    assert "is a reward model" in refused(*given, "--policy", kit.reward, "--reward", kit.reward)


# -------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("sft", '{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n', ["line 2", "not valid JSON"]),
        ("sft", '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', ["line 2", "no column 'completion'"]),
        ("reward", '{"prompt": "a", "chosen": "b"}\n', ["line 1", "no column 'rejected'"]),
        ("ppo", '{"prompt": "a"}\n{"promt": "a"}\n', ["line 2", "no column 'prompt'", "is 'promt' meant?"]),
        ("sample", '["a"]', ["item 1", "expected an object"]),
        ("ppo", '{"prompt": 3}\n', ["line 1", "'prompt'"]),
        ("sft", "", ["holds no rows"]),
        ("reward", "\n\n", ["holds no rows"]),
        ("ppo", "[]", ["holds no rows"]),
        ("reward", '{"prompt": "a", "chosen": "b", "rejected": 1}\n', ["line 1"]),
        ("sft", b"\xff\xfe", ["line 1", "not UTF-8"]),
    ],
)
def test_a_bad_data_file(command: str, content: str | bytes, words: list[str], kit: Any, refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    argv = [command, "--policy", kit.policy, "--data", path, "--output", tmp_path / "r"]
    sentence = refused(*argv, *(["--reward", kit.reward] if command == "ppo" else []))
    assert str(path) in sentence
    for word in words:
        assert word in sentence
    assert not (tmp_path / "r").exists()


def test_an_empty_text_file(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    sentence = refused("sft", "--policy", "tiny", "--data", tmp_path / "empty.txt", "--output", tmp_path / "r")
    assert sentence == f"{tmp_path}/empty.txt holds no text"


def test_demonstrations_of_nothing(kit: Any, refused: Any, backflip: Any, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "", "completion": ""}\n')
    given = ("sft", "--policy", kit.policy, "--data", tmp_path / "d.jsonl", "--output", tmp_path / "r", *QUICK)
    assert backflip(*given).code == 0, "an end-of-text token alone is something to learn"


def test_an_overlong_prompt(kit: Any, refused: Any, backflip: Any, tmp_path: Path) -> None:
    long = {"prompt": "the film " * 100, "completion": "x"}
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n" + json.dumps(long) + "\n")
    given = ("--policy", kit.policy, "--data", tmp_path / "p.jsonl", "--output", tmp_path / "r")
    ppo = ("ppo", *given, "--reward", kit.reward, *FAST_PPO)
    for command in (ppo, ("sample", *given, "--max-new-tokens", 5), ("sft", *given)):
        sentence = refused(*command)
        assert sentence.startswith(("prompt 2 ", "row 2:"))
        assert "shorten it" in sentence
    for number, way in enumerate(("truncate", "drop")):
        assert backflip(*ppo, "--overlong", way, "--output", tmp_path / f"{number}").code == 0


# -------------------------------------------------------------------------------------------------- tokenizers


def test_a_tokenizer_without_an_end_of_text_token(kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    folder = copy("policy")
    edit(folder / "tokenizer_config.json", eos_token=None)
    sentence = refused("sft", "--policy", folder, "--data", kit.demos, "--output", tmp_path / "r", *QUICK)
    assert "has no end-of-text token" in sentence
    assert "eos_token" in sentence
    reward = copy("reward")
    edit(reward / "tokenizer_config.json", eos_token=None)
    given = ("--policy", kit.policy, "--data", kit.prompts, "--output", tmp_path / "r", *FAST_PPO)
    assert "has no end-of-text token" in refused("ppo", *given, "--reward", reward)


def test_a_tokenizer_without_a_padding_token_works(kit: Any, copy: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.policies import load_policy
    from backflip.rewards import RewardModel

    folder = copy("policy")
    edit(folder / "tokenizer_config.json", pad_token=None)
    assert load_policy(folder).tokenizer.pad_token is None
    sft = ("--data", kit.demos, "--output", tmp_path / "sft", "--max-steps", 1, "--micro-batch-size", 4)
    assert backflip("sft", "--policy", folder, *sft, *QUICK).code == 0
    reward = ("--data", kit.pairs, "--output", tmp_path / "reward", "--normalization-samples", 8)
    assert backflip("reward", "--policy", tmp_path / "sft" / "model", *reward, *QUICK).code == 0
    model = RewardModel.load(tmp_path / "reward" / "model")
    assert model.tokenizer.pad_token is not None
    assert model.tokenizer.pad_token_id != model.tokenizer.eos_token_id
    one_by_one = [model([p], [c])[0] for p, c in (("a", " b"), ("the film was", " good and dull"))]
    together = model(["a", "the film was"], [" b", " good and dull"])
    assert together == pytest.approx(one_by_one, abs=1e-5), "padding is hidden"
    given = ("--policy", tmp_path / "sft" / "model", "--reward", tmp_path / "reward" / "model")
    assert backflip("ppo", *given, "--data", kit.prompts, "--output", tmp_path / "ppo", *FAST_PPO).code == 0
    again = ("--policy", tmp_path / "ppo" / "model", "--data", kit.prompts, "--max-new-tokens", 4)
    assert backflip("sample", *again, "--reward", tmp_path / "reward" / "model").code == 0


@pytest.mark.parametrize("name", ["policy", "reward"])
def test_a_tokenizer_of_another_model(name: str, kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    from backflip.policies.tiny import train_tokenizer

    folder = copy(name)
    train_tokenizer(["quite another text with many more words in it"] * 3, 300).save_pretrained(folder)
    given = {"--policy": kit.policy, "--reward": kit.reward} | {f"--{name}": folder}
    argv = [word for pair in given.items() for word in pair]
    sentence = refused("ppo", *argv, "--data", kit.prompts, "--output", tmp_path / "r", *FAST_PPO)
    assert sentence.startswith(f"the tokenizer of {folder} does not belong to its model: it has token ids up to ")


def test_a_token_that_the_model_never_saw(kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    from backflip.policies import load_policy

    folder = copy("policy")
    words = load_policy(folder).tokenizer
    words.add_special_tokens({"unk_token": "<|odd|>"})  # as some tokenizer classes do on their own
    words.save_pretrained(folder)
    (tmp_path / "d.jsonl").write_text('{"prompt": "the film", "completion": " was <|odd|>"}\n')
    given = ("sft", "--policy", folder, "--output", tmp_path / "r", *QUICK)
    sentence = refused(*given, "--data", tmp_path / "d.jsonl")
    assert sentence.startswith("a text holds '<|odd|>', a token that 'spoiled-policy' has no embedding for")


# ----------------------------------------------------------------------------------------------------- numbers


def test_a_loss_that_is_not_a_number(kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    folder = copy("policy")
    spoil_weights(folder, float("nan"))
    sft = refused("sft", "--policy", folder, "--data", kit.demos, "--output", tmp_path / "sft", *QUICK)
    assert "is nan, so nothing was changed" in sft
    reward = ("--data", kit.pairs, "--output", tmp_path / "reward", "--normalize-before", "no", *QUICK)
    given = refused("reward", "--policy", folder, *reward, "--normalize-after", "no")
    assert "is nan, so nothing was changed" in given
    ppo = ("--data", kit.prompts, "--reward", kit.reward, "--output", tmp_path / "ppo", *FAST_PPO)
    assert "probabilities that are not numbers" in refused("ppo", "--policy", folder, *ppo)
    sample = ("--data", kit.prompts, "--max-new-tokens", 4)
    assert "probabilities that are not numbers" in refused("sample", "--policy", folder, *sample)


def test_a_loss_that_explodes_leaves_the_last_checkpoint(kit: Any, refused: Any, tmp_path: Path) -> None:
    from backflip.runs import Checkpoints

    wild = ("--learning-rate", 1e30, "--max-grad-norm", "none", "--lr-schedule", "constant", "--log-every", 1)
    given = ("--policy", kit.policy, "--data", kit.demos, "--output", tmp_path / "r", *QUICK, *wild)
    sentence = refused("sft", *given)
    assert "so nothing was changed; lower learning_rate" in sentence
    found = Checkpoints(tmp_path / "r" / "checkpoints").latest()
    assert found is not None
    assert found.step >= 1
    assert not (tmp_path / "r" / "result.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_a_number(value: float, kit: Any, copy: Any, refused: Any, tmp_path: Path) -> None:
    folder = copy("reward")
    spoil_weights(folder, value)
    given = ("--policy", kit.policy, "--data", kit.prompts, "--output", tmp_path / "r", *FAST_PPO)
    sentence = refused("ppo", *given, "--reward", folder)
    assert "reward 'RewardModel' is nan for row 1" in sentence


# -------------------------------------------------------------------------------------------------- the disk


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes, as a full disk or a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the n-th and all later models be written into a full disk: half of the file, then ENOSPC."""
    from transformers import PreTrainedModel

    write = PreTrainedModel.save_pretrained

    def install(number: int) -> None:
        written = iter(range(1, 1000))

        def save(model: Any, folder: str, **options: Any) -> None:
            if next(written) < number:
                write(model, folder, **options)
                return
            (Path(folder) / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)

    return install


def test_a_full_disk_at_the_second_checkpoint(
    kit: Any, backflip: Any, refused: Any, full_after: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def command(name: str) -> tuple[object, ...]:
        there = ("--output", tmp_path / name, "--max-steps", 3, "--log-every", 1)
        return ("sft", "--policy", kit.policy, "--data", kit.demos, *there, *QUICK)

    full_after(2)
    sentence = refused(*command("r"))
    assert "the disk is full; free some space and run the same command again" in sentence
    assert "the last checkpoint, step 1, is intact" in sentence
    monkeypatch.undo()
    assert backflip(*command("r")).code == 0
    assert backflip(*command("undisturbed")).code == 0
    for file in ("model/model.safetensors", "metrics.jsonl", "result.json"):
        assert (tmp_path / "r" / file).read_bytes() == (tmp_path / "undisturbed" / file).read_bytes()


def test_a_full_disk_at_the_very_end(
    kit: Any, backflip: Any, refused: Any, full_after: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("sft", "--policy", kit.policy, "--data", kit.demos, "--output", tmp_path / "r", "--max-steps", 2, *QUICK)
    full_after(3)
    sentence = refused(*command)
    assert str(tmp_path / "r" / "model") in sentence
    assert "the disk is full; free some space and run the same command again" in sentence
    assert not (tmp_path / "r" / "model").exists(), "a model is whole or absent"
    monkeypatch.undo()
    assert backflip(*command).code == 0


def test_a_full_disk_before_the_first_step(
    kit: Any, refused: Any, full_after: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full_after(1)
    sentence = refused("reward", "--policy", kit.policy, "--data", kit.pairs, "--output", tmp_path / "r", *QUICK)
    assert sentence.endswith("temporary folder: the disk is full; free some space and run the same command again")


def test_files_that_may_not_grow(kit: Any, backflip: Any, refused: Any, small_files: Any, tmp_path: Path) -> None:
    command = ("sft", "--policy", kit.policy, "--data", kit.demos, "--output", tmp_path / "r", "--max-steps", 1, *QUICK)
    small_files(20_000)
    sentence = refused(*command)
    assert "checkpoint of step 1 cannot be written" in sentence
    small_files(resource.RLIM_INFINITY)
    assert backflip(*command).code == 0


def test_a_file_in_the_way_of_the_run_folder(kit: Any, refused: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a letter")
    given = ("sft", "--policy", kit.policy, "--data", kit.demos, *QUICK, "--output")
    assert "a file stands where a folder is needed" in refused(*given, tmp_path / "taken")
    assert "a file stands where a folder is needed" in refused(*given, tmp_path / "taken" / "below")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("a letter")
    assert "holds files that are not a run's (a.txt)" in refused(*given, tmp_path / "letters")
    given = ("sample", "--policy", kit.policy, "--data", kit.prompts, "--max-new-tokens", 2, "--output")
    assert "cannot be written" in refused(*given, tmp_path / "letters")


# ------------------------------------------------------------------------------------------------- checkpoints


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def stopped(kit: Any, backflip: Any, stop_after: Any, tmp_path: Path) -> tuple[object, ...]:
    """A PPO run in tmp_path/r stopped after step 2 of 3, with checkpoints of steps 1 and 2; its command."""
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    command = ("ppo", *given, *FAST_PPO[1:], "--steps", 3)
    stop_after(2)
    assert backflip(*command).code == 130
    return command


@pytest.mark.parametrize("file", ["policy/model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
def test_a_flipped_bit_falls_back_to_the_checkpoint_before(
    file: str, stopped: tuple[object, ...], kit: Any, backflip: Any, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "r", tmp_path / "unharmed")
    flip(tmp_path / "r" / "checkpoints" / "step-00000002" / file)
    said = backflip(*stopped)
    assert said.code == 0
    assert "checkpoint step-2 does not verify" in said.err
    assert "going on from step 1" in said.err
    assert backflip(*stopped[:-4], *stopped[-4:], "--output", tmp_path / "unharmed").code == 0
    for name in ("model/model.safetensors", "metrics.jsonl", "samples.jsonl", "result.json"):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "unharmed" / name).read_bytes(), name


def test_all_checkpoints_broken(stopped: tuple[object, ...], refused: Any, tmp_path: Path) -> None:
    for step in (1, 2):
        flip(tmp_path / "r" / "checkpoints" / f"step-0000000{step}" / "policy" / "model.safetensors")
    sentence = refused(*stopped)
    assert sentence.startswith(f"no checkpoint in {tmp_path}/r/checkpoints verifies")
    assert "restore the folder from a copy, or delete it to start this run from its beginning" in sentence


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--kl-targt", 3], "unknown setting '--kl-targt'; did you mean '--kl-target'?"),
        (["--steps", 0], "setting 'train.steps' must be at least 1, not 0"),
        (["--gamma", 1.5], "setting 'train.gamma' must be at most 1, not 1.5"),
        (["--learning-rate", "fast"], "setting 'train.optim.learning_rate' needs a number, not 'fast'"),
        (["--kl-controller", "pid"], "setting 'train.kl_controller' is one of adaptive, fixed, not 'pid'"),
        (["--learning-rate", "nan"], "setting 'train.optim.learning_rate' needs a number, not 'nan'"),
        (["--num-generations", 3], "num_generations 3 must divide batch_size 8"),
        (
            ["--num-minibatches", 9],
            "num_minibatches 9 splits a batch_size of 8 into minibatches of fewer than 2 episodes and one alone "
            "cannot be whitened; lower it or raise batch_size",
        ),
    ],
)
def test_a_bad_flag(flags: list[object], sentence: str, kit: Any, refused: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    assert refused("ppo", *given, *FAST_PPO, *flags) == sentence


@pytest.mark.parametrize("flags", [["--top-p", 0.9], ["--top-k", 5], ["--min-p", 0.1]])
def test_ppo_samples_from_the_whole_distribution(flags: list[object], kit: Any, refused: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    assert refused("ppo", *given, *FAST_PPO, *flags).endswith(
        "set top_k to 0, top_p to 1, min_p to 0 and repetition_penalty to 1"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  kl_targt: 3\n", "unknown setting 'train.kl_targt'; did you mean 'train.kl_target'?"),
        ("polcy: x\n", "unknown setting 'polcy'; did you mean 'policy'?"),
        ("train: 3\n", "train.: expected 'name: value' lines, not 3"),
        ("train:\n  lam: -1\n", "setting 'train.lam' must be at least 0, not -1.0"),
        ("policy: x\n", "setting 'reward' has no default; give it as --reward or in the settings file"),
        ("- a\n", "settings file {file} should hold 'name: value' lines, not a list"),
        (
            "a: [\n",
            "settings file {file}, line 2 is not valid YAML: expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_a_bad_settings_file(text: str, sentence: str, refused: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert refused("ppo", "--config", file) == sentence.format(file=file)


def test_a_missing_settings_file(refused: Any, tmp_path: Path) -> None:
    sentence = refused("ppo", "--config", tmp_path / "none.yaml")
    assert sentence == f"settings file {tmp_path}/none.yaml cannot be read: No such file or directory"


def test_a_stop_text_that_no_token_reads(kit: Any, refused: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    assert "no token of the policy reads 'hippopotamus'" in refused("ppo", *given, *FAST_PPO, "--truncate-at", "hippopotamus")


def test_the_spoiled_models_above_are_spoiled_by_us(kit: Any, copy: Any) -> None:
    from backflip.policies import load_policy

    folder = copy("policy")
    spoil_weights(folder, float("inf"))
    logits = [load_policy(path, device="cpu").model(torch.tensor([[40, 41]])).logits for path in (kit.policy, folder)]
    assert [bool(x.isfinite().all()) for x in logits] == [True, False]
