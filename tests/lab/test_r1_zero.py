"""`r1-zero`: what is counted is counted right, bars are judged by the worst seed, and the whole of it runs small."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import before_and_again

from backflip.cli.main import main
from backflip.lab import r1_zero, r1_zero_stages
from backflip.lab.outcome import write_result
from backflip.lab.r1_zero import QUICK, Clock, Settings, judge, run
from backflip.lab.r1_zero_figures import Cell, Try, contrast, judged, majority_is_right, reflection, summarize
from backflip.seeds import Seeds
from backflip.worlds.arithmetic import read

SUM, ANSWER = "d4c8b2a1+D9C3B7A5=", "e1d4c1b9a6"
FULL = "<think>a1A506b2B709c8C311d4D914</think><answer>e1d4c1b9a6</answer>"
DIRECT = "<think></think><answer>e1d4c1b9a6</answer>"
WRONG = "<think></think><answer>e1d4c1b9a7</answer>"
TAKEN_BACK = "<think>a1A506b2B709c8C312waitc8C311d4D914</think><answer>e1d4c1b9a6</answer>"
MICRO = dataclasses.replace(
    QUICK, documents=64, problems=2, problems_between=2, tries=2, compare_steps=1, compare_batch=8, control_steps=1,
    control_batch=4, grpo=dataclasses.replace(QUICK.grpo, steps=2, batch_size=4, num_generations=2, save_every=1),
)  # fmt: skip


def attempt(text: str, *, finished: bool = True, length: int = 10) -> Try:
    return judged(SUM, ANSWER, text, finished=finished, length=length)


def test_what_is_cut_off_is_wrong() -> None:
    assert attempt(FULL).right
    assert attempt(FULL).draft_right
    assert not attempt(FULL, finished=False).right
    assert not attempt(WRONG).right
    assert attempt(TAKEN_BACK).right
    assert not attempt(TAKEN_BACK).draft_right
    with pytest.raises(ValueError, match="not a problem"):
        judged("1+1", "2", "2", finished=True, length=1)


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([DIRECT, FULL, WRONG], 1.0),
        ([DIRECT, WRONG], 0.5),
        ([WRONG, WRONG, DIRECT], 0.0),
        ([ANSWER, ""], 0.0),
        ([DIRECT, ""], 1.0),
    ],
)
def test_the_majority_of_the_answers(texts: list[str], share: float) -> None:
    assert majority_is_right([attempt(t) for t in texts], ANSWER) == share


def test_the_figures_of_some_tries_by_hand() -> None:
    first = [attempt(DIRECT, length=8), attempt(WRONG, length=8), attempt(FULL, length=44), attempt("x", length=4)]
    second = [attempt(WRONG), attempt(WRONG), attempt(WRONG), attempt(FULL, finished=False)]
    found = summarize([(ANSWER, first), (ANSWER, second)])
    assert (found["pass@1"], found["pass@k"], found["maj@k"], found["k"]) == (2 / 8, 1 / 2, 1 / 2, 4)
    assert found["length"] == (64 + 40) / 8
    assert (found["format"], found["unfinished"]) == (6 / 8, 1 / 8)
    assert found["styles"]["full"] == {"share": 2 / 8, "accuracy": 1 / 2, "length": 27.0}
    assert found["styles"]["short"] == {"share": 0.0, "accuracy": None, "length": None}


def test_reflection_is_matched_on_the_first_draft() -> None:
    cells = {
        "draft right, reflection": Cell(1, 1),
        "draft right, none": Cell(10, 9),
        "draft wrong, reflection": Cell(3, 2),
        "draft wrong, none": Cell(5, 1),
    }
    found = contrast(cells)
    assert found is not None
    assert found[0] == pytest.approx(0.25 * (1 - 0.9) + 0.75 * (2 / 3 - 0.2))
    assert 0.1 < found[1] < 0.5
    # Reflection that comes along with bad drafts looks harmful until drafts are matched.
    assert found[0] > 3 / 4 - 10 / 15
    assert contrast({**cells, "draft wrong, none": Cell(0, 0)}) is None
    assert contrast({name: Cell(0, 0) for name in cells}) is None


def test_reflection_is_found_in_texts() -> None:
    found = reflection([attempt(t) for t in (FULL, TAKEN_BACK, DIRECT, FULL.replace("C311", "C312"), "wait")])
    assert found["frequency"] == 2 / 5
    assert found["cells"]["draft wrong, reflection"] == {"n": 1, "right": 1}
    assert found["cells"]["draft wrong, none"] == {"n": 1, "right": 1}
    assert (found["gain"], found["raw"]) == (0.0, 0.0)
    assert read(TAKEN_BACK).reflections == 1


def result(seed: int = 0) -> dict[str, Any]:
    """What a seed that meets every bar leaves, as far as the bars look."""
    reflecting = {"gain": 0.1, "frequency": 0.02}
    return {
        "seed": seed,
        "before": {"pass@1": 0.15, "length": 20.0, "reflection": reflecting},
        "after": {"pass@1": 0.8, "length": 40.0, "reflection": reflecting},
        "control": {"before": {"length": 14.0}, "lengths": [14.0, 15.0, 13.0]},
        "seconds": {"grpo": 600.0, "pretraining": 300.0},
    }


def test_a_good_seed_meets_every_bar() -> None:
    assert all(line.passed for line in judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("before", "pass@1"), 0.09, "accuracy of the base model, lowest"),
        (("before", "pass@1"), 0.21, "accuracy of the base model, highest"),
        (("after", "pass@1"), 0.69, "accuracy after GRPO"),
        (("after", "length"), 29.0, "mean length"),
        (("control", "lengths"), [14.0, 15.0, 16.0], "control task"),
        (("before", "reflection", "gain"), None, "seeds whose reflection"),
        (("seconds", "grpo"), 1300.0, "minutes a seed"),
    ],
)
def test_one_bad_seed_misses_exactly_its_bar(path: tuple[str, ...], value: float | None, name: str) -> None:
    bad = copy.deepcopy(result(1))
    place = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    missed = [line.name for line in judge([result(0), bad, result(2)]) if not line.passed]
    assert len(missed) == 1
    assert missed[0].startswith(name)


def test_the_compared_methods_draw_the_same_samples_and_keep_the_same_leash() -> None:
    methods = Settings().compared()
    assert set(methods) == {"grpo", "ppo", "rloo", "reinforce"}
    for other in methods.values():
        for name in ("steps", "batch_size", "num_generations", "kl_coef", "kl_in", "optim", "sampling", "missing_penalty"):
            assert getattr(other, name) == getattr(methods["grpo"], name)
    assert methods["ppo"].critic == "shared"


def test_dr_grpo_differs_from_grpo_in_its_two_biases_only() -> None:
    plain, biased = (dataclasses.asdict(s) for s in (Settings().control(), Settings().biased_control()))
    assert {name for name in plain if plain[name] != biased[name]} == {"advantage_estimator", "averaging"}


def test_the_clock_adds_up_over_processes(tmp_path: Path) -> None:
    path = tmp_path / "seed0" / "clock.json"
    with Clock(path).running("grpo"):
        pass
    path.write_text(json.dumps({"grpo": 100.0}))
    with pytest.raises(KeyError), Clock(path).running("grpo"):
        raise KeyError
    assert Clock(path).seconds["grpo"] >= 100.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a micro run, its comparisons made in this process."""
    folder = tmp_path_factory.mktemp("r1-zero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(r1_zero_stages, "apart", r1_zero_stages.reinforce)
        assert not run(MICRO, folder, quiet=True)
    return folder


def test_a_micro_run_leaves_figures_bars_and_a_report(finished: Path) -> None:
    written = json.loads((finished / "result.json").read_text())
    [seed] = written["figures"]["seeds"]
    assert set(written["accept"]) == {line.name for line in judge([seed])}
    assert set(seed["compared"]) == {"grpo", "ppo", "rloo", "reinforce"}
    assert all(found["peak_rss_mb"] > 10 and found["seconds"] > 0 for found in seed["compared"].values())
    assert list(seed["checkpoints"]) == ["0", "1", "2"]
    assert seed["before"]["samples"] == 4
    assert len(seed["curve"]["dead groups"]) == 2
    assert all(0 <= share <= 1 for share in seed["curve"]["format"])
    page = (finished / "report.html").read_text()
    for words in ("Reasoning by reinforcement alone", "Dead groups", "Dr. GRPO", "What reflection is worth", "REINFORCE"):
        assert words in page


def test_a_finished_run_is_only_told_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r1_zero_stages, "improve", None)
    monkeypatch.setattr(r1_zero_stages, "generate_samples", None)
    before, again = before_and_again(finished, lambda: run(MICRO, finished, quiet=True), "minutes a seed, slowest")
    assert again == before


