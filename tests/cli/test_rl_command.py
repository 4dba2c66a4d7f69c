"""`backflip rl`: any algorithm by name, against rewards by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backflip.algorithms import ALGORITHMS
from backflip.errors import ConfigError
from backflip.job_settings import RLJob, started_from
from backflip.jobs import TEMPLATES, templated
from backflip.records import Prompt

QUICK = (
    "--quiet", "--batch-size", 8, "--num-generations", 4, "--max-new-tokens", 5, "--save-every", 1, "--steps", 2,
    "--num-minibatches", 1, "--overlong-buffer", 0,
)  # fmt: skip


def test_rewards_add_up_and_are_told_apart(kit: Any, backflip: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def shortness(completions, number):\n    return [-len(c) + 0.0 * n for c, n in zip(completions, number)]\n"
    )
    rewards = f"{tmp_path}/mine.py:shortness:0.5,overlong(max_length=8, cache=2),{kit.reward}:0.1"
    given = ("--policy", kit.policy, "--reward", rewards, "--data", kit.prompts, "--output", tmp_path / "run")
    said = backflip("rl", "--algorithm", "dr-grpo", *given, *QUICK)
    assert (said.code, said.err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    parts = {name.split("/")[1] for name in rows[0] if name.startswith("rewards/")}
    assert parts == {"shortness", "overlong", "reward"}
    means = {part: rows[0][f"rewards/{part}/mean"] for part in parts}
    whole = 0.5 * means["shortness"] + means["overlong"] + 0.1 * means["reward"]
    assert rows[0]["objective/scores"] == pytest.approx(whole, rel=1e-5)
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["kind"] == "dr_grpo"
    assert kept["settings"]["train"]["averaging"] == "seq-mean-token-sum-norm"
    assert (tmp_path / "run" / "report.html").exists()
    again = backflip("rl", "--algorithm", "dr-grpo", *given, *QUICK)
    assert (again.code, again.out) == (0, said.out)


def test_pretraining_text_is_read_where_it_is_mixed_in(kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "run")
    options = ("--algorithm", "ppo-ptx", *[word for word in QUICK if word not in ("--num-generations", 4)])
    said = backflip("rl", *given, *options)
    assert said.code == 2
    assert "none was given" in said.err
    said = backflip("rl", *given, *options, "--pretraining", kit.raw)
    assert (said.code, said.err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/ptx"] > 1


def test_every_algorithm_is_named_with_a_sentence(backflip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        backflip("rl", "--list")
    said = capsys.readouterr().out
    assert left.value.code in (0, None)
    assert [line.split()[0] for line in said.splitlines()] == list(ALGORITHMS)
    assert all(sentence.endswith(".") for _, sentence in ALGORITHMS.values())


def test_an_algorithm_is_where_the_settings_start_from(tmp_path: Path) -> None:
    given = {"policy": "p", "reward": ("math",), "data": "d"}
    for name, (settings, _) in ALGORITHMS.items():
        job = started_from(name)(**given)
        assert isinstance(job, RLJob)
        assert (job.algorithm, job.train) == (name, settings)
    with pytest.raises(ConfigError, match="unknown algorithm 'gropo'; did you mean 'grpo'"):
        started_from("gropo")


def test_a_wrong_name_is_one_sentence(kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--data", kit.prompts, "--output", tmp_path / "run", *QUICK)
    for options, sentence in [
        (("--reward", "maths"), "is 'math' meant?"),
        (("--reward", kit.reward, "--algorithm", "dapoo"), "did you mean 'dapo'?"),
        (("--reward", kit.reward, "--template", "Q: "), "does not say {prompt}"),
        (("--reward", kit.reward, "--algorithm", "instructgpt", "--critic", "reward", "--kl-in", "loss"), "kl_estimator 'k1'"),
    ]:
        said = backflip("rl", *given, *options)
        assert said.code == 2, said
        assert sentence in said.err
        assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_template_goes_around_the_prompt_and_columns_stay() -> None:
    prompt = Prompt("2 + 2?", {"answer": "4"})
    assert templated(prompt, None) is prompt
    made = templated(prompt, "Q: {prompt}\nA:")
    assert (made.text, made.columns) == ("Q: 2 + 2?\nA:", {"answer": "4"})
    assert templated(prompt, "r1").plain.endswith("User: 2 + 2?. Assistant:")
    assert "<think> reasoning process here </think><answer> answer here </answer>" in TEMPLATES["r1"].replace("> <", "><")


@pytest.mark.realdata
def test_a_tiny_model_trains_on_real_problems(kit: Any, backflip: Any, shared_data: Path, tmp_path: Path) -> None:
    problems = shared_data / "gsm8k_train.jsonl.gz"
    given = ("--policy", kit.policy, "--reward", "number,format:0.1,calculations:0", "--data", problems, "--max-rows", 200)
    options = ("--template", "r1", "--overlong", "truncate", "--query-length", 40, "--output", tmp_path / "run")
    said = backflip("rl", "--algorithm", "r1-zero", *given, *options, *QUICK, "--max-new-tokens", 20)
    assert (said.code, said.err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["rewards/number/share"] for row in rows] == [1.0, 1.0], "every problem has an answer to check"
    assert {"rewards/format/mean", "rewards/calculations/mean"} <= set(rows[0])
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_an_environment_answers_and_pays(kit: Any, backflip: Any, tmp_path: Path) -> None:
    data = tmp_path / "games.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"from 1 to {n}\n", "secret": n}) + "\n" for n in range(2, 8)))
    given = ("--policy", kit.policy, "--data", data, "--environment", "guess(guesses=2)", "--output", tmp_path / "run")
    said = backflip("rl", "--algorithm", "rloo", *given, *QUICK, "--max-new-tokens", 12)
    assert (said.code, said.err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["episode/turns"] >= 1 for row in rows)
    assert backflip("rl", *given[:4], "--output", tmp_path / "none", *QUICK).code == 2, "nothing pays"
    wrong = backflip("rl", *given[:4], "--environment", "gues", "--output", tmp_path / "none", *QUICK)
    assert wrong.code == 2
    assert "is 'guess' meant?" in wrong.err
