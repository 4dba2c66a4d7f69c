"""Rewards inside a completion: where they fall, what they add up to, and that one at the end is the sequence's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tokenizer

from backflip.errors import ConfigError
from backflip.maths.returns import discounted_returns, place_scores
from backflip.rewards.spans import PrefixLengths, Process, Span, ending_token, place_spans
from backflip.rewards.steps import Calculations, StepRewards, equations, step_ends


def decode(ids: list[int]) -> str:
    """A tokenizer of bytes."""
    return bytes(ids).decode(errors="replace")


def test_a_process_is_a_number_too() -> None:
    process = Process([Span(0, 2, 0.5), Span(2, 4, -1.0)], outcome=2.0)  # type: ignore[arg-type]
    assert float(process) == 1.5
    assert process.spans[1].scaled(2.0) == Span(2, 4, -2.0)
    assert float(Process()) == 0.0
    for start, end in ((2, 1), (-1, 3)):
        with pytest.raises(ValueError, match=f"not from {start} to {end}"):
            Span(start, end, 1.0)


@pytest.mark.parametrize(
    ("end", "token"), [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (6, 3), (7, 4), (9, 4)]
)  # text of 7 characters: 2, 3, 0, 1, 1 and the end of text
def test_the_token_that_completes_the_characters(end: int, token: int) -> None:
    lengths = [2, 5, 5, 6, 7, 7]
    assert ending_token(lengths, end, 6) == (5 if end >= 7 else token)
    assert ending_token([], end, 6) == 5


def test_rewards_are_placed_by_hand() -> None:
    mask_BT = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    spans = [(Span(0, 2, 1.0), Span(2, 3, 0.5), Span(0, 3, 0.25)), (Span(0, 1, -1.0), Span(1, 9, 2.0)), ()]
    placed_BT = place_spans(spans, [[2, 3, 5], [1, 4], []], mask_BT)
    assert placed_BT.tolist() == [[0, 1.0, 0.75, 0, 0], [-1.0, 2.0, 0, 0, 0], [0, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="row 2 has no response token to carry its spans"):
        place_spans([(), (), (Span(0, 1, 1.0),)], [[], [], []], mask_BT)
    with pytest.raises(ValueError, match="1 rows of spans do not fit a mask"):
        place_spans([()], [[]], mask_BT)


@given(st.lists(st.text(alphabet="ab é中🙂\n", max_size=8), min_size=1, max_size=4), st.data())
def test_one_span_at_the_end_is_the_reward_of_the_sequence(texts: list[str], data: st.DataObject) -> None:
    ids = [[*text.encode(), 0] for text in texts]  # a token of its own ends each text
    width = max(map(len, ids)) + 1
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    scores_B = torch.tensor(data.draw(st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=len(texts), max_size=len(texts))))
    lengths = [
        PrefixLengths(row, text, lambda part: decode([i for i in part if i])) for row, text in zip(ids, texts, strict=True)
    ]
    spans = [(Span(0, len(text), score),) for text, score in zip(texts, scores_B.tolist(), strict=True)]
    assert torch.equal(place_spans(spans, lengths, mask_BT), place_scores(scores_B, mask_BT))


@given(st.text(alphabet="ab é中🙂\n", max_size=12), st.lists(st.floats(-1, 1, width=32), max_size=5), st.data())
def test_nothing_is_lost_wherever_it_falls(text: str, rewards: list[float], data: st.DataObject) -> None:
    row = [*text.encode(), 0]
    spans = [Span(0, data.draw(st.integers(0, len(text))), reward) for reward in rewards]
    placed_BT = place_spans([spans], [PrefixLengths(row, text, lambda p: decode([i for i in p if i]))], torch.ones(1, len(row)))
    assert placed_BT.sum().item() == pytest.approx(sum(rewards), abs=1e-5)
    whole = discounted_returns(placed_BT, torch.ones(1, len(row)), gamma=1.0)
    assert whole[0, 0].item() == pytest.approx(sum(rewards), abs=1e-5)
    for span in spans:
        token = ending_token(PrefixLengths(row, text, lambda p: decode([i for i in p if i])), span.end, len(row))
        assert span.end == len(text) or decode(row[: token + 1]).startswith(text[: span.end])


def test_prefixes_never_shrink_and_half_a_character_completes_nothing() -> None:
    text = "é中🙂a"
    lengths = PrefixLengths(list(text.encode()), text, decode)
    assert list(lengths) == [0, 1, 1, 1, 2, 2, 2, 2, 3, 4]
    assert lengths[-1] == 4
    assert lengths[2:5] == [1, 1, 2]
    with pytest.raises(IndexError):
        lengths[10]


def test_a_real_tokenizer_ends_a_step_at_its_line_break() -> None:
    words = tokenizer()
    text = "the film was good.\nthe plot was dull.\nno end"
    ids = [*words(text, add_special_tokens=False)["input_ids"], words.eos_token_id]
    lengths = PrefixLengths(ids, text, lambda part: str(words.decode(part, skip_special_tokens=True)))
    spans = [Span(start, end, float(k)) for k, (start, end) in enumerate(step_ends(text), 1)]
    placed_BT = place_spans([spans], [lengths], torch.ones(1, len(ids)))
    places = placed_BT[0].nonzero().flatten().tolist()
    assert places[-1] == len(ids) - 1
    for place, span in zip(places[:-1], spans, strict=False):
        assert words.decode(ids[: place + 1]).startswith(text[: span.end])
        assert not words.decode(ids[:place]).startswith(text[: span.end])


@pytest.mark.parametrize(
    ("text", "ends"),
    [("", []), ("a", [(0, 1)]), ("a\nb", [(0, 2), (2, 3)]), ("a\n\n\nb\n", [(0, 2), (2, 6)]), ("\n \n", []), ("\na", [(0, 2)])],
)
def test_steps_are_lines_that_say_something(text: str, ends: list[tuple[int, int]]) -> None:
    assert step_ends(text) == ends


def count_letters(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """A judge of beginnings: letters, plus the weight of the row."""
    return [float(sum(c.isalpha() for c in text)) + k for text, k in zip(completions, columns["extra"], strict=True)]


def test_any_reward_at_the_ends_of_steps() -> None:
    texts = ["ab\nc\n", "", "x"]
    columns = {"extra": [0, 5, 10]}
    each = StepRewards(count_letters)(["q"] * 3, texts, **columns)
    assert each == [Process((Span(0, 3, 2.0), Span(3, 5, 3.0))), Process(), Process((Span(0, 1, 11.0),))]
    gain = StepRewards(count_letters, gain=True)(["q"] * 3, texts, **columns)
    assert gain[0] == Process((Span(0, 3, 2.0), Span(3, 5, 1.0)))
    assert [float(process) for process in gain] == [3.0, 0.0, 11.0], "gains sum to the score of the whole"
    assert StepRewards(count_letters)(["q"], [""], extra=[1]) == [Process()]
    assert StepRewards(count_letters, separator=". ")(["q"], ["a. b"], extra=[0])[0].spans == (Span(0, 3, 1.0), Span(3, 4, 2.0))
    with pytest.raises(ConfigError, match="steps need a separator"):
        StepRewards(count_letters, separator="")


@pytest.mark.parametrize(
    ("text", "truths"),
    [
        ("48/2 = <<48/2=24>>24", [True]),
        ("$5 * 3 = $15", [True]),
        ("0.2 x 50 = 10 and 2×3=6", [True, True]),
        ("1,000 * 2 = 2,000", [True]),
        ("10/3 = 3.33", [True]),
        ("10/3 = 3.34", [False]),
        ("10/3 = 3", [False]),
        ("2*(3+4) = 14", [True]),
        ("2+2 = 5.", [False]),
        ("S + 143 = 200 - 16 = 184", [True]),
        ("5 + 3 = 8 = 9", [True]),
        ("x + 3 = 5", []),
        ("3x - 5 = 16", []),
        ("2 eggs * 3 + 4 = 10", []),
        ("1/2 * 1/2 = 1/4", []),
        ("1/0 = 3", []),
        ("9**9 = 3", []),
        ("3 = 3", []),
        ("((((( = 3", []),
        ("20% * 5 = 1", []),
        ("", []),
    ],
)
def test_equations_by_hand(text: str, truths: list[bool]) -> None:
    assert equations(text) == truths


def test_each_step_that_calculates_is_paid_at_its_end() -> None:
    text = "1 + 1 = 2\nso what\n2 * 3 = 7\n4 - 1 = 3 and 3 + 3 = 5\n1 + 0 = 1"
    [process, none] = Calculations()(["q"] * 2, [text, "no sums"])
    assert none == Process()
    assert [(text[s.start : s.end].strip()[:9], s.reward) for s in process.spans] == [
        ("1 + 1 = 2", 0.25),
        ("2 * 3 = 7", -0.25),
        ("4 - 1 = 3", -0.25),
        ("1 + 0 = 1", 0.25),
    ]
    assert float(process) == 0.0


@given(st.lists(st.sampled_from([*"0123456789+-*/x=().,$ \n", "<<", ">>", "eggs", "**", "×"]), max_size=60))
def test_calculations_never_raise_and_stay_in_range(pieces: list[str]) -> None:
    [process] = Calculations()(["q"], ["".join(pieces)])
    assert -1.0 - 1e-9 <= float(process) <= 1.0 + 1e-9
