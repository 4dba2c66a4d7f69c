from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.kl import abs_kl, adaptive_kl_coef, exact_kl, k1, k2, k3, k3_plus, kl_penalty

finite = st.floats(-5.0, 5.0)


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def test_estimators_by_hand() -> None:
    logp, ref_logp = scalar(math.log(0.5)), scalar(math.log(0.25))
    gap = math.log(2.0)
    expected = {"k1": gap, "k2": gap**2 / 2, "k3": 0.5 - 1 + gap, "k3+": 0.5 - 1 + gap, "abs": gap}
    for kind, value in expected.items():
        assert kl_penalty(logp, ref_logp, kind).item() == pytest.approx(value, abs=1e-15)  # type: ignore[arg-type]
    assert abs_kl(ref_logp, logp).item() == pytest.approx(gap)


@given(logp=finite, ref_logp=finite)
def test_k3_is_never_negative_and_zero_only_at_home(logp: float, ref_logp: float) -> None:
    value = k3(scalar(logp), scalar(ref_logp)).item()
    assert value >= 0.0
    assert k3(scalar(logp), scalar(logp)).item() == 0.0
    if abs(logp - ref_logp) > 1e-6:
        assert value > 0.0


def test_k3_keeps_its_digits_near_zero() -> None:
    assert k3(scalar(1e-9), scalar(0.0)).item() == pytest.approx(0.5e-18, rel=1e-6, abs=1e-26)


@given(logp=finite, ref_logp=finite)
def test_k3_plus_has_the_value_of_k3_and_the_gradient_of_k2(logp: float, ref_logp: float) -> None:
    x, y, ref = scalar(logp), scalar(logp), scalar(ref_logp)
    plus = k3_plus(x, ref)
    plus.backward()
    k2(y, ref).backward()
    assert plus.item() == pytest.approx(k3(x, ref).item(), abs=1e-12)
    assert x.grad == y.grad


def test_the_estimators_average_to_the_exact_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_V, ref_V = torch.randn(2, 1, 1, 6, generator=generator, dtype=torch.float64).unbind(0)
    logp_V, ref_logp_V = logits_V.log_softmax(-1), ref_V.log_softmax(-1)
    truth = torch.nn.functional.kl_div(ref_logp_V, logp_V, log_target=True, reduction="sum").item()
    assert exact_kl(logits_V, ref_V).item() == pytest.approx(truth, abs=1e-14)
    for estimator in (k1, k3):
        assert (logp_V.exp() * estimator(logp_V, ref_logp_V)).sum().item() == pytest.approx(truth, abs=1e-14)


def test_exact_kl_with_forbidden_tokens() -> None:
    never = -torch.inf
    logits_V = torch.tensor([[[0.0, 0.0, never]]], dtype=torch.float64, requires_grad=True)
    ref_V = torch.tensor([[[0.0, 0.0, 0.0]]], dtype=torch.float64)
    kl = exact_kl(logits_V, ref_V)
    assert kl.item() == pytest.approx(math.log(1.5))
    kl.sum().backward()
    assert logits_V.grad is not None
    assert logits_V.grad.isfinite().all()
    assert exact_kl(logits_V, logits_V.detach()).item() == 0.0
    assert exact_kl(ref_V, logits_V.detach()).item() == math.inf


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.15),
        (6.6, 0.15 * (1 + 0.1 * 256 / 10_000)),
        (60.0, 0.15 * (1 + 0.2 * 256 / 10_000)),
        (0.0, 0.15 * 0.99488),
    ],
)
def test_the_controller_by_hand(kl: float, expected: float) -> None:
    assert adaptive_kl_coef(0.15, kl, target=6.0, horizon=10_000, n=256) == pytest.approx(expected, rel=1e-12)


def test_the_controller_settles_on_its_target() -> None:
    coef = 0.15
    for _ in range(3000):
        coef = adaptive_kl_coef(coef, 1.2 / coef, target=6.0, horizon=10_000, n=512)
    assert 1.2 / coef == pytest.approx(6.0, rel=1e-3)


def test_the_controller_and_dispatcher_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="above 0"):
        adaptive_kl_coef(0.1, 1.0, target=0.0, horizon=10, n=1)
    with pytest.raises(ValueError, match="KL to the reference is nan"):
        adaptive_kl_coef(0.1, math.nan, target=1.0, horizon=10, n=1)
    with pytest.raises(ValueError, match=r"unknown KL estimator 'k4'.*k3\+"):
        kl_penalty(scalar(0.0), scalar(0.0), "k4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same shape"):
        k1(torch.zeros(2), torch.zeros(3))
