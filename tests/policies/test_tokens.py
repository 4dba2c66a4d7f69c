"""Token rectangles."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given
from hypothesis import strategies as st

from backflip.policies.tokens import pad, positions, token_batch

ROWS = st.lists(st.lists(st.integers(2, 99), max_size=6), min_size=1, max_size=5)


def test_the_rectangle_by_hand() -> None:
    batch = token_batch([[5, 6], [7]], [[8], [9, 10, 11]], fill=0)
    assert batch.query_BQ.tolist() == [[5, 6], [0, 7]]
    assert batch.query_mask_BQ.tolist() == [[1, 1], [0, 1]]
    assert batch.response_BT.tolist() == [[8, 0, 0], [9, 10, 11]]
    assert batch.mask_BT.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.ids_BL.tolist() == [[5, 6, 8, 0, 0], [0, 7, 9, 10, 11]]
    assert batch.attention_BL.tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]
    assert len(batch) == 2
    assert {getattr(batch, f.name).dtype for f in dataclasses.fields(batch)} == {torch.int64}


def test_rows_and_widths() -> None:
    batch = token_batch([[5, 6], [7]], [[8], [9]], fill=1, query_width=4, response_width=2)
    assert batch.query_BQ.tolist() == [[1, 1, 5, 6], [1, 1, 1, 7]]
    assert batch.response_BT.tolist() == [[8, 1], [9, 1]]
    assert batch.rows(torch.tensor([1, 0])).query_BQ.tolist() == [[1, 1, 1, 7], [1, 1, 5, 6]]
    assert batch.rows(slice(1, 2)).response_BT.tolist() == [[9, 1]]


@given(rows=ROWS, left=st.booleans(), extra=st.integers(0, 3))
def test_padding_keeps_every_token_in_order_at_its_side(rows: list[list[int]], left: bool, extra: int) -> None:
    width = max(map(len, rows)) + extra
    ids, mask = pad(rows, fill=0, left=left, width=width)
    assert ids.shape == mask.shape == (len(rows), width)
    for i, row in enumerate(rows):
        gap = [0] * (width - len(row))
        assert ids[i].tolist() == (gap + row if left else row + gap)
        assert mask[i].tolist() == (gap + [1] * len(row) if left else [1] * len(row) + gap)


@given(rows=ROWS)
def test_positions_are_the_number_of_real_tokens_before(rows: list[list[int]]) -> None:
    for left in (True, False):
        _, mask = pad(rows, fill=0, left=left)
        found = positions(mask)
        for i, row in enumerate(mask.tolist()):
            assert found[i].tolist() == [sum(row[:t]) for t in range(len(row))]
