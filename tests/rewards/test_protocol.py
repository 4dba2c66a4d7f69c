"""Reward functions as users write them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backflip.errors import NumericsError
from backflip.records import Message, Prompt
from backflip.rewards.protocol import score


def test_a_reward_function_sees_prompts_completions_and_columns_as_the_data_has_them() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        seen.update(prompts=prompts, completions=completions, columns=columns)
        return [1, 2, 3]

    prompts = [Prompt("a", {"label": 1}), Prompt("b", {"answer": "x"}), Prompt((Message("user", "hi"),))]
    assert score(reward, prompts, ["x", "y", "z"]) == [1.0, 2.0, 3.0]
    assert seen["prompts"] == ["a", "b", [{"role": "user", "content": "hi"}]]
    assert seen["completions"] == ["x", "y", "z"]
    assert seen["columns"] == {"answer": [None, "x", None], "label": [1, None, None]}


@pytest.mark.parametrize("returned", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_wrong_number_of_scores_is_refused(returned: list[float]) -> None:
    with pytest.raises(NumericsError, match=rf"returned {len(returned)} scores for 2 completions"):
        score(lambda prompts, completions, **columns: returned, [Prompt("a"), Prompt("b")], ["x", "y"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_named_with_its_completion(bad: float) -> None:
    with pytest.raises(NumericsError, match=r"the reward of completion 2 is (nan|-?inf).*'what was written'"):
        score(lambda prompts, completions, **columns: [0.0, bad], [Prompt("a"), Prompt("b")], ["x", "what was written"])


def test_no_completions_have_no_scores() -> None:
    assert score(lambda prompts, completions, **columns: [], [], []) == []
