"""`backflip reward`: what a model starts from, what else is fitted beside it, and rows that cannot teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_encoders import save_encoder

from backflip.records import Comparison, Prompt
from backflip.rewards import Ensemble, RewardModel, load_reward
from backflip.train.comparisons import binarized

torch.set_num_threads(1)
QUICK = ("--quiet", "--batch-size", 8, "--max-length", 48, "--normalization-samples", 8, "--max-new-tokens", 4)


@pytest.fixture
def fit(kit: Any, backflip: Any, tmp_path: Path) -> Any:
    """Runs `backflip reward` on the kit's policy and pairs unless told otherwise; the folder and what was said."""

    def run(*more: object, policy: object = None, data: object = None, output: str = "r") -> Any:
        given = ("--policy", policy or kit.policy, "--data", data or kit.pairs, "--output", tmp_path / output)
        return tmp_path / output, backflip("reward", *given, *QUICK, *more)

    return run


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_an_encoder_a_reward_model_and_a_shape_from_scratch_can_all_start(fit: Any, kit: Any, tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "bert")
    one, said = fit(policy=encoder, output="one")
    assert (said.code, said.err) == (0, "")
    assert type(RewardModel.load(one / "model").model).__name__ == "BertForSequenceClassification"
    two, said = fit(policy=one / "model", output="two")
    assert (said.code, said.err) == (0, "")
    assert type(RewardModel.load(two / "model").model).__name__ == "BertForSequenceClassification"
    three, said = fit("--scratch", "yes", "--learning-rate", 0, output="three")
    assert said.code == 0
    plain, said = fit("--learning-rate", 0, output="plain")
    drawn, given = (RewardModel.load(f / "model").model.get_input_embeddings().weight for f in (three, plain))
    assert not torch.allclose(drawn, given)
    _, said = fit("--scratch", "yes", policy=encoder, output="four")
    assert (said.code, said.err) == (
        2,
        f"backflip: {encoder} is an encoder; only a language model's shape can start from scratch\n",
    )


def test_preference_model_pretraining_comes_first(fit: Any, kit: Any) -> None:
    folder, said = fit("--pretraining", kit.pairs, "--pretraining-form", "binary", "--pretraining-epochs", 2)
    assert (said.code, said.err) == (0, "")
    assert result(folder / "pretraining")["comparisons"] == 60, "each pair gives two"
    first, last = (RewardModel.load(f / "model") for f in (folder / "pretraining", folder))
    assert first(["x"], [" good"]) != last(["x"], [" good"])


def test_binary_pairs_say_good_of_the_better_and_bad_of_the_worse() -> None:
    made = binarized([Comparison(Prompt("p"), "a", "b", 0.0), Comparison(Prompt("p"), "c", "d", 0.5)])
    assert [(c.left, c.right, c.p_left) for c in made] == [("GOOD: b", "BAD: b", 1.0), ("BAD: a", "GOOD: a", 1.0)]


def test_demonstrations_end_at_zero(fit: Any, kit: Any) -> None:
    folder, said = fit("--demonstrations", kit.demos)
    assert said.code == 0
    rows = [json.loads(line) for line in Path(kit.demos).read_text().splitlines()]
    scores = RewardModel.load(folder / "model")([r["prompt"] for r in rows], [r["completion"] for r in rows])
    assert sum(scores) / len(scores) == pytest.approx(0, abs=1e-5)


def test_a_sentinel_learns_from_other_prompts_and_ppo_watches_it(fit: Any, kit: Any, backflip: Any, tmp_path: Path) -> None:
    folder, said = fit("--sentinel", 0.5, "--members", 2, "--combine", "worst")
    assert (said.code, said.err) == (0, "")
    found = result(folder)
    assert found["comparisons"] + found["sentinel"]["comparisons"] == 30
    assert isinstance(load_reward(folder / "model"), Ensemble)
    assert isinstance(load_reward(folder / "sentinel" / "model"), Ensemble)
    watch = ("--reward", folder / "model", "--sentinel", folder / "sentinel" / "model", "--output", tmp_path / "ppo")
    fast = ("--quiet", "--batch-size", 8, "--ppo-epochs", 1, "--max-new-tokens", 5, "--steps", 1)
    assert backflip("ppo", "--policy", kit.policy, "--data", kit.prompts, *watch, *fast).code == 0
    assert "objective/sentinel" in (tmp_path / "ppo" / "metrics.jsonl").read_text()
    named = ("--reward", f"{folder / 'model'}:0.5", "--sentinel", folder / "sentinel" / "model", "--output", tmp_path / "rl")
    small = ("--quiet", "--batch-size", 8, "--num-generations", 2, "--max-new-tokens", 5, "--steps", 1)
    assert backflip("rl", "--policy", kit.policy, "--data", kit.prompts, *named, *small).code == 0
    line = json.loads((tmp_path / "rl" / "metrics.jsonl").read_text())
    assert {"objective/sentinel", "ensemble/std", "rewards/model/mean"} <= line.keys()


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = [{"prompt": f"the film {i}", "chosen": " good", "rejected": " bad" * (1 + i % 2)} for i in range(8)]
RATED = {"prompt": "the film", "completions": [" a", " b"], "ratings": [1, 2]}


