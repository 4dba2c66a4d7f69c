"""The distribution that is sampled, and the draw."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backflip.rollout.sampling import draw, truncate

torch.set_num_threads(1)

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12)
ALMOST_ONE = 1 - 2**-24  # the largest number that torch.rand gives
UNIFORM = st.one_of(st.sampled_from([0.0, 2**-24, 0.5, ALMOST_ONE]), st.floats(0, ALMOST_ONE))


@given(logits=LOGITS, allowed=st.sets(st.integers(0, 11), min_size=1), u=UNIFORM)
def test_a_token_of_probability_zero_is_never_drawn(logits: list[float], allowed: set[int], u: float) -> None:
    on = {i % len(logits) for i in allowed}
    row = torch.tensor([[x if i in on else -torch.inf for i, x in enumerate(logits)]])
    assert int(draw(row.log_softmax(-1), torch.tensor([u])).token_B) in on


@given(logits=LOGITS, u=UNIFORM)
def test_the_token_drawn_is_where_the_cumulative_sum_passes_u(logits: list[float], u: float) -> None:
    logps = torch.tensor([logits]).log_softmax(-1).double()
    token = int(draw(logps, torch.tensor([u], dtype=torch.float64)).token_B)
    chances = logps[0].exp().tolist()
    target = u * sum(chances)
    assert sum(chances[:token]) <= target + 1e-12
    assert sum(chances[: token + 1]) >= target - 1e-12


def test_the_extremes_of_u_by_hand() -> None:
    logps = torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]]).log()
    cases = {0.0: 1, 0.2499: 1, 0.2501: 2, 0.7499: 2, 0.7501: 3, ALMOST_ONE: 3}
    for u, token in cases.items():
        assert int(draw(logps, torch.tensor([u], dtype=torch.float64)).token_B) == token, u
    # Even a u of exactly 1, which no generator gives, falls on a token that has a probability.
    assert int(draw(logps, torch.tensor([1.0])).token_B) == 3


@pytest.mark.parametrize("size", [1, 127, 128, 129, 640, 5000])
def test_a_large_vocabulary_is_searched_in_blocks_and_the_answer_is_the_same(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(300, size, generator=generator) * 3
    logits[logits < -4] = -torch.inf
    logits[:, size // 2] = 0.0
    uniform = torch.rand(300, generator=generator)
    drawn = draw(logits, uniform)
    logps = logits.double().log_softmax(-1)
    ends = logps.exp().cumsum(-1)
    rows = torch.arange(300)
    # u lies in the drawn token's own share of [0, 1), up to rounding.
    assert (ends[rows, drawn.token_B] > uniform - 1e-6).all()
    assert (ends[rows, drawn.token_B] - logps.exp()[rows, drawn.token_B] <= uniform + 1e-6).all()
    torch.testing.assert_close(drawn.logp_B.double(), logps[rows, drawn.token_B], rtol=0, atol=1e-5)


def test_draws_come_as_often_as_their_probabilities_say() -> None:
    # 250,000 draws of 8 tokens: the chi-square statistic with 7 degrees of freedom exceeds 24.3 once in a thousand.
    n = 250_000
    chances = torch.tensor([0.001, 0.0, 0.3, 0.2, 0.1, 0.25, 0.0489, 0.1001])
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    tokens = draw(chances.log().expand(n, -1), uniform).token_B
    seen = torch.bincount(tokens, minlength=8).double()
    assert seen[1] == 0
    expected = n * chances.double() / chances.double().sum()
    on = expected > 0
    assert ((seen - expected)[on].square() / expected[on]).sum() < 24.3


@given(logits=LOGITS, k=st.integers(1, 12))
def test_top_k_keeps_the_k_likeliest(logits: list[float], k: int) -> None:
    row = torch.tensor([logits])
    kept = truncate(row, top_k=k)[0].isfinite()
    bar = sorted(logits, reverse=True)[min(k, len(logits)) - 1]
    assert kept.tolist() == [x >= bar for x in row[0].tolist()]


@given(logits=LOGITS, p=st.floats(0.01, 0.999))
def test_the_nucleus_is_the_smallest_set_that_holds_p(logits: list[float], p: float) -> None:
    row = torch.tensor([logits])
    kept = truncate(row, top_p=p)[0].isfinite()
    chances = row.softmax(-1)[0].double()
    assert kept.any()
    assert chances[kept].sum() >= p - 1e-5
    # Every token inside is at least as likely as every one outside, and the least likely one inside is needed.
    if not kept.all():
        assert chances[kept].min() >= chances[~kept].max() - 1e-7
    assert chances[kept].sum() - chances[kept].min() < p + 1e-5


def test_the_nucleus_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for p, size in ((0.01, 1), (0.49, 1), (0.6, 2), (0.79, 2), (0.9, 3), (0.96, 4)):
        assert int(truncate(logits, top_p=p).isfinite().sum()) == size, p
    equal = torch.zeros(1, 4)
    assert int(truncate(equal, top_p=0.4).isfinite().sum()) == 2


def test_both_truncations_together_and_none() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    # Of the three likeliest, renormalised to 4/9, 3/9, 2/9, two hold 0.7.
    assert truncate(logits, top_k=3, top_p=0.7).isfinite().tolist() == [[True, True, False, False]]
    assert truncate(logits) is logits
    assert truncate(logits, top_k=4) is logits


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_are_truncated_each_for_itself(rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, 9, generator=generator)
    together = truncate(logits, top_k=4, top_p=0.8)
    for i in range(rows):
        assert torch.equal(together[i : i + 1], truncate(logits[i : i + 1], top_k=4, top_p=0.8))
    assert math.isfinite(together.log_softmax(-1).max())
