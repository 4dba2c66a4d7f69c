"""AdamW with both conventions for ε, and the schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from backflip.settings import Optim
from backflip.train.optim import AdamW, learning_rate

torch.set_num_threads(1)


def made(dtype: torch.dtype) -> tuple[list[tuple[str, nn.Parameter]], list[list[torch.Tensor]]]:
    """Two parameters and fifty gradients for each, of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (7,)]
    parameters = [(f"p{i}", nn.Parameter(torch.randn(s, generator=generator, dtype=dtype))) for i, s in enumerate(shapes)]
    gradients = [[torch.randn(s, generator=generator, dtype=dtype) * 10.0 ** -(step % 7) for s in shapes] for step in range(50)]
    return parameters, gradients


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "eps": 1e-3, "betas": (0.8, 0.95)}])
def test_the_torch_convention_is_torchs_adamw(dtype: torch.dtype, atol: float, options: dict[str, Any]) -> None:
    ours, gradients = made(dtype)
    theirs, _ = made(dtype)
    optimizer = AdamW(ours, eps_convention="torch", **({"weight_decay": 0.0} | options))
    reference = torch.optim.AdamW([p for _, p in theirs], lr=1.0, **({"weight_decay": 0.0} | options))
    for step, grads in enumerate(gradients):
        rate = 0.01 * (1 - step / 50)
        for (_, a), (_, b), grad in zip(ours, theirs, grads, strict=True):
            a.grad, b.grad = grad.clone(), grad.clone()
        for group in reference.param_groups:
            group["lr"] = rate
        optimizer.step(rate)
        reference.step()
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_the_tensorflow_convention_is_the_formula_in_plain_python() -> None:
    parameters, gradients = made(torch.float64)
    optimizer = AdamW(parameters, eps=1e-5, eps_convention="tensorflow")
    values = [p.flatten().tolist() for _, p in parameters]
    m = [[0.0] * len(v) for v in values]
    v = [[0.0] * len(x) for x in values]
    for t, grads in enumerate(gradients, start=1):
        rate = 0.01
        for (_, p), grad in zip(parameters, grads, strict=True):
            p.grad = grad.clone()
        optimizer.step(rate)
        scale = rate * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for i, grad in enumerate(grads):
            for j, g in enumerate(grad.flatten().tolist()):
                m[i][j] = 0.9 * m[i][j] + 0.1 * g
                v[i][j] = 0.999 * v[i][j] + 0.001 * g * g
                values[i][j] -= scale * m[i][j] / (math.sqrt(v[i][j]) + 1e-5)
    for (_, p), expected in zip(parameters, values, strict=True):
        assert p.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_the_conventions_agree_once_the_bias_is_gone() -> None:
    # ε_torch = ε̂ / √c₂, and c₂ → 1.
    steps = {}
    for convention in ("torch", "tensorflow"):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = AdamW([("w", weight)], betas=(0.5, 0.5), eps=0.1, eps_convention=convention)  # type: ignore[arg-type]
        sizes = []
        for _ in range(60):
            before = weight.item()
            weight.grad = torch.full_like(weight, 0.1)
            optimizer.step(1.0)
            sizes.append(before - weight.item())
        steps[convention] = sizes
    assert steps["torch"][0] > 1.1 * steps["tensorflow"][0]
    assert steps["torch"][-1] == pytest.approx(steps["tensorflow"][-1], rel=1e-9)


def test_weight_decay_is_decoupled() -> None:
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = AdamW([("w", weight)], weight_decay=0.1)
    weight.grad = torch.zeros_like(weight)
    optimizer.step(0.5)
    assert weight.item() == pytest.approx(2.0 * (1 - 0.5 * 0.1), rel=1e-12)


def test_a_parameter_without_a_gradient_stays() -> None:
    (name, one), (_, two) = made(torch.float64)[0]
    before = one.detach().clone()
    optimizer = AdamW([(name, one), ("two", two)], weight_decay=0.5)
    two.grad = torch.ones_like(two)
    optimizer.step(0.1)
    assert torch.equal(one, before)
    assert optimizer.m[name].abs().max() == 0
    optimizer.zero_grad()
    after = two.detach().clone()
    optimizer.step(0.1)
    assert torch.equal(two, after)
    assert optimizer.t == 2


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    straight, gradients = made(torch.float32)
    broken, _ = made(torch.float32)
    first, second = (AdamW(p, eps_convention="tensorflow") for p in (straight, broken))
    for step, grads in enumerate(gradients[:10]):
        if step == 5:
            state = {k: x.clone() for k, x in second.state().items()}
            second = AdamW(broken, eps_convention="tensorflow")
            second.load(state)
        for (_, a), (_, b), grad in zip(straight, broken, grads, strict=True):
            a.grad, b.grad = grad.clone(), grad.clone()
        first.step(0.01)
        second.step(0.01)
    for (_, a), (_, b) in zip(straight, broken, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(KeyError):
        second.load({"t": torch.tensor(1)})


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("linear", 0, [1.0, 0.75, 0.5, 0.25]),
        ("linear", 2, [0.5, 1.0, 1.0, 0.5]),
        ("cosine", 0, [1.0, 0.5 + 0.25 * 2**0.5, 0.5, 0.5 - 0.25 * 2**0.5]),
        ("constant", 0, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 4, [0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_schedules(schedule: Any, warmup: int, expected: list[float]) -> None:
    settings = Optim(learning_rate=2.0, lr_schedule=schedule, warmup_steps=warmup)
    assert [learning_rate(settings, k, 4) for k in range(4)] == pytest.approx([2.0 * e for e in expected])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3, 30])
def test_the_rate_is_never_negative_nor_above_its_peak(schedule: Any, warmup: int) -> None:
    settings = Optim(learning_rate=0.1, lr_schedule=schedule, warmup_steps=warmup)
    rates = [learning_rate(settings, k, 20) for k in range(40)]
    assert all(0 <= rate <= 0.1 + 1e-15 for rate in rates)


def test_parameters_of_several_devices_are_updated_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[set[torch.device]] = []
    monkeypatch.setattr(
        torch, "_fused_adamw_", lambda *lists, **options: calls.append({t.device for tensors in lists for t in tensors})
    )
    parameters = [(str(i), torch.nn.Parameter(torch.ones(2, device=device))) for i, device in enumerate(("cpu", "meta", "cpu"))]
    for _, parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    AdamW(parameters).step(0.1)
    assert calls == [{torch.device("cpu")}, {torch.device("meta")}]
