"""Where an answer stands: by hand, against tricks, and in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import ConfigError
from backflip.rewards.answers import FORMS, after_thinking, check_forms, explicit, phrased, unboxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{18}", "18"),
        (r"\fbox{18}.", "18"),
        (r"\boxed {18}", "18"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{{{3}}}", "{{3}}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"$\boxed{3}$ dollars", "3"),
        ("work\n#### 1,000", "1,000"),
        ("####18", "18"),
        ("#### 17\n#### 18\nthat is it", "18"),
        ("<answer> 18 </answer>", "18"),
        ("<answer>\n18\n</answer>", "18"),
        (r"<answer>$\boxed{18}$</answer>", "18"),
        (r"<answer>it is \boxed{18}</answer>", r"it is \boxed{18}"),
    ],
)
def test_each_form_by_hand(text: str, answer: str) -> None:
    assert explicit(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{17} or rather \boxed{18}", "18"),
        (r"\boxed{17} #### 18", "18"),
        (r"#### 17" + "\n" + r"\boxed{18}", "18"),
        (r"<answer>17</answer> no: \boxed{18}", "18"),
        (r"\boxed{18} <answer>17</answer>", "17"),
        ("<answer>17</answer><answer>18</answer>", "18"),
        ("<answer>17<answer>18</answer>", "18"),
        (r"\boxed{18} and \boxed{17", "18"),
        ("<answer>17</answer> <answer>18", "17"),
        (r"\boxed{17}}\boxed{18}", "18"),
    ],
)
def test_of_several_the_last_one_that_is_whole_counts(text: str, answer: str) -> None:
    assert explicit(text) == answer


@pytest.mark.parametrize("text", ["18", "", r"\boxed{18", "</answer>18<answer>", r"\boxed 18", "## 18", r"\mybox{18}", "18}"])
def test_what_is_no_explicit_answer(text: str) -> None:
    assert explicit(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 18.", "18."),
        ("Answer: 18", "18"),
        ("the final answer is: 18 eggs\nbye", "18 eggs"),
        ("A: 17\nA: 18", "18"),
        ("PA: 18", None),
        ("18 is it", None),
    ],
)
def test_phrases_announce_an_answer(text: str, answer: str | None) -> None:
    assert phrased(text) == answer


def test_thoughts_hold_no_answer() -> None:
    assert after_thinking("<think>17</think>18") == "18"
    assert after_thinking("17</think>18") == "18"
    assert after_thinking("<think>17</think>18</think>19") == "19"
    assert after_thinking("<think>\\boxed{18}") == ""
    assert after_thinking("before <think> 18") == "before "
    assert after_thinking("18") == "18"


def test_forms_can_be_chosen() -> None:
    text = r"A: 1" + "\n#### 2\n" + r"\boxed{3} <answer>4</answer>"
    assert [explicit(text, (form,)) for form in ("boxed", "hash", "tags", "phrase", "number")] == ["3", "2", "4", None, None]
    assert phrased(text, ("boxed",)) is None
    assert check_forms("boxed") == ("boxed",)
    assert check_forms(["number", "boxed"]) == ("boxed", "number")
    with pytest.raises(ConfigError, match=r"no form 'box'; choose among boxed, hash, tags, phrase, number"):
        check_forms(["box"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="no form ''"):
        check_forms([])


def test_boxes_are_taken_off_only_where_they_are_all_there_is() -> None:
    assert unboxed(r"$\boxed{3}$.") == "3"
    assert unboxed(r"\boxed{3} \boxed{4}") == "4"
    assert unboxed(r"\boxed{3} apples") == r"\boxed{3} apples"
    assert unboxed("3") == "3"


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 20000,
        r"\boxed{" * 20000 + "}" * 20000,
        r"\boxed{{1}" * 10000,
        "\\" * 100000,
        "<answer>" * 20000,
        "</answer>" * 20000,
        "####" * 30000,
        "#### \t" * 20000,
        "answer is " * 20000,
        "answer is" + " " * 100000,
        "<think>" * 20000,
        "A:\n" * 30000,
    ],
)
def test_tricky_input_takes_no_time(text: str) -> None:
    start = time.process_time()
    explicit(after_thinking(text))
    phrased(text)
    assert time.process_time() - start < 2


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\{", "#### ", "<answer>", "</answer>", "\n", "$", "18", "x", "A: "])))
def test_an_answer_is_a_part_of_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    for found in (explicit(text), phrased(text), *(explicit(text, (form,)) for form in FORMS)):
        assert found is None or found in text


@given(st.text(alphabet="17 ,.abc\\{}$", max_size=20), st.text(max_size=40))
def test_nothing_written_before_the_last_answer_changes_it(answer: str, before: str) -> None:
    alone = explicit(f"<answer>{answer}</answer>")
    assert explicit(f"{before}<answer>{answer}</answer>") == alone
