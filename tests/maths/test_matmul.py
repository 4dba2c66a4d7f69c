"""The choice of a library for float32 products: what speaks for it, and that it changes speed only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.maths import matmul
from backflip.maths.matmul import Rates

torch.set_num_threads(1)

needs_switch = pytest.mark.skipif(not matmul.available(), reason="this PyTorch has no switch for float32 products")


def flag() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("rates", "choice"),
    [
        (Rates(180, 380, 4e-7, 4e-7), "onednn"),
        (Rates(180, 380, 4e-7, 12e-7), "onednn"),
        (Rates(180, 380, 4e-7, 3e-3), "stock"),  # bfloat16 inside
        (Rates(180, 200, 4e-7, 4e-7), "stock"),  # not worth it
        (Rates(380, 180, 4e-7, 4e-7), "stock"),
        (Rates(1, 0, 0, float("inf")), "stock"),  # nothing to measure
    ],
)
def test_the_faster_library_is_taken_only_when_it_is_as_precise(
    rates: Rates, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    assert matmul.choose(rates) == choice
    for forced in ("stock", "onednn"):
        monkeypatch.setenv(matmul.VARIABLE, forced)
        assert matmul.choose(rates) == forced
    monkeypatch.setenv(matmul.VARIABLE, "mkl")
    with pytest.raises(ValueError, match="'stock' or 'onednn', not 'mkl'"):
        matmul.choose(rates)


def test_what_is_measured_is_a_measurement() -> None:
    before = flag() if matmul.available() else None
    rates = matmul.measure()
    assert 0 < rates.stock_gflops < 1e6
    if matmul.available():
        assert 0 < rates.onednn_gflops < 1e6
        assert 0 < rates.stock_error < 1e-5
        assert flag() == before


def test_without_the_switch_everything_stays_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "available", lambda: False)
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    assert matmul.choose(matmul.measure()) == "stock"
    with matmul.use("onednn"):
        assert not matmul.enabled()
        matmul.switch(False)
        x, w = torch.randn(2, 3), torch.randn(4, 3)
        torch.testing.assert_close(matmul.linear(x, w, None), x @ w.T)


@needs_switch
def test_blocks_nest_and_always_put_back_what_they_found() -> None:
    assert not matmul.enabled()
    before = flag()

    def inside() -> None:
        with matmul.use("onednn"):
            assert flag() == "bf16"
            with matmul.use("stock"):  # the outer block decides
                assert matmul.enabled()
                assert flag() == "bf16"
            with matmul.stock():
                assert flag() == "ieee"
                matmul.linear(torch.randn(512, 128), torch.randn(512, 128), None)
                assert flag() == "ieee"
            assert flag() == "bf16"
            matmul.switch(False)
            assert flag() == "ieee"
            raise RuntimeError("out of the block")

    with matmul.use("stock"):
        assert flag() == before
    with pytest.raises(RuntimeError, match="out of the block"):
        inside()
    assert flag() == before
    assert not matmul.enabled()
    matmul.switch(True)
    assert flag() == before


@needs_switch
@pytest.mark.parametrize(("rows", "bias"), [(1, True), (1, False), (700, True), (700, False)])
def test_products_are_the_same_to_the_last_digits(rows: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 96, generator=generator) for n in (rows, 300))
    b = torch.randn(300, generator=generator) if bias else None
    expected = (x.double() @ w.double().T + (b.double() if b is not None else 0)).float()
    with matmul.use("onednn" if matmul.choose(matmul.measure()) == "onednn" else "stock"), matmul.stock():
        found = matmul.linear(x, w, b)
        torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)
        with pytest.raises(RuntimeError):
            matmul.linear(x, w[:, :5], b)
        if matmul.enabled():
            assert flag() == "ieee"


@needs_switch
def test_memory_is_given_back_only_while_onednn_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(matmul, "_TRIM", calls.append)
    matmul.tidy()
    assert calls == []
    with matmul.use("onednn"):
        matmul.tidy()
    assert calls == [0]
    monkeypatch.setattr(matmul, "_TRIM", None)  # a C library without the call
    with matmul.use("onednn"):
        matmul.tidy()


@pytest.mark.parametrize("rows", [5, 16, 48, 49, 56, 63, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_upright_products_are_the_same_and_stand(rows: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 300, generator=generator) for n in (rows, 280))
    b = torch.randn(280, generator=generator) if bias else None
    expected = (x.double() @ w.double().T + (b.double() if b is not None else 0)).float()
    with matmul.use("stock", upright=64), torch.no_grad():
        for given in (x, matmul.erect(x)):
            found = matmul.linear(given, w, b)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
            assert found.stride() == (1, rows)
    assert matmul.erect(x).stride() == (1, rows)
    assert torch.equal(matmul.erect(x), x)


def test_only_few_rows_nobody_differentiates_stand() -> None:
    w = torch.randn(300, 300, requires_grad=True)
    with matmul.use("stock", upright=48):
        assert not matmul.stands(16, 300)  # gradients are wanted
        matmul.linear(torch.randn(16, 300), w, None).sum().backward()
        assert w.grad is not None
        with torch.no_grad():
            assert [rows for rows in range(1, 100) if matmul.stands(rows, 300)] == list(range(matmul.FEWEST, 49))
            assert not matmul.stands(16, matmul.WIDE - 1)
            assert matmul.linear(torch.randn(16, 300).double(), w.double(), None).stride() == (300, 1)
            assert matmul.linear(torch.randn(2, 8, 300), w, None).shape == (2, 8, 300)
            with matmul.use("stock"):  # the outer block decides
                assert matmul.stands(16, 300)
    with torch.no_grad():
        assert not matmul.stands(16, 300)


@pytest.mark.parametrize(
    ("gains", "rows"),
    [((2, 2, 2), 64), ((2, 2, 1), 48), ((2, 1, 2), 0), ((1, 2, 2), 0), ((1.1, 1.1, 1.1), 0)],
)
def test_rows_stand_where_it_is_measured_to_be_faster(
    gains: tuple[float, ...], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([x for gain in gains for x in (gain, 1.0)])
    monkeypatch.setattr(matmul, "shortest", lambda work, times: (work(), next(seconds))[1])
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    assert matmul.upright_rows("stock") == rows
    monkeypatch.setenv(matmul.VARIABLE, "stock")
    assert matmul.upright_rows("stock") == 0


needs_packing = pytest.mark.skipif(not matmul._packs(), reason="this CPU or this PyTorch packs no bfloat16 matrices")


@needs_packing
@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 90), st.integers(1, 90), st.booleans())
def test_a_packed_matrix_gives_the_same_bits(rows: int, k: int, n: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(rows * 8281 + k * 91 + n)
    x, w, b = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((rows, k), (n, k), (n,)))
    bias = b if biased else None
    tight = matmul.packed(w)
    assert tight is not None
    # Small products may be summed in another order by the plain way, so one rounding of bfloat16 is allowed.
    torch.testing.assert_close(
        matmul.packed_linear(x, tight, bias).float(), torch.nn.functional.linear(x, w, bias).float(), rtol=2**-7, atol=2**-5
    )


@needs_packing
def test_a_packed_matrix_takes_any_leading_shape() -> None:
    x, w = torch.randn(3, 5, 32).bfloat16(), torch.randn(24, 32).bfloat16()
    tight = matmul.packed(w)
    assert tight is not None
    assert matmul.packed_linear(x, tight, None).shape == (3, 5, 24)
    assert torch.equal(matmul.packed_linear(x.transpose(0, 1), tight, None), matmul.packed_linear(x, tight, None).transpose(0, 1))


def test_only_bfloat16_is_packed_and_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert matmul.packed(torch.randn(4, 4)) is None
    monkeypatch.setattr(matmul, "_packs", lambda: False)
    assert matmul.packed(torch.randn(4, 4).bfloat16()) is None


def test_completions_are_the_same_with_and_without_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_models import QUERIES, tiny

    from backflip.rollout.local import generate
    from backflip.seeds import Seeds
    from backflip.settings import Sampling

    sampling = Sampling(temperature=1.0, max_new_tokens=12, precision="bfloat16")
    packed = generate(tiny(), QUERIES * 4, sampling, seeds=Seeds(0))
    monkeypatch.setattr(matmul, "packed", lambda weight: None)
    plain = generate(tiny(), QUERIES * 4, sampling, seeds=Seeds(0))
    assert torch.equal(packed.tokens.response_BT, plain.tokens.response_BT)
    torch.testing.assert_close(packed.logps_BT, plain.logps_BT, atol=2e-2, rtol=0)