@pytest.mark.parametrize(
    ("rows", "flags", "sentence"),
    [
        ([{"prompt": "a", "chosen": "b"}], (), "no column 'rejected'"),
        ([RATED | {"ratings": [1, float("nan")]}], (), "column 'ratings' should be a list of numbers"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], (), "left out were 1 of a text with itself"),
        ([row | {"tie": True} for row in GOOD], (), "all 8 comparisons are ties"),
        (GOOD, ("--loss", "regression"), "the loss regression needs ratings that differ"),
        ([RATED | {"ratings": [3, 3]}], ("--loss", "regression"), "all 1 comparisons are ties"),
        (GOOD, ("--loss", "elo", "--error-rate", 0.1), "error_rate is about pairs"),
        ([{"prompt": "a", "left": "b", "right": "c", "p_left": 0.7}], ("--loss", "plackett-luce"), "are no ranking"),
        (GOOD[:1], ("--sentinel", 0.5), "leaves one side without comparisons"),
    ],
)
def test_rows_that_cannot_teach_give_a_sentence(
    rows: list[dict[str, Any]], flags: tuple[object, ...], sentence: str, fit: Any, tmp_path: Path
) -> None:
    _, said = fit(*flags, data=write(tmp_path / "d.jsonl", *rows))
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_what_is_left_out_is_counted_in_the_result_and_said(fit: Any, backflip: Any, kit: Any, tmp_path: Path) -> None:
    itself = {"prompt": "a", "chosen": "b", "rejected": "b"}
    data = write(tmp_path / "d.jsonl", *GOOD, itself, itself)
    folder, said = fit(data=data)
    assert said.code == 0
    assert result(folder)["left_out"] == {"of a text with itself": 2}
    loud = [word for word in QUICK if word != "--quiet"]
    given = ("--policy", kit.policy, "--data", data, "--output", tmp_path / "loud")
    said = backflip("reward", *given, *loud)
    assert "left out: 2 of a text with itself, of 10 comparisons" in said.out + said.err


def test_an_annotator_who_says_one_thing_has_no_scale_and_is_counted(fit: Any, tmp_path: Path) -> None:
    flat = [RATED | {"prompt": f"p{i}", "ratings": [4, 4], "annotator": "flat"} for i in range(3)]
    live = [RATED | {"prompt": f"q{i}", "ratings": [1, 2 + i], "annotator": "ann"} for i in range(6)]
    folder, said = fit("--loss", "regression", "--ratings", "annotator", data=write(tmp_path / "d.jsonl", *flat, *live))
    assert said.code == 0
    assert result(folder)["left_out"] == {"of annotators whose ratings are all alike": 3}
    assert "left out: 3 of annotators whose ratings are all alike" in said.out


def test_a_verifier_of_steps_from_the_command_line(fit: Any, backflip: Any, kit: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completions": ["aa", "zz" if i % 2 else "ae"], "labels": [1, i % 2 == 0]} for i in range(24)]
    data = write(tmp_path / "d.jsonl", *rows)
    learn = ("--labels", "step", "--score-at", "last", "--epochs", 6, "--learning-rate", 5e-3, "--holdout", 0.25)
    folder, said = fit(*learn, data=data)
    assert (said.code, said.err) == (0, "")
    assert result(folder)["n"] == 12
    assert "always the commoner" in said.out
    assert RewardModel.load(folder / "model").score_at == "last"
    assert (folder / "report.html").exists()
    _, said = fit("--labels", "outcome", "--members", 2, data=data, output="two")
    assert (said.code, "members goes with comparisons" in said.err) == (2, True)


@pytest.mark.parametrize("by", ["prompt", "annotator"])
def test_folds_hold_every_comparison_out_once(by: str, fit: Any, tmp_path: Path) -> None:
    rows = [row | {"annotator": f"ann{i % 3}"} for i, row in enumerate(GOOD)]
    folder, said = fit("--folds", 3, "--fold-by", by, "--learning-rate", 3e-3, data=write(tmp_path / "d.jsonl", *rows))
    assert (said.code, said.err) == (0, "")
    found = result(folder)["cross_validation"]
    assert (found["n"], found["folds"], found["by"]) == (8, 3, by)
    assert f"3 folds by {by}: " in said.out
    parts = [result(folder / f"fold{k}") for k in range(3)]
    assert sum(len(part["left"]) for part in parts) == 8
    assert all(part["comparisons"] + len(part["left"]) == 8 for part in parts)
    _, said = fit("--folds", 9, data=tmp_path / "d.jsonl", output="many")
    assert (said.code, "8 prompts cannot be parted into 9 folds" in said.err) == (2, True)
