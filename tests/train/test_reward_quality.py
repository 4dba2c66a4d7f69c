"""The examination of a reward model: each division by hand, and what it shows of models whose faults are planted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import tiny

from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.train.examples import Example, negative_log_likelihood
from backflip.train.quality import examine, log_ratios
from backflip.train.reward_page import reward_page

torch.set_num_threads(1)


class Planted(RewardModel):
    """A reward model whose scores and states are functions of the text."""

    def __init__(self, score: Any, state: Any = lambda text: [len(text), text.count("z")]) -> None:
        self.score, self.state = score, state

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [self.score(text) for text in completions]

    def hidden(self, prompts: Any, completions: Any) -> torch.Tensor:
        return torch.tensor([self.state(text) for text in completions], dtype=torch.float32)


def pair(i: int, left: str, right: str, p_left: float = 1.0, **more: Any) -> Comparison:
    return Comparison(Prompt(f"film {i}"), left, right, p_left, **more)


def shown(slices: Any) -> dict[str, tuple[float, int]]:
    return {s.name: (s.right.value, s.right.n) for s in slices}


LONG = Planted(lambda text: float(len(text)))


def test_length_is_told_by_what_people_preferred() -> None:
    told = [pair(1, "aaaa", "a"), pair(2, "aaa", "aa"), pair(3, "aa", "aaaa"), pair(4, "aa", "zz"), pair(5, "a", "aa", 0.5)]
    told += [pair(6, "aaaaaa", "aaaaa", 0.0)]
    found = examine(LONG, told)
    assert shown(found.slices["length of the preferred text"]) == {
        "much shorter": (0.0, 1), "shorter": (0.0, 1), "as long": (0.5, 1), "longer": (1.0, 1), "much longer": (1.0, 1),
    }  # fmt: skip
    assert [s.x for s in found.slices["length of the preferred text"]] == [-2, -1, 0, 1, 2]


def test_length_coefficients_stand_side_by_side() -> None:
    texts = [("a" * (3 + i % 7), "a" * (3 + (i * 3) % 8)) for i in range(60)]
    likes_short = [pair(i, a, b, float(len(a) < len(b))) for i, (a, b) in enumerate(texts) if len(a) != len(b)]
    found = examine(Planted(lambda text: 0.5 * len(text)), likes_short)
    assert found.model_length.low > 0 > found.people_length.high
    indifferent = examine(Planted(lambda text: 0.0), likes_short)
    assert indifferent.model_length.value == pytest.approx(0)


def test_margins_strengths_and_ages_divide_where_they_are_stated() -> None:
    told = [pair(i, "aa", "a", strength=1 + i % 2, margin=float(i), at=1e9 + 86_400 * i) for i in range(8)]
    told += [pair(9, "a", "aa", strength=1, margin=8.0, at=1e9 + 86_400 * 8)]
    found = examine(LONG, told)
    assert shown(found.slices["stated strength"]) == {"strength 1": (0.8, 5), "strength 2": (1.0, 4)}
    ages = found.slices["age of the label"]
    assert sum(s.right.n for s in ages) == 9
    assert ages[0].right.value < 1 == ages[-1].right.value, "the newest label is the one it gets wrong"
    assert ages[0].name.startswith("0 days")
    assert sum(s.right.n for s in found.slices["stated margin"]) == 8, "no margin is no statement"
    plain = examine(LONG, [pair(1, "aa", "a")])
    assert set(plain.slices) == {"length of the preferred text"}
    rated = examine(LONG, [pair(i, "aa", "a", left_rating=float(i), right_rating=0.0) for i in range(8)])
    assert sum(s.right.n for s in rated.slices["stated margin"]) == 8


def test_annotators_and_policies_are_named_and_few_stand_together() -> None:
    told = [pair(i, "aa", "a", annotator="ann", left_policy="sft", right_policy="ppo") for i in range(10)]
    told += [pair(20 + i, "a", "aa", annotator=f"p{i}", left_policy="ppo", right_policy="sft") for i in range(3)]
    found = examine(LONG, [*told, pair(40, "a", "aa")])
    assert shown(found.slices["annotator"]) == {"ann": (1.0, 10), "3 others": (0.0, 3)}
    assert shown(found.slices["policies"]) == {"ppo and sft": (10 / 13, 13)}


def test_pairs_of_one_question_make_no_interval_narrower() -> None:
    alone = [pair(i, *(("aa", "a") if i % 2 else ("a", "aa")), annotator="ann") for i in range(20)]
    questions = [(i // 10, *(("aa", "a") if i < 10 else ("a", "aa"))) for i in range(20)]
    together = [Comparison(Prompt(f"film {q}"), a, b, 1.0, annotator="ann", query_id=str(q)) for q, a, b in questions]
    wide, narrow = (examine(LONG, told).slices["annotator"][0].right for told in (together, alone))
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)  # type: ignore[operator]


def test_accuracy_over_distance_and_predicted_difference() -> None:
    told = [pair(i, "aa" + "a" * i, "a") if i < 6 else pair(i, "a", "aa") for i in range(12)]
    found = examine(LONG, told, distances=[float(i) for i in range(12)])
    shares = [s.right.value for s in found.slices["distance from the policy"]]
    assert shares == [1.0, 1.0, 0.0, 0.0]
    differences = [s.right.value for s in found.slices["predicted difference"]]
    assert differences[-1] > differences[0]
    with pytest.raises(ValueError, match="1 distances for 12 comparisons"):
        examine(LONG, told, distances=[1.0])


def test_a_model_that_is_too_sure_has_a_high_temperature() -> None:
    told = [pair(i, "aa", "a", 1.0 if i % 4 else 0.0) for i in range(40)]
    sure, humble = (examine(Planted(lambda text, k=k: k * len(text)), told) for k in (8.0, 0.5))
    assert sure.temperature.value == pytest.approx(8 / math.log(3), rel=1e-6)
    assert humble.temperature.value == pytest.approx(0.5 / math.log(3), rel=1e-6)
    assert sure.headlines()["log_loss_at_temperature"] < sure.report.log_loss


def test_strange_texts_are_told_from_usual_ones() -> None:
    usual = [pair(i, "a" * (5 + i % 9), "z" * (1 + i % 3) + "a" * (4 + i % 5)) for i in range(40)]
    model = Planted(lambda text: float(len(text)), lambda text: [len(text), len(text) - text.count("z") + 0.1 * (len(text) % 3)])
    odd = [pair(100 + i, "z" * 30, "z" * (20 + i)) for i in range(10)]
    here, there = (examine(model, told, learned_from=usual).strange for told in (usual, odd))
    assert here is not None
    assert there is not None
    assert there.share == 1.0 > 0.2 > here.share
    assert examine(model, odd, learned_from=usual[:4]).strange is None, "eight texts say nothing about what is usual"


def test_the_state_is_the_one_that_the_score_is_read_from() -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=48)
    model.normalize([1.0, 3.0])
    prompts, texts = [Prompt("the film"), Prompt("a"), Prompt("no end")], [" was good", "", " in sight"]
    read = model.gain * model.model.score(model.hidden(prompts, texts)).squeeze(-1) + model.bias
    assert read.tolist() == pytest.approx(model([p.text for p in prompts], texts), abs=1e-5)


def test_distances_are_how_much_likelier_the_texts_are() -> None:
    policy, other = tiny(), tiny(seed=1)
    told = [pair(0, " was good", " was dull"), pair(1, "", " sat on the mat")]
    assert log_ratios(policy, policy, told) == [0.0, 0.0]
    found = log_ratios(other, policy, told)
    assert log_ratios(policy, other, told) == pytest.approx([-d for d in found])
    by_hand = []
    for comparison in told:
        both = []
        for text in (comparison.left, comparison.right):
            row = Example(policy.encode(comparison.prompt), policy.encode_completion(text))
            with torch.no_grad():
                both.append(float(negative_log_likelihood(policy, [row]) - negative_log_likelihood(other, [row])))
        by_hand.append(sum(both) / 2)
    assert found == pytest.approx(by_hand, abs=1e-4)
    again = log_ratios(other, policy, [told[0], pair(2, "a", "a cat sat " * policy.context)])
    assert again[0] == pytest.approx(found[0], abs=1e-4)
    assert math.isnan(again[1]), "a text that does not fit"


def test_the_page_says_it_all_and_bears_any_text(tmp_path: Path) -> None:
    from backflip.runs.report import write_report

    told = [pair(i, "aa" + "a" * (i % 5), "a", float(i % 3 > 0), annotator="<b>ann</b>", at=1e9 + i) for i in range(40)]
    quality = examine(LONG, told, learned_from=told, distances=[float(i) for i in range(40)])
    with Run.open(tmp_path / "run", kind="reward", settings={}, quiet=True) as run:
        run.log(1, {"loss/reward": 0.7})
        page = reward_page(quality, run.folder, {"comparisons": 40, "held_out": True, "left_out": {"of a text with itself": 2}})
    written = write_report(tmp_path, page).read_text()
    for words in ("By annotator", "By age of the label", "Calibration", "taste in length", "Left out: 2 of a text with itself"):
        assert words in written
    assert "<b>ann</b>" not in written
    kept = json.loads(json.dumps(quality.to_json()))
    assert kept["slices"]["annotator"][0]["name"] == "<b>ann</b>"
    assert kept["temperature"]["value"] == quality.temperature.value
    assert set(kept) >= {"report", "bins", "model_length", "people_length", "strange"}
