"""From a rollout to episodes: where texts end, what is read, what is trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import small_ppo, tiny

from backflip.errors import DataError
from backflip.policies.tokens import TokenBatch, token_batch
from backflip.records import Message, Prompt
from backflip.settings import Online
from backflip.train.episodes import between_full_stops, find_ends, loss_mask, prepare_prompts, stop_tokens, texts

torch.set_num_threads(1)

END = torch.tensor([1])


def responses(*rows: list[int]) -> TokenBatch:
    return token_batch([[5]] * len(rows), list(rows), fill=0)


def test_ends_by_hand() -> None:
    batch = responses([7, 8, 1, 9], [1, 7, 1], [7, 8], [7, 8, 9, 1])
    ends = find_ends(batch, END)
    assert ends.kept_B.tolist() == [3, 1, 2, 4]
    assert ends.found_B.tolist() == [True, True, False, True]
    later = find_ends(batch, END, after=2)
    assert later.kept_B.tolist() == [3, 3, 2, 4]
    assert later.found_B.tolist() == [True, True, False, True]
    none = find_ends(batch, END, after=9)
    assert none.kept_B.tolist() == [4, 3, 2, 4]
    assert not none.found_B.any()
    several = find_ends(batch, torch.tensor([9, 8]))
    assert several.kept_B.tolist() == [2, 3, 2, 2]


def test_an_end_in_the_padding_is_no_end() -> None:
    batch = token_batch([[5]], [[7, 8]], fill=1, response_width=4)
    ends = find_ends(batch, END)
    assert ends.kept_B.tolist() == [2]
    assert ends.found_B.tolist() == [False]


@given(
    rows=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=4),
    after=st.integers(0, 6),
)
def test_what_is_kept_is_the_shortest_text_with_an_end(rows: list[list[int]], after: int) -> None:
    ends = find_ends(responses(*rows), END, after=after)
    for row, kept, found in zip(rows, ends.kept_B.tolist(), ends.found_B.tolist(), strict=True):
        places = [t for t, token in enumerate(row) if token == 1 and t >= after]
        assert (kept, found) == ((places[0] + 1, True) if places else (len(row), False))


def test_the_loss_mask_holds_what_was_sampled_or_what_was_kept() -> None:
    batch = responses([7, 1, 9, 9], [7, 8, 9])
    kept = find_ends(batch, END).kept_B
    assert torch.equal(loss_mask(batch, kept, past_the_end="train"), batch.mask_BT)
    assert loss_mask(batch, kept, past_the_end="mask").tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


def test_texts_leave_out_what_comes_after_the_end_and_the_end_itself() -> None:
    policy = tiny()
    ids = policy.encode_completion("was good", eos=False)
    batch = responses([*ids, policy.eos_id, 40, 41], ids)
    kept = find_ends(batch, torch.tensor([policy.eos_id])).kept_B
    assert texts(policy, batch, kept) == ["was good", "was good"]


def test_stop_tokens_are_all_tokens_that_read_so() -> None:
    policy = tiny()
    assert stop_tokens(policy, "eos").tolist() == [policy.eos_id]
    for text in (".", "a", "\n", " "):
        found = stop_tokens(policy, text).tolist()
        readings = {policy.decode([i]) for i in found}
        assert text in readings
        assert all(r == text or r.strip() == text for r in readings)
    with pytest.raises(DataError, match="no token of the policy reads 'no such thing'"):
        stop_tokens(policy, "no such thing")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the end. A whole one. And a", " A whole one."),
        ("one. two. three.", " two. three."),
        ("no stop", "no stop"),
        ("only one. stop", "only one. stop"),
        ("..", "."),
    ],
)
def test_prompts_between_full_stops(text: str, expected: str) -> None:
    prompt = between_full_stops(Prompt(text, {"label": 3}))
    assert prompt.text == expected
    assert prompt.columns == {"label": 3}


def test_conversations_are_not_cut_into_sentences() -> None:
    prompt = Prompt((Message("user", "a. b. c."),))
    assert between_full_stops(prompt) is prompt


def prepared(prompts: list[Prompt], **changes: Any) -> list[tuple[str, list[int]]]:
    settings: Online = small_ppo(**changes)
    return [(ready.prompt.plain, ready.ids) for ready in prepare_prompts(tiny(), prompts, settings)]


def test_long_prompts_are_cut_from_the_left_or_dropped() -> None:
    policy = tiny()
    short, long = Prompt("the film"), Prompt("the film was good. a cat sat on the mat")
    ids = {p.plain: policy.encode(p) for p in (short, long)}
    limit = len(ids[short.plain])
    assert prepared([short, long], query_length=limit, overlong="truncate") == [
        (short.plain, ids[short.plain]),
        (long.plain, ids[long.plain][-limit:]),
    ]
    assert prepared([short, long], query_length=limit, overlong="drop") == [(short.plain, ids[short.plain])]
    with pytest.raises(DataError, match="prompt 2 has"):
        prepared([short, long], query_length=limit)


def test_a_prompt_and_its_completion_always_fit_the_context() -> None:
    policy = tiny()
    [(_, ids)] = prepared([Prompt("xyz " * 40)], overlong="truncate", query_length=1000)
    assert len(ids) + 6 == policy.context == 64
