"""`r1`: languages are counted as the reward counts them, each bar can be missed alone, and the whole of it runs small."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments import before_and_again, spoilt

from backflip.lab import r1_stages
from backflip.lab.r1 import QUICK, Settings, judge, run, share_of_gain
from backflip.lab.r1_figures import CONSISTENCY, Spoken, dead_share, distances, figures, spoken
from backflip.lab.r1_report import STAGES, points, tables
from backflip.lab.r1_stages import rewards
from backflip.lab.seeds import Interval, over_seeds
from backflip.policies.loading import load_policy
from backflip.records import Prompt, Sample
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds

torch.set_num_threads(1)

MICRO = dataclasses.replace(
    QUICK, documents=64, demonstrations=8, problems=6, groups=2,
    grpo=dataclasses.replace(QUICK.grpo, steps=1, batch_size=8, num_generations=4, save_every=1),
)  # fmt: skip
SUM = Prompt("b2a1+B9A5=", {"answer": "c1b1a6"})
HOME = "<think>a1A506b2B911</think><answer>c1b1a6</answer>"
ABROAD = "<think>甲一子五零六乙二丑九一一</think><answer>c1b1a6</answer>"
MIXED = "<think>a1A506乙二丑九一一</think><answer>c1b1a6</answer>"
DIRECT = "<think></think><answer>c1b1a6</answer>"


def sample(text: str, *, finished: bool = True, n: int = 4) -> Sample:
    return Sample(SUM, text, "p", tuple(range(n)), (0.0,) * n, finished=finished)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOME, Spoken(4, 0)),
        (ABROAD, Spoken(0, 12)),
        (MIXED, Spoken(2, 6)),
        (DIRECT, Spoken(0, 0)),
        ("a1A506乙", Spoken(2, 1)),  # nothing closes the thought: all of it counts
        (HOME.replace("c1b1a6", "丙一"), Spoken(4, 0)),  # an answer is no thought
    ],
)
def test_words_of_thoughts_by_language(text: str, expected: Spoken) -> None:
    assert spoken(text) == expected
    total = expected.target + expected.other
    assert CONSISTENCY([], [text]) == [expected.target / total if total else 0.0]
    assert expected.mixed == (expected.target > 0 and expected.other > 0)


def test_the_figures_of_some_completions_by_hand() -> None:
    found = figures([sample(HOME, n=20), sample(ABROAD, n=20), sample(MIXED, finished=False, n=20), sample("a1", n=4)])
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (2 / 4, 4)
    assert 0 < found["accuracy"]["low"] < 0.5 < found["accuracy"]["high"] < 1
    assert (found["mixed"]["value"], found["format"]["value"], found["full"]["value"]) == (1 / 4, 2 / 4, 3 / 4)
    assert found["other"] == (12 + 6) / (4 + 12 + 8 + 1)
    assert found["consistency"] == (1 + 0 + 2 / 8 + 1) / 4
    assert (found["length"], found["unfinished"]) == (16, 1 / 4)
    assert figures([sample(DIRECT), sample(DIRECT)])["other"] == 0


def test_dead_groups_are_those_that_agree() -> None:
    assert dead_share([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]) == 3 / 4


def test_an_interval_over_seeds_by_hand() -> None:
    # s = 0.1, s/√3 = 0.0577, t = 4.303
    found = over_seeds([0.4, 0.5, 0.6])
    assert found == pytest.approx((0.5, 0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)
    assert over_seeds([2.0]) == Interval(2.0, None, None)
    # t(29) = 2.045: the expansion is a little below it.
    values = [float(i % 2) for i in range(30)]
    assert over_seeds(values).high == pytest.approx(0.5 + 2.045 * 0.50855 / math.sqrt(30), abs=2e-3)
    assert points(Interval(0.5, 0.25, 0.75)) == "+50.0 (+25.0 to +75.0)"
    assert points(Interval(-0.5, None, None)) == "−50.0"


def test_the_reward_for_one_language_is_added_or_only_logged() -> None:
    columns = {"answer": ["c1b1a6"] * 4}
    texts = [HOME, ABROAD, MIXED, "a1"]
    with_it, without = (rewards(weight).judge([SUM.text] * 4, texts, **columns) for weight in (1.0, 0.0))
    assert without.scores == pytest.approx([1.1, 1.1, 1.1, 0.0])
    assert with_it.scores == pytest.approx([2.1, 1.1, 1.35, 1.0])
    assert with_it.parts["language"] == without.parts["language"]


def stage(accuracy: float, other: float = 0.4, mixed: float = 0.5) -> dict[str, Any]:
    return {"accuracy": {"value": accuracy}, "other": other, "mixed": {"value": mixed}}


def result(seed: int = 0) -> dict[str, Any]:
    """What a seed that meets every bar leaves, as far as the bars look."""
    return {
        "seed": seed,
        "stages": {
            "cold": stage(0.3), "grpo": stage(0.8), "language": stage(0.79, 0.01, 0.02), "rejection": stage(0.75),
            "second": stage(0.9),
            "small-rl": stage(0.2), "small-wide": stage(0.6),
        },
        "seconds": {"base": 300.0, "grpo": 100.0},
    }  # fmt: skip


def test_a_good_seed_meets_every_bar() -> None:
    assert all(line.passed for line in judge([result(0), result(1)]))


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (("stages", "grpo", "other"), 0.15, ["words of the other language, fewer"]),
        (("stages", "cold", "mixed"), {"value": 0.2}, ["thoughts in both languages, fewer"]),
        (("stages", "language", "other"), 0.06, ["words of the other language with it"]),
        (("stages", "language", "accuracy"), {"value": 0.74}, ["accuracy that the reward for one language costs"]),
        (("stages", "rejection", "accuracy"), {"value": 0.69}, ["gain of rejection sampling"]),
        (("stages", "second", "accuracy"), {"value": 0.74}, ["accuracy that the second stage gains"]),
        (("stages", "small-wide", "accuracy"), {"value": 0.19}, ["accuracy of the small model"]),
        (("seconds", "base"), 1200.0, ["core-minutes"]),
        (("stages", "grpo", "accuracy"), {"value": 0.3}, ["accuracy that GRPO gains", "gain of rejection sampling"]),
        (("stages", "cold", "accuracy"), {"value": 0.72}, ["accuracy that GRPO gains", "gain of rejection sampling"]),
    ],
)
def test_one_bad_seed_misses_its_bar_alone(path: tuple[str, ...], value: Any, names: list[str]) -> None:
    bad = spoilt(result(1), path, value)
    missed = [line.name for line in judge([result(0), bad, result(2)]) if not line.passed]
    assert len(missed) == len(names)
    assert all(line.startswith(name) for line, name in zip(missed, names, strict=True))


def test_a_share_of_nothing_is_none() -> None:
    assert share_of_gain(result()) == pytest.approx(0.9)
    assert math.isnan(share_of_gain(spoilt(result(), ("stages", "grpo", "accuracy"), {"value": 0.3})))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a micro run."""
    folder = tmp_path_factory.mktemp("r1")
    assert not run(MICRO, folder, quiet=True)
    return folder


