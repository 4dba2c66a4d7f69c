"""Weighted sums of rewards: what they add up to, what is logged, and every way a function can be wrong."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import ConfigError, DataError, NonFiniteError, NumericsError, UserError
from backflip.records import Message, Prompt
from backflip.rewards.calls import Value, call, check_signature
from backflip.rewards.protocol import score
from backflip.rewards.spans import Process, Span
from backflip.rewards.weighted import Judgement, Weighted, judge, name_of

TEXTS = ["abc", "a", ""]
PROMPTS = [Prompt("p", {"label": k}) for k in range(3)]


def lengths(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """A whole number a row."""
    return [float(len(text)) for text in completions]


def labels(completions: list[str], label: list[Any], **kwargs: Any) -> list[float | None]:
    """As the field writes them: by keyword, and None where it does not apply."""
    return [None if value == 1 else float(value) for value in label]


def halves(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[Process]:
    """Two spans a row and an outcome."""
    return [Process((Span(0, len(t) // 2, 1.0), Span(len(t) // 2, len(t), -0.5)), outcome=0.25) for t in completions]


def returning(values: Any, **attributes: Any) -> Any:
    """A function that returns the same whatever it is asked."""

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> Any:
        return values

    vars(reward).update(attributes)
    return reward


def test_the_sum_and_its_parts_by_hand() -> None:
    whole = Weighted({"length": (lengths, 0.5), "label": (labels, 2.0), "half": (halves, -1.0), "seen": (halves, 0.0)})
    judged = judge(whole, PROMPTS, TEXTS)
    assert judged.parts == {"length": [3.0, 1.0, 0.0], "label": [0.0, None, 2.0], "half": [0.75] * 3, "seen": [0.75] * 3}
    assert judged.outcomes == [1.5 - 0.25, 0.5 - 0.25, 4.0 - 0.25]
    assert judged.spans[0] == (Span(0, 1, -1.0), Span(1, 3, 0.5))
    assert judged.scores == [1.25 - 0.5, 0.25 - 0.5, 3.75 - 0.5]
    assert judged.has_spans
    assert whole(["p"] * 3, TEXTS, label=[0, 1, 2]) == judged.scores == score(whole, PROMPTS, TEXTS)


def test_what_is_logged_of_each_part() -> None:
    judged = judge(Weighted({"length": (lengths, 0.5), "label": (labels, 2.0)}), PROMPTS, TEXTS)
    assert judged.metrics() == pytest.approx(
        {
            "rewards/length/mean": 4 / 3,
            "rewards/length/std": statistics.pstdev([3, 1, 0]),
            "rewards/length/share": 1.0,
            "rewards/label/mean": 1.0,
            "rewards/label/std": 1.0,
            "rewards/label/share": 2 / 3,
        }
    )
    assert Judgement([], [], [], {"x": [None, None], "y": []}, {"code/pass": 0.5}).metrics() == {
        "rewards/x/share": 0.0,
        "rewards/y/share": 0.0,
        "code/pass": 0.5,
    }
    kept = judge(returning([1.0], metrics={"code/pass": 1}), PROMPTS[:1], ["x"])
    assert kept.metrics()["code/pass"] == 1.0


def test_a_plain_function_is_a_part_under_its_own_name() -> None:
    judged = judge(lengths, PROMPTS, TEXTS)
    assert (judged.scores, judged.parts, judged.has_spans) == ([3.0, 1.0, 0.0], {"lengths": [3.0, 1.0, 0.0]}, False)
    assert name_of(lengths) == "lengths"
    assert name_of(lambda prompts, completions: []) == "reward"
    assert name_of(Weighted({"a": (lengths, 1.0)})) == "Weighted"


def test_columns_messages_and_what_the_caller_knows_reach_the_function() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0.0] * len(completions)

    prompts = [Prompt("a", {"x": 1}), Prompt((Message("user", "hi"),), {"y": 2})]
    judge(reward, prompts, ["u", "v"], completion_ids=[[1], [2, 3]])
    assert seen == {
        "prompts": ["a", [{"role": "user", "content": "hi"}]], "completions": ["u", "v"], "x": [1, None], "y": [None, 2],
        "completion_ids": [[1], [2, 3]],
    }  # fmt: skip


def test_what_one_part_does_to_its_lists_is_not_seen_by_another() -> None:
    def careless(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        completions.sort()
        columns["label"].clear()
        return [0.0] * len(completions)

    judged = judge(Weighted({"careless": (careless, 1.0), "length": (lengths, 1.0), "label": (labels, 0.0)}), PROMPTS, TEXTS)
    assert judged.scores == [3.0, 1.0, 0.0]
    assert judged.parts["label"] == [0.0, None, 2.0]


class Positional:
    """A reward with other names, by place only."""

    def __call__(self, p: list[Any], c: list[str], /) -> list[float]:
        return [1.0] * len(c)


@pytest.mark.parametrize(
    "function",
    [
        lambda completions: [1.0] * len(completions),
        lambda completions, label: [1.0] * len(label),
        lambda completions, other=None: [1.0] * len(completions),
        lambda completions, **kwargs: [1.0] * len(kwargs["label"]),
        lambda prompts, completions: [1.0] * len(prompts),
        lambda p, c, **columns: [1.0] * len(columns["label"]),
        lambda p, c: [1.0] * len(c),
        lambda *everything: [1.0] * len(everything[1]),
        Positional(),
        lambda prompts, completions, **k: (1 for _ in completions),
        lambda prompts, completions, **k: torch.ones(len(completions)),
        lambda prompts, completions, **k: [True] * len(completions),
    ],
)
def test_every_way_to_write_a_reward(function: Any) -> None:
    check_signature(function, "f")
    assert judge(function, PROMPTS, TEXTS).scores == [1.0, 1.0, 1.0]


async def later(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """A coroutine."""
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, "reward 'f' is int, not a function"),
        (lambda: [], r"reward 'f' has the signature \(\); it should be f\(prompts, completions, \*\*columns\)"),
        (lambda texts: [], r"has the signature \(texts\)"),
        (later, "is a coroutine"),
    ],
)
def test_what_cannot_be_called_is_refused_before_the_run(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Weighted({"f": (function, 1.0)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "reward 'f' returned 2 values for 3 completions; return one for each"),
        ([], "returned 0 values for 3"),
        (1.0, "reward 'f' returned float; return a list"),
        (None, "returned NoneType"),
        ("123", "returned str"),
        ([0.0, "1.0", 0.0], r"reward 'f' gave '1.0' for row 2 \('a'\); a reward is a number, or None"),
        ([0.0, [1.0], 0.0], r"gave '\[1.0\]' for row 2"),
        ([0.0, 0.0, 1j], r"gave '1j' for row 3 \(''\)"),
        ([Process((Span(0, 9, 1.0),)), 0.0, 0.0], "a span that ends at 9 for row 1 .*, which has 3 characters; the usual cause"),
    ],
)
def test_values_that_are_no_rewards(values: Any, message: str) -> None:
    with pytest.raises(NumericsError, match=message):
        judge(Weighted({"f": (returning(values), 1.0)}), PROMPTS, TEXTS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, Process((Span(0, 1, math.nan),)), Process(outcome=math.inf)])
def test_values_that_are_not_finite_name_the_part_the_row_and_the_cause(bad: Any) -> None:
    whole = Weighted({"good": (lengths, 1.0), "bad": (returning([0.0, bad, 0.0]), 0.0)})
    with pytest.raises(NonFiniteError, match=r"reward 'bad' is (nan|-?inf) for row 2 \('a'\).*the usual cause is a division"):
        judge(whole, PROMPTS, TEXTS)


def test_a_declared_range_is_kept() -> None:
    for value in (1.5, -0.5, Process((Span(0, 1, 1.0),), outcome=0.5)):
        with pytest.raises(
            NumericsError, match=r"reward 'f' is (1.5|-0.5) for row 1 \('abc'\), outside its range of 0 to 1; the usual"
        ):
            call(returning([value, 0.0, 0.0], low=0.0, high=1.0), "f", ["p"] * 3, TEXTS, {})
    assert call(returning([1.0 + 1e-7, None, 0.0], low=0.0, high=1.0), "f", ["p"] * 3, TEXTS, {})[1:] == [None, 0.0]
    assert call(returning([1e9, 0.0, 0.0], low=0.0), "f", ["p"] * 3, TEXTS, {})[0] == 1e9


def test_a_function_that_raises_is_named_with_its_row() -> None:
    def inverse(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [1 / len(text) for text in completions]

    with pytest.raises(UserError, match=r"reward 'f' failed at row 3 \(''\): ZeroDivisionError: division by zero"):
        call(inverse, "f", ["p"] * 3, TEXTS, {"label": [0, 1, 2]})

    def together(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        if len(completions) > 1:
            raise RuntimeError("one at a time")
        return [0.0]

    with pytest.raises(UserError, match="reward 'f' failed: RuntimeError: one at a time"):
        call(together, "f", ["p"] * 3, TEXTS, {})

    def refuses(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        raise DataError("the data is wrong")

    with pytest.raises(DataError, match=r"^the data is wrong$"):
        call(refuses, "f", ["p"] * 3, TEXTS, {})


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"reward 'labels' needs the column 'label', which the prompts do not have; .* are 'x'"):
        judge(labels, [Prompt("p", {"x": 1})], ["a"])
    with pytest.raises(DataError, match="their columns are none"):
        judge(labels, [Prompt("p")], ["a"])


def test_a_row_that_nothing_applies_to_is_an_error() -> None:
    with pytest.raises(NumericsError, match=r"no reward applies to row 2 \('a'\): labels gave None; the usual cause"):
        judge(labels, PROMPTS, TEXTS)


def test_weights_are_finite_and_there_is_a_part() -> None:
    with pytest.raises(ConfigError, match="the weight of reward 'f' is a finite number, not nan"):
        Weighted({"f": (lengths, math.nan)})
    with pytest.raises(ConfigError, match="at least one part"):
        Weighted({})


def test_no_completions_have_an_empty_judgement() -> None:
    judged = judge(Weighted({"length": (lengths, 1.0)}), [], [])
    assert (judged.scores, judged.spans, judged.parts) == ([], [], {"length": []})


values = st.none() | st.floats(-10, 10) | st.builds(lambda a, b: Process((Span(0, 0, a),), b), st.floats(-5, 5), st.floats(-5, 5))


@given(
    st.lists(st.tuples(values, values, st.floats(-1, 1)), min_size=1, max_size=6),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.randoms(),
)
def test_scores_are_the_weighted_sums_of_what_is_logged(
    rows: list[tuple[Value, Value, float]], first: float, second: float, random: Any
) -> None:
    def whole(order: list[int]) -> Judgement:
        columns = [[rows[i][k] for i in order] for k in range(3)]
        parts = {"a": (returning(columns[0]), first), "b": (returning(columns[1]), second), "c": (returning(columns[2]), 1.0)}
        return judge(Weighted(parts), [Prompt("p")] * len(rows), ["text"] * len(rows))

    order = list(range(len(rows)))
    judged = whole(order)
    for i, total in enumerate(judged.scores):
        parts = [(judged.parts["a"][i] or 0.0) * first, (judged.parts["b"][i] or 0.0) * second, judged.parts["c"][i] or 0.0]
        assert total == pytest.approx(sum(parts), abs=1e-9)
        assert total == pytest.approx(judged.outcomes[i] + sum(span.reward for span in judged.spans[i]), abs=1e-9)
    random.shuffle(order)
    assert whole(order).scores == [judged.scores[i] for i in order]
