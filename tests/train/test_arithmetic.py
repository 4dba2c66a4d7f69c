"""A run measures once, writes down what it found, and keeps to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny_models import tiny  # noqa: F401  (sets the number of threads)

from backflip.errors import ConfigError, DataError
from backflip.maths import matmul
from backflip.maths.matmul import Rates
from backflip.runs import Run
from backflip.train.arithmetic import NAME, fast_matmul

FAST, SLOW = Rates(100, 300, 4e-7, 4e-7), Rates(100, 90, 4e-7, 4e-7)


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    monkeypatch.setattr(matmul, "upright_rows", {"onednn": 48, "stock": 64}.__getitem__)


@pytest.mark.skipif(not matmul.available(), reason="this PyTorch has no switch for float32 products")
def test_a_resumed_run_keeps_its_library_whatever_is_measured_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "measure", lambda: FAST)
    with Run.open(tmp_path / "run", kind="sft", settings={}, quiet=True) as run, fast_matmul(run):
        assert matmul.enabled()
        with Run.open(tmp_path / "run" / "inner", kind="sft", settings={}, quiet=True) as inner, fast_matmul(inner):
            assert matmul.enabled()
        assert not (inner.folder / NAME).exists()
    assert not matmul.enabled()
    assert json.loads((run.folder / NAME).read_text()) == {"choice": "onednn", "upright": 48} | FAST._asdict()
    monkeypatch.setattr(matmul, "measure", lambda: SLOW)
    monkeypatch.setenv(matmul.VARIABLE, "stock")
    with Run.open(tmp_path / "run", kind="sft", settings={}, quiet=True) as run, fast_matmul(run):
        assert matmul.enabled()


def test_the_stock_library_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "measure", lambda: SLOW)
    for _ in range(2):
        with Run.open(tmp_path / "run", kind="sft", settings={}, quiet=True) as run, fast_matmul(run):
            assert not matmul.enabled()
            with torch.no_grad():
                assert matmul.stands(64, 512)
            monkeypatch.setattr(matmul, "measure", lambda: pytest.fail("measured again inside a run"))
            with Run.open(tmp_path / "run" / "inner", kind="sft", settings={}, quiet=True) as inner, fast_matmul(inner):
                assert not (inner.folder / NAME).exists()
        monkeypatch.setattr(matmul, "measure", lambda: FAST)
        monkeypatch.setattr(matmul, "upright_rows", lambda choice: 0)


def test_a_run_begun_by_an_older_backflip_goes_on_as_it_began(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", kind="sft", settings={}, quiet=True) as run:
        (run.folder / NAME).write_text('{"choice": "stock"}')
        with fast_matmul(run), torch.no_grad():
            assert not any(matmul.stands(rows, 512) for rows in range(100))


def test_a_wrong_variable_and_a_damaged_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(tmp_path / "run", kind="sft", settings={}, quiet=True) as run:
        monkeypatch.setenv(matmul.VARIABLE, "fast")
        with pytest.raises(ConfigError, match="not 'fast'"), fast_matmul(run):
            pass
        for text in ('{"choice": "other"}', '{"choice": "stock", "upright": "many"}', "{}", "["):
            (run.folder / NAME).write_text(text)
            with pytest.raises(DataError, match=r"matmul\.json"), fast_matmul(run):
                pass


@pytest.mark.skipif(not matmul.available(), reason="this PyTorch has no switch for float32 products")
def test_without_a_run_the_decision_is_made_for_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for rates, fast in ((FAST, True), (SLOW, False)):
        monkeypatch.setattr(matmul, "measure", lambda rates=rates: rates)
        with fast_matmul(None):
            assert matmul.enabled() is fast
        assert not matmul.enabled()
    monkeypatch.setenv(matmul.VARIABLE, "fast")
    with pytest.raises(ConfigError, match="not 'fast'"), fast_matmul(None):
        pass