def test_a_micro_run_leaves_figures_bars_tables_and_a_report(finished: Path) -> None:
    written = json.loads((finished / "result.json").read_text())
    [seed] = written["figures"]["seeds"]
    assert set(written["accept"]) == {line.name for line in judge([seed])}
    assert list(seed["stages"]) == list(STAGES)
    assert list(seed["curves"]) == ["grpo", "language", "second", "small-rl"]
    assert all(len(curve["dead groups"]) == 1 for curve in seed["curves"].values())
    for name, found in seed["stages"].items():
        assert found["accuracy"]["n"] == 6
        assert 0 <= found["dead groups"] <= 1
        assert found["seconds"] > 0
        assert (found["kl"] is None) == (name in ("base", "small"))
    assert {name for name, found in seed["stages"].items() if found["drawn"] == MICRO.drawn()} == set(seed["curves"]) | {
        "rejection",
        "small-sft",
        "small-wide",
    }
    page, told = (finished / "report.html").read_text(), (finished / "tables.md").read_text()
    assert told == tables([seed])
    for words in ("The pipeline of R1", "Dead groups", *STAGES.values()):
        assert words in page
    assert all(f"| {name} |" in told for name in STAGES.values())


def test_every_way_to_learn_draws_as_many_completions_of_the_same_problems(finished: Path) -> None:
    for name in ("grpo", "language", "small-rl"):
        shown = {row["prompt"] for row in read_lines(finished / "seed0" / name / "samples.jsonl")}
        assert shown <= {p.plain for p in r1_stages._problems(MICRO, Seeds(0), "first", 4)}
    numbers = json.loads((finished / "seed0/samples/rejection.json").read_text())
    assert numbers["drawn"] == MICRO.grpo.steps * MICRO.grpo.batch_size == 8
    assert numbers["different"] <= numbers["right"] <= 8
    wide = r1_stages._problems(MICRO, Seeds(0), "wide", 1)
    assert len(wide) == json.loads((finished / "seed0/samples/small-wide.json").read_text())["drawn"] == 8
    assert len({p.plain for p in wide}) == 8


