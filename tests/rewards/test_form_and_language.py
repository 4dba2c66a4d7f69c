"""Tags, languages, lengths and repetition: by hand, with tricks, and whatever is written."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import ConfigError
from backflip.rewards.form import TagFormat
from backflip.rewards.language import LanguageConsistency, script, thoughts, words
from backflip.rewards.lengths import LengthPenalty, Overlong, Repetition


def of(reward: Any, text: str, **columns: Any) -> float:
    """The reward of one completion."""
    [value] = reward(["q"], [text], **columns)
    assert reward.low <= value <= reward.high
    return float(value)


@pytest.mark.parametrize(
    ("text", "strict", "soft"),
    [
        ("<think>a</think><answer>b</answer>", 1.0, 1.0),
        (" <think>\na\n</think>\n\n<answer> b </answer>\n", 1.0, 1.0),
        ("<think>a < b, <b>x</b></think><answer>b</answer>", 1.0, 1.0),
        ("<think>a</think><answer>b</answer> more", 0.0, 1.0),
        ("Sure! <think>a</think><answer>b</answer>", 0.0, 1.0),
        ("<think>a</think> so <answer>b</answer>", 0.0, 1.0),
        ("<think></think><answer>b</answer>", 0.0, 1.0),
        ("<think>a</think><answer> </answer>", 0.0, 1.0),
        ("<think>a<think>b</think><answer>c</answer>", 0.0, 0.75),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0, 0.5),
        ("<answer>b</answer><think>a</think>", 0.0, 0.5),
        ("<think>a<answer>b</answer></think>", 0.0, 0.5),
        ("<think>a</think>", 0.0, 0.5),
        ("<think>a", 0.0, 0.25),
        ("<THINK>a</THINK><answer>b</answer>", 0.0, 0.5),
        ("", 0.0, 0.0),
    ],
)
def test_the_format_of_r1(text: str, strict: float, soft: float) -> None:
    assert of(TagFormat(), text) == strict
    assert of(TagFormat(soft=True), text) == soft


def test_tags_of_ones_own_and_a_tag_opened_by_the_prompt() -> None:
    assert of(TagFormat(tags=("plan", "code", "test")), "<plan>a</plan><code>b</code><test>c</test>") == 1.0
    assert of(TagFormat(opened=True), "a</think><answer>b</answer>") == 1.0
    assert of(TagFormat(opened=True), "<think>a</think><answer>b</answer>") == 0.0
    for tags in ((), ("a b",), ("a", "a")):
        with pytest.raises(ConfigError, match="tags are different words such as think, answer"):
            TagFormat(tags=tags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Then 3 + 4 = 7.", ["Then"]),
        ("所以答案", ["所", "以", "答", "案"]),
        ("we use中文 here", ["we", "use", "中", "文", "here"]),
        ("привет, мир", ["привет", "мир"]),
        ("naïve café", ["naïve", "café"]),
        (r"so \frac{1}{2} and $x + y$", ["so", "and"]),
        ("<think>a</think>", ["a"]),
        ("don't", ["don", "t"]),
        ("ｗｏｒｄ", ["ｗｏｒｄ"]),
        ("12 + 3", []),
    ],
)
def test_words_by_hand(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("target", "text", "share"),
    [
        ("en", "<think>all of it</think> 不算", 1.0),
        ("en", "<think>first 然后 last</think>", 0.5),
        ("zh", "<think>first 然后 last</think>", 0.5),
        ("zh", "全部中文", 1.0),
        ("ja", "これは漢字", 1.0),
        ("ru", "да yes", 0.5),
        ("ko", "한국어 말", 1.0),
        ("en", "three уно", 0.5),
        (("eins", "zwei"), "Eins zwei drei vier", 0.5),
        ("en", "<think>1 + 1 = 2</think> two", 0.0),
        ("en", "", 0.0),
        ("en", "words in a prompt-opened thought</think> 不算", 1.0),
    ],
)
def test_the_share_of_the_target_language(target: Any, text: str, share: float) -> None:
    assert of(LanguageConsistency(target=target), text) == share


def test_languages_without_a_script_need_their_words() -> None:
    with pytest.raises(ConfigError, match=r"no script is known for the language 'klingon'.*or give its words"):
        LanguageConsistency(target="klingon")
    assert script("中") == "CJK"
    assert script("\ue000") == ""
    assert thoughts("<think>a</think>b") == "a"
    assert thoughts("a b") == "a b"


@pytest.mark.parametrize(
    ("n", "value"), [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (101, -1.0), (5000, -1.0)]
)
def test_the_overlong_punishment_of_dapo(n: int, value: float) -> None:
    reward = Overlong(max_length=100, cache=20)
    assert of(reward, "x", completion_ids=[[7] * n]) == pytest.approx(value)
    assert of(Overlong(max_length=100, cache=20, unit="characters"), "x" * n) == pytest.approx(value)
    assert of(Overlong(max_length=100, cache=20, unit="words"), "x " * n) == pytest.approx(value)


def test_the_papers_setting_starts_at_its_own_length() -> None:
    """DAPO section 4.1: an expected 16,384 tokens and 4,096 more as the cache, so 20,480 at most."""
    reward = Overlong(max_length=20480, cache=4096)
    found = reward(["q"] * 3, ["x"] * 3, completion_ids=[[0] * 16384, [0] * 18432, [0] * 20481])
    assert found == [0.0, -0.5, -1.0]


def test_a_length_penalty_falls_evenly_to_its_limit() -> None:
    reward = LengthPenalty(limit=4, unit="words")
    assert reward(["q"] * 4, ["", "a", "a b c d", "a b c d e"]) == [0.0, -0.25, -1.0, -1.0]


def test_lengths_in_tokens_need_tokens() -> None:
    with pytest.raises(ConfigError, match=r"needs the column completion_ids.*set unit to words or characters"):
        of(LengthPenalty(limit=4), "a")
    for make in (
        lambda: Overlong(max_length=10, cache=11),
        lambda: Overlong(max_length=10, cache=0),
        lambda: LengthPenalty(limit=0),
        lambda: LengthPenalty(limit=1, unit="pages"),  # type: ignore[arg-type]
        lambda: Repetition(n=0),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.parametrize(
    ("n", "text", "value"),
    [
        (1, "a b c", 0.0),
        (1, "a a a a", -0.75),
        (2, "a b a b a", -0.5),
        (3, "the the the the the", -2 / 3),
        (3, "a b", 0.0),
        (1, "The the", -0.5),
        (1, "1 1", -0.5),
        (1, "很很", -0.5),
        (2, "", 0.0),
    ],
)
def test_repeated_n_grams_cost_their_share(n: int, text: str, value: float) -> None:
    assert of(Repetition(n=n), text) == pytest.approx(value)


REWARDS = [
    TagFormat(), TagFormat(soft=True), TagFormat(opened=True), LanguageConsistency(), LanguageConsistency(target="zh"),
    Repetition(), Repetition(n=1), LengthPenalty(limit=9, unit="words"), Overlong(max_length=9, cache=3, unit="characters"),
]  # fmt: skip
texts = st.text() | st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", " ", "中", "\n"])).map("".join)


@given(st.lists(texts, max_size=5), st.randoms())
def test_they_never_raise_and_follow_their_rows(completions: list[str], random: Any) -> None:
    order = list(range(len(completions)))
    random.shuffle(order)
    for reward in REWARDS:
        values = reward(completions, completions)
        assert all(reward.low <= value <= reward.high for value in values)
        assert reward(completions, [completions[i] for i in order]) == [values[i] for i in order]


@pytest.mark.parametrize(
    "text", ["<think>" * 10000, "<a" * 30000, "$" * 50000, "\\a" * 30000, "é中" * 30000, "<" * 60000, "a " * 30000]
)
def test_tricky_texts_take_no_time(text: str) -> None:
    start = time.process_time()
    for reward in REWARDS:
        reward(["q"], [text])
    assert time.process_time() - start < 6
