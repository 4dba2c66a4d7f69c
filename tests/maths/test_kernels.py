"""Kernels with gradients written out, against what autograd makes of the plain formulas, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from backflip.maths import kernels

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5))


def plain_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


ANGLES = torch.linspace(0, 3, 5, dtype=torch.float64).view(5, 1, 1) * torch.tensor([1.0, 0.3, 0.1] * 2, dtype=torch.float64)

CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]] = {
    "norm": (lambda x, w: kernels.rms_norm(x, w, 1e-5), plain_norm, [random(5, 3, 6), random(6, seed=1)]),
    "swiglu": (kernels.swiglu, lambda g, u: functional.silu(g) * u, [random(7, 5), random(7, 5, seed=1)]),
    "rotation": (
        lambda x: kernels.rotate(x, ANGLES.cos(), ANGLES.sin()),
        lambda x: plain_rotation(x, ANGLES.cos(), ANGLES.sin()),
        [random(5, 2, 6)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_plain_formula(name: str) -> None:
    ours, plain, inputs = CASES[name]
    torch.testing.assert_close(ours(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # which goes another way, and leaves what it is given alone
        before = [x.clone() for x in inputs]
        torch.testing.assert_close(ours(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    weight = random(*plain(*inputs).shape, seed=9).detach()
    found = torch.autograd.grad((ours(*inputs) * weight).sum(), inputs)
    expected = torch.autograd.grad((plain(*inputs) * weight).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(ours, tuple(inputs))


@pytest.mark.parametrize("name", CASES)
def test_a_backward_pass_can_be_repeated(name: str) -> None:
    ours, _, inputs = CASES[name]
    out = ours(*inputs).square().sum()
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(out, inputs), strict=True):
        assert torch.equal(a, b)


def test_the_norm_of_half_precision_is_taken_in_float32() -> None:
    x = (random(4, 64, dtype=torch.float32) * 300).detach().bfloat16()
    weight = torch.ones(64, dtype=torch.bfloat16)
    normed = kernels.rms_norm(x, weight, 1e-6)
    assert normed.dtype == torch.bfloat16
    exact = plain_norm(x.double(), weight.double())
    torch.testing.assert_close(normed.double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("chunk", [1, 26, 27, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_from_hidden_states_whatever_the_chunk(chunk: int, temperature: float) -> None:
    x, weight = random(11, 6), random(13, 6, seed=1)
    tokens = torch.tensor([0, 12, 3, 3, 7, 1, 2, 0, 11, 5, 6])
    given = random(11, seed=3).detach()

    def plain() -> tuple[Tensor, Tensor]:
        logps = (x @ weight.T / temperature).log_softmax(-1)
        return logps.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(logps.exp() * logps).sum(-1)

    logps, entropy = kernels.head_logps(x, weight, tokens, temperature=temperature, chunk=chunk)
    torch.testing.assert_close(logps, plain()[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, plain()[1], rtol=1e-12, atol=1e-12)
    for scale in ((1.0, 0.0), (0.0, 1.0), (0.3, -2.0)):  # a loss of either, and of both
        found = torch.autograd.grad(((scale[0] * logps + scale[1] * entropy) * given).sum(), (x, weight), retain_graph=True)
        logp, spread = plain()
        expected = torch.autograd.grad(((scale[0] * logp + scale[1] * spread) * given).sum(), (x, weight))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    alone = torch.autograd.grad((entropy * given).sum(), x)[0]  # no gradient of log p asked for at all
    torch.testing.assert_close(alone, torch.autograd.grad((plain()[1] * given).sum(), x)[0], rtol=1e-10, atol=1e-12)


def test_a_frozen_head_and_no_positions_at_all() -> None:
    x, weight = random(3, 4), random(5, 4, seed=1).detach()
    logps, _ = kernels.head_logps(x, weight, torch.tensor([0, 1, 2]))
    (gradient,) = torch.autograd.grad(logps.sum(), x)
    assert torch.isfinite(gradient).all()
    assert weight.grad is None
    none, _ = kernels.head_logps(x[:0], weight, torch.zeros(0, dtype=torch.long))
    assert none.shape == (0,)
    with pytest.raises(ValueError, match="above 0"):
        kernels.head_logps(x, weight, torch.tensor([0, 1, 2]), temperature=0.0)


def test_a_large_vocabulary_is_never_held_whole() -> None:
    """The largest tensor made while scoring is a chunk of logits, not all of them."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dim() == 2 and out.shape[-1] == 500:
                largest = max(largest, out.numel())
            return out

    x, weight = random(64, 8), random(500, 8, seed=1)
    with Watch():
        kernels.head_logps(x, weight, torch.arange(64), chunk=5000)
    assert 0 < largest <= 5000