def test_only_right_completions_are_imitated_once_each(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = r1_stages._problems(MICRO, Seeds(0), "first", 4)

    def written(policy: Any, asked: list[Prompt], **options: Any) -> list[list[Sample]]:
        assert asked == prompts
        groups = []
        for prompt in asked:
            right = f"<think></think><answer>{prompt.columns['answer']}</answer>"
            rows = [(right, True), (right, True), (right, False), ("<think></think><answer>a1</answer>", True)]
            groups.append([Sample(prompt, text, "p", (1,), (0.0,), finished=ended) for text, ended in rows])
        return groups

    monkeypatch.setattr(r1_stages, "generate_samples", written)
    base = finished / "seed0/base/model"
    rows, numbers = r1_stages.right_samples(tmp_path / "x.jsonl", base, MICRO, Seeds(0), problems="first", tries=4)
    assert numbers == {"drawn": 8, "right": 4, "different": 2}
    assert [text for _, text in rows] == [f"<think></think><answer>{p.columns['answer']}</answer>" for p in prompts]
    monkeypatch.setattr(r1_stages, "generate_samples", None)
    assert r1_stages.right_samples(tmp_path / "x.jsonl", base, MICRO, Seeds(0), problems="first", tries=4) == (rows, numbers)


def test_distances_are_those_of_the_tokens_written(finished: Path) -> None:
    model, other = (load_policy(finished / "seed0" / name / "model") for name in ("cold", "base"))
    prompts = MICRO.world().prompts(3, Seeds(5))
    samples = [s for [s] in r1_stages.generate_samples(model, prompts, n=1, seeds=Seeds(6), settings=MICRO.grpo.sampling)]
    found = distances(model, other, samples)
    total = 0.0
    for s in samples:
        ids = model.encode(s.prompt)
        whole = torch.tensor([[*ids, *s.tokens]])
        with torch.no_grad():
            mine, theirs = (m.model(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1) for m in (model, other))
        at = torch.tensor(s.tokens).unsqueeze(1)
        total += float((mine.gather(1, at) - theirs.gather(1, at)).sum())
    assert found["kl"] == pytest.approx(total / 3, abs=1e-3)
    assert distances(model, None, samples)["kl"] is None
    assert found["entropy"] is not None
    assert 0 < found["entropy"] < math.log(60)


def test_a_finished_run_is_only_told_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("improve", "generate_samples", "encode_demonstrations"):
        monkeypatch.setattr(r1_stages, name, None)
    before, again = before_and_again(finished, lambda: run(MICRO, finished, quiet=True), "core-minutes a seed, slowest")
    for told in (before, again):
        for found in told["figures"]["seeds"][0]["stages"].values():
            del found["seconds"]
    assert again == before


def test_what_is_full_size() -> None:
    full = Settings()
    assert full.seeds >= 3
    assert full.drawn() == full.grpo.steps * full.grpo.batch_size
    assert (full.small.hidden_size, full.small.layers) < (full.tiny.hidden_size, full.tiny.layers)
    assert 0 < min(full.tongues().abroad) <= max(full.tongues().abroad) < 1
