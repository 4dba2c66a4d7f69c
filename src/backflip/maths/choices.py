"""Losses of reward models beyond the pair without ties: answers of "both alike", whole rankings, numbers given to a text.

Shapes: N comparisons or ratings, B completions that were scored, K of them ranked together. A loss is Σ w_n l_n / denominator,
as in `preference`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backflip.maths.preference import PreferenceLoss, _agreement, _beliefs, _gap, _weighted, check_error_rate
from backflip.maths.tensors import check_shapes

Ranking = Sequence[Sequence[int]]
"""Places of completions in a list of scores, best first, equal ones together: ((2,), (0, 1))."""
RankingTies = Literal["half", "drop"]


def rao_kupper(
    scores_left_N: Tensor,
    scores_right_N: Tensor,
    p_left_N: Tensor | None = None,
    *,
    tie_width: float,
    error_rate: float = 0.0,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """Comparisons with ties: a difference below a threshold is not seen. Rao & Kupper (1967), eq. 2.1, with θ = e^η.

        P(left) = σ(d − η)   P(right) = σ(−d − η)   P(tie) = (e^2η − 1) P(left) P(right),   d = score left − score right

    A belief of exactly ½ is a tie; any other is shared between left and right. `tie_width` is η > 0 in nats: of two equal
    texts tanh(η/2) are called alike. As η falls to 0 what decided comparisons teach becomes `bradley_terry`. With
    probability `error_rate` the answer is any of the three, blindly. Raises ValueError for another width or rate.
    """
    _check_width(tie_width)
    gap_N = _gap(scores_left_N, scores_right_N)
    left_N, right_N = logsigmoid(gap_N - tie_width), logsigmoid(-gap_N - tie_width)
    tie_N = math.log(math.expm1(2.0 * tie_width)) + left_N + right_N
    return _three_ways(gap_N, p_left_N, (left_N, tie_N, right_N), error_rate, weight_N, denominator)


def davidson(
    scores_left_N: Tensor,
    scores_right_N: Tensor,
    p_left_N: Tensor | None = None,
    *,
    tie_width: float,
    error_rate: float = 0.0,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """Comparisons with ties that keep P(left)/P(right) = e^d: Davidson (1970), eq. 2.3.

        (P(left), P(tie), P(right)) = softmax(d/2, log ν, −d/2)

    `tie_width` is ν > 0: of two equal texts ν/(2 + ν) are called alike. Beliefs and errors as in `rao_kupper`.
    """
    _check_width(tie_width)
    gap_N = _gap(scores_left_N, scores_right_N)
    logits_N3 = torch.stack([gap_N / 2, torch.full_like(gap_N, math.log(tie_width)), -gap_N / 2], dim=-1)
    left_N, tie_N, right_N = logits_N3.log_softmax(dim=-1).unbind(-1)
    return _three_ways(gap_N, p_left_N, (left_N, tie_N, right_N), error_rate, weight_N, denominator)


def plackett_luce(
    scores_B: Tensor,
    rankings: Sequence[Ranking],
    *,
    ties: RankingTies = "half",
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """Whole rankings: the best is chosen among all, the next among the rest, and so on. Plackett (1975), Luce (1959).

        l = −1/(K−1) · Σ_k log softmax(scores of what is left)[k]

    The mean over the K − 1 choices, so that a ranking counts as one however long it is, as with 1/C(K,2) in InstructGPT's
    eq. 1; with K = 2 it is `bradley_terry`. Of a group of equals "half" takes the mean log-likelihood over all their orders
    (for two texts that is a belief of ½), "drop" compares each with what stands below and not with one another; then only
    choices with something below count. The accuracy is that of the decided pairs. Raises ValueError for a ranking of
    less than two completions, or one that names a completion twice.
    """
    return _ranked(scores_B, rankings, lambda groups: _choices(scores_B, groups, ties), weight_N, denominator)


def best_of_k(
    scores_B: Tensor,
    rankings: Sequence[Ranking],
    *,
    ties: RankingTies = "half",
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """Only the first choice of each ranking: −log softmax(scores)[best], Ziegler et al. (1909.08593), eq. 1.

    `preference.pick_best` for any number of completions. Of several best "half" takes the mean of their losses, "drop" lets
    each compete with the others' losers alone.
    """
    return _ranked(scores_B, rankings, lambda groups: _first(scores_B, groups, ties), weight_N, denominator)


def rating_regression(
    scores_N: Tensor,
    targets_N: Tensor,
    *,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """(score − target)², a scalar: a number that somebody gave a text, or its Elo, is what the score should be."""
    check_shapes(scores_N=scores_N, targets_N=targets_N)
    return _weighted((scores_N - targets_N).square(), weight_N, denominator)


def _check_width(tie_width: float) -> None:
    if not 0.0 < tie_width < math.inf:
        raise ValueError(f"a tie width is above 0 and finite, not {tie_width}")


def _three_ways(
    gap_N: Tensor, p_left_N: Tensor | None, logp: tuple[Tensor, Tensor, Tensor], error_rate: float, weight_N: Tensor | None,
    denominator: Tensor | float | None,
) -> PreferenceLoss:  # fmt: skip
    check_error_rate(error_rate)
    p_N = _beliefs(p_left_N, gap_N)
    if error_rate:
        blind = math.log(error_rate / 3.0)
        left_N, tie_N, right_N = (torch.logaddexp(math.log1p(-error_rate) + x, torch.full_like(x, blind)) for x in logp)
    else:
        left_N, tie_N, right_N = logp
    loss_N = torch.where(p_N == 0.5, -tie_N, -p_N * left_N - (1.0 - p_N) * right_N)
    return PreferenceLoss(_weighted(loss_N, weight_N, denominator), *_agreement(gap_N, p_N))


def _ranked(
    scores_B: Tensor, rankings: Sequence[Ranking], loss_of: Callable[[Ranking], Tensor], weight_N: Tensor | None,
    denominator: Tensor | float | None,
) -> PreferenceLoss:  # fmt: skip
    for groups in rankings:
        members = [i for group in groups for i in group]
        if len(members) < 2 or len(set(members)) < len(members):
            raise ValueError(f"a ranking places two or more completions, each once, not {tuple(map(tuple, groups))}")
    loss_N = torch.stack([loss_of(groups) for groups in rankings])
    pairs = [(i, j) for groups in rankings for a, b in itertools.combinations(groups, 2) for i in a for j in b]
    if not pairs:
        nothing = torch.zeros((), dtype=scores_B.dtype, device=scores_B.device)
        return PreferenceLoss(_weighted(loss_N, weight_N, denominator), nothing, torch.tensor(0))
    better, worse = (list(side) for side in zip(*pairs, strict=True))
    gap_N = scores_B[better] - scores_B[worse]
    return PreferenceLoss(_weighted(loss_N, weight_N, denominator), *_agreement(gap_N, torch.ones_like(gap_N)))


def _choices(scores_B: Tensor, groups: Ranking, ties: RankingTies) -> Tensor:
    """The mean loss of the choices of one ranking."""
    terms: list[Tensor] = []
    left = [i for group in groups for i in group]
    count = 0
    for group in groups:
        below = left[len(group) :]
        if ties == "half":
            terms.append(_any_order(scores_B, list(group), below))
        elif below:
            terms += [scores_B[[i, *below]].logsumexp(0) - scores_B[i] for i in group]
            count += len(group)
        left = below
    count = len([i for group in groups for i in group]) - 1 if ties == "half" else count
    return torch.stack(terms).sum() / max(count, 1) if terms else scores_B.sum() * 0.0


def _any_order(scores_B: Tensor, group: list[int], below: list[int]) -> Tensor:
    """−log-likelihood of a group of equals, the mean over their orders: what is left after m of them is any m as likely."""
    loss = -scores_B[group].sum()
    for size in range(1, len(group) + 1):
        rest = [scores_B[[*some, *below]].logsumexp(0) for some in itertools.combinations(group, size)]
        loss = loss + torch.stack(rest).mean()
    return loss


def _first(scores_B: Tensor, groups: Ranking, ties: RankingTies) -> Tensor:
    best, below = list(groups[0]), [i for group in groups[1:] for i in group]
    if ties == "half":
        return scores_B[[*best, *below]].logsumexp(0) - scores_B[best].mean()
    return torch.stack([scores_B[[i, *below]].logsumexp(0) - scores_B[i] for i in best]).mean()
