"""`goodhart`: its bars by hand, and the whole of it at a small size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import spoilt

from backflip.lab import goodhart, goodhart_stages
from backflip.lab.goodhart_settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run."""
    folder = tmp_path_factory.mktemp("goodhart")
    goodhart.run(goodhart.QUICK, folder, True)
    return folder


def result(folder: Path) -> dict[str, Any]:
    """What the run left."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_the_printed_digits(folder: Path) -> None:
    worlds = result(folder)["figures"]["worlds"]
    told = {name: (world["peak n"], round(world["peak"], 2)) for name, world in worlds.items()}
    assert told["Student t(3)"] == (22, 0.88)
    assert told["Student t(2)"] == (12, 0.70)
    assert told["rare hack"] == (55, 1.56)
    assert round(worlds["rare hack"]["at"]["1000"], 2) == -1.22
    assert round(worlds["Gaussian"]["at"]["1000"], 2) == 2.29
    assert round(worlds["Gaussian"]["forms"]["best of n"]["beta"], 2) == -0.02
    assert worlds["Gaussian"]["peak n"] == goodhart.QUICK.most, "nothing is over-optimised"


def test_numbers_go_from_one_to_the_most() -> None:
    ns = goodhart_stages.numbers(Settings(most=30_000))
    assert (ns[0], ns[-1]) == (1, 30_000)
    assert ns == sorted(set(ns))
    assert set(goodhart_stages.sampled_at(Settings(most=300))) == {2, 13, 20, 48, 64, 300}


def test_bars_are_missed_by_what_they_forbid(folder: Path) -> None:
    figures = result(folder)["figures"]
    earlier = goodhart_stages.EARLIER

    def missed(worlds: dict[str, Any], old: Any = earlier) -> list[str]:
        lines = goodhart.judge(worlds, figures["seeds"], figures["errors"], old)
        return [line.name.split(":")[0].split(",")[0] for line in lines if not line.passed]

    assert missed(figures["worlds"]) == []
    gold = figures["worlds"]["Gaussian"]["gold"]
    falls = spoilt(figures["worlds"], ("Gaussian", "gold"), [*gold[:-1], gold[-2] - 0.01])
    assert missed(falls) == ["Gaussian"]
    assert missed(spoilt(figures["worlds"], ("Student t(3)", "peak"), 0.885)) == ["t(3)"]
    assert missed(spoilt(figures["worlds"], ("rare hack", "forms", "reinforcement", "miss"), 0.1)) == ["rare hack"]
    assert missed(figures["worlds"], {"Student t(2)": {13: 0.9}}) == ["figures from an earlier sample"]
    # 0.9 instead of 0.6970 is as far as it is, less half a digit, in standard errors of that n.
    away = abs(0.9 - figures["worlds"]["Student t(2)"]["at"]["13"]) - 0.005
    found = goodhart.furthest(figures["worlds"], figures["errors"], {"Student t(2)": {13: 0.9}})
    assert found == pytest.approx(away / figures["errors"]["Student t(2)"]["13"])


def test_it_is_told_with_tables_and_only_told_again(folder: Path) -> None:
    tables = (folder / "tables.md").read_text()
    assert "| Student t(3) | peak | 22 | 1.46 | +0.87" in tables
    assert "Goodhart" in (folder / "report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in folder.glob("seed*/*.json")}
    assert len(before) == 2 * 5
    first = result(folder)
    goodhart.run(goodhart.QUICK, folder, True)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("seed*/*.json")} == before
    assert result(folder) == first
