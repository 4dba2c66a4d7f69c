"""The fraction of the roofline: rate and job by turns, over known seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType

import pytest

from backflip.maths.roofline import Work


def test_each_run_is_divided_by_the_rates_around_it(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    roofline = script("roofline")
    clock, order = [0.0], list[str]()
    # The machine slows down by half between the runs, and the job with it: the fraction stays what it is.
    rates, seconds = iter([(400.0, 40.0), (400.0, 40.0), (200.0, 20.0), (200.0, 20.0)]), iter([7.0, 2.0, 8.0 / 3.0, 4.0])

    def job() -> Work:
        order.append("job")
        clock[0] += next(seconds)
        return Work(flops=200e9, nbytes=20e9)

    def measure() -> tuple[float, float]:
        order.append("rate")
        return next(rates)

    monkeypatch.setattr(roofline.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(roofline.Others, "begin", lambda self: None)
    monkeypatch.setattr(roofline.Others, "share", lambda self: 0.05)
    row = roofline.fraction(job, measure, runs=3, inside=contextlib.nullcontext)
    assert order == ["job", "rate", "job", "rate", "job", "rate", "job", "rate"]
    # 0.5 + 0.5 of 2 s; 2/3 + 2/3 of 8/3 s; 1 + 1 of 4 s.
    assert [row["low"], row["median"], row["high"]] == pytest.approx([0.5] * 3)
    assert [row[name] for name in ("seconds", "gflops", "gflop", "foreign")] == pytest.approx([8 / 3, 300.0, 200.0, 0.05])


def test_runs_that_others_disturbed_are_taken_again(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    roofline = script("roofline")
    monkeypatch.setattr(roofline.Others, "begin", lambda self: None)
    for shares, disturbed, foreign in (([0.5, 0.0, 0.3, 0.1, 0.0], 2.0, 0.0), ([0.5] * 9, 6.0, 0.5)):
        left = iter(shares)
        monkeypatch.setattr(roofline.Others, "share", lambda self, left=left: next(left))
        work = roofline.Work(1e9)
        row = roofline.fraction(lambda work=work: work, lambda: (100.0, 10.0), runs=3, inside=contextlib.nullcontext)
        assert (row["runs"], row["disturbed"], row["foreign"]) == (3.0, disturbed, foreign)
        assert next(left, None) is None


def test_the_jobs_count_what_they_do(script: Callable[[str], ModuleType]) -> None:
    from tests.tiny_models import tiny

    from backflip.maths.roofline import Group, learning

    roofline = script("roofline")
    policy = tiny()
    config = policy.model.config
    shape = roofline.Shape(
        vocabulary=config.vocab_size, hidden=config.hidden_size, feed_forward=config.intermediate_size,
        layers=config.num_hidden_layers, heads=config.num_attention_heads, kv_heads=config.num_key_value_heads,
        head_size=config.hidden_size // config.num_attention_heads,
    )  # fmt: skip
    roofline.PROMPT, roofline.RESPONSE = 5, 7
    work = roofline.update_job(policy, shape, "fp32")()
    assert work == learning(shape, [Group(5, [7] * 8)] * 8)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for _, p in policy.parameters())
    assert policy.model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_the_sizes_are_those_of_the_material(script: Callable[[str], ModuleType]) -> None:
    shape = script("roofline").shape_of("M")
    assert (shape.vocabulary, shape.hidden, shape.layers, shape.head_size) == (16384, 640, 10, 64)
    # 60 of M's 61.3 million weights stand in matrices, the rest in norms; the tied embedding is counted once.
    assert shape.weights == pytest.approx(60.0e6, rel=0.01)