def test_the_first_steps_of_every_method_see_the_same_problems(finished: Path) -> None:
    found = {
        name: [
            row["prompt"]
            for row in map(json.loads, (finished / "seed0/compare" / name / "samples.jsonl").read_text().splitlines())
        ]
        for name in ("grpo", "ppo", "rloo", "reinforce")
    }
    assert len(found["grpo"]) == 4
    assert all(prompts == found["grpo"] for prompts in found.values())


def test_a_process_of_its_own_has_its_own_memory(finished: Path, tmp_path: Path) -> None:
    ballast = bytearray(600 << 20)
    base, settings = finished / "seed0" / "base" / "model", MICRO.compared()["grpo"]
    r1_zero_stages.apart(tmp_path / "run", base, settings, "add", Seeds(0), True)
    ours, theirs = r1_zero_stages.peak_memory(), json.loads((tmp_path / "run" / "result.json").read_text())["peak_rss_mb"]
    assert len(ballast) / 2**20 < ours
    assert 10 < theirs < ours


def test_the_command_shows_what_an_experiment_is(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    assert main(["lab", "show", "r1-zero", "--out", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "grpo.kl_coef [0.001]" in shown
    assert "accuracy after GRPO" in shown
    assert main(["lab", "show", "r1_zero", "--out", "nowhere"]) == 0
    assert "accuracy after GRPO" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("r1-zero", "--set", "grpo.stepz=3"), "did you mean 'grpo.steps'"),
        (("r1-zero", "--set", "grpo.steps"), "is not NAME=VALUE"),
        (("r1-zero", "--seeds", "0"), "'seeds' must be at least 1"),
        (("r2-zero",), "did you mean 'r1-zero'"),
        (("demo-seeds", "--quick"), "has no quick form"),
    ],
)
def test_a_mistaken_command_is_told_so(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", *flags]) == 2
    assert said in capsys.readouterr().err


def test_the_command_hands_its_settings_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got: list[Settings] = []

    def record(settings: Settings, folder: Path, quiet: bool) -> bool:
        got.append(settings)
        return write_result(folder, {}, [])

    monkeypatch.setattr(r1_zero, "run", record)
    flags = ["--seeds", "2", "--set", "grpo.optim.learning-rate=1e-4", "--set", "wait=0.1", "--out", str(tmp_path)]
    assert main(["lab", "run", "r1-zero", "--quick", *flags]) == 0
    assert (got[0].seeds, got[0].wait, got[0].grpo.optim.learning_rate) == (2, 0.1, 1e-4)
    assert got[0].grpo.steps == QUICK.grpo.steps
