"""A head for each person: the body's own head is among them, opposed people are told apart, and strangers get what all share."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tiny_models import PROMPTS, tiny

from backflip.errors import DataError, UserError
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds
from backflip.train.personal import fit_personal, gaps, hidden_states

TEXTS = ["aa", "a bb", "ccc dd", "e", "ab ab ab", "dd e", "b", "cc cc"]


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=64)


def likes(name: str, sign: float, n: int = 120) -> list[Comparison]:
    """Answers of somebody who judges by the first hidden number, or against it."""
    body = RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=64)
    rng, found = Seeds(1).numpy(name), []
    for _ in range(n):
        prompt = PROMPTS[int(rng.integers(len(PROMPTS)))]
        left, right = (TEXTS[i] for i in rng.choice(len(TEXTS), 2, replace=False))
        h = hidden_states(body, [prompt, prompt], [left, right])
        found.append(Comparison(prompt, left, right, p_left=float(sign * (h[0, 0] - h[1, 0]) > 0), annotator=name))
    return found


def test_the_models_own_head_on_hidden_states_is_its_score(model: RewardModel) -> None:
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(TEXTS))]
    head = model.model.score.weight.detach().double().numpy()[0]
    scores = hidden_states(model, prompts, TEXTS) @ head * model.gain.item() + model.bias
    assert scores == pytest.approx(np.array(model(prompts, TEXTS)), abs=1e-4)


def test_opposed_people_are_told_apart_and_each_head_is_a_reward_model(model: RewardModel) -> None:
    comparisons = likes("ann", +1) + likes("ben", -1)
    found = fit_personal(model, comparisons)
    assert found.names == ("ann", "ben")
    prompts = [c.prompt for c in comparisons]
    gap = found.scores(prompts, [c.left for c in comparisons]) - found.scores(prompts, [c.right for c in comparisons])
    for j, name in enumerate(found.names):
        own = [i for i, c in enumerate(comparisons) if c.annotator == name]
        right = np.mean([(gap[i, j] > 0) == (comparisons[i].p_left > 0.5) for i in own])
        others = np.mean([(gap[i, 1 - j] > 0) == (comparisons[i].p_left > 0.5) for i in own])
        assert right > 0.8
        assert others < 0.5
    whole = found.reward_model("ben")
    there = np.array(whole(prompts[:9], [c.left for c in comparisons[:9]]))
    assert there == pytest.approx(found.scores(prompts[:9], [c.left for c in comparisons[:9]])[:, 1], abs=1e-3)
    shared = found.reward_model()
    assert not np.allclose(shared(prompts[:9], TEXTS + TEXTS[:1]), whole(prompts[:9], TEXTS + TEXTS[:1]))


def test_pooled_together_everybody_has_one_head(model: RewardModel) -> None:
    comparisons = likes("ann", +1) + likes("ben", -1)
    found = fit_personal(model, comparisons, spread=0.0)
    assert found.heads_JD[0] == pytest.approx(found.heads_JD[1])
    gap_ND, scale_D = gaps(model, comparisons)
    assert gap_ND.shape == (240, len(scale_D))
    assert np.all(scale_D > 0)


def test_the_mean_over_tokens_does_not_depend_on_padding(model: RewardModel) -> None:
    prompts = [PROMPTS[0]] * len(TEXTS)
    together = hidden_states(model, prompts, TEXTS, over="mean")
    alone = np.concatenate([hidden_states(model, [PROMPTS[0]], [text], over="mean") for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-4)
    assert not np.allclose(together, hidden_states(model, prompts, TEXTS))


def test_who_made_a_comparison_must_be_said(model: RewardModel) -> None:
    nobody = Comparison(Prompt("p"), "a", "b", p_left=1.0)
    with pytest.raises(DataError, match="who made them"):
        fit_personal(model, [nobody])
    with pytest.raises(DataError, match="no comparisons"):
        fit_personal(model, [])
    found = fit_personal(model, likes("ann", 1, n=5))
    with pytest.raises(UserError, match="no comparisons by 'eve'"):
        found.reward_model("eve")
