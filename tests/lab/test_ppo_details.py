"""`ppo-details`: each variant breaks one thing, figures are read off by hand, and the whole of it at a very small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backflip.config import leaves
from backflip.lab import ppo_details
from backflip.lab.ppo_details_settings import WHOLE, Settings
from backflip.settings import Online


def test_each_variant_breaks_one_thing() -> None:
    variants = Settings().variants()
    whole = {leaf.dotted: leaf.default for leaf in leaves(Online, variants[WHOLE])}
    for name, online in list(variants.items())[1:]:
        own = {leaf.dotted: leaf.default for leaf in leaves(Online, online)}
        changed = {key for key, value in own.items() if value != whole[key]}
        assert len(changed) == (2 if name == "no KL penalty" else 1), (name, changed)


def test_gold_is_read_where_the_kl_is_in_its_band() -> None:
    curve = {
        "kl": [0.0, 3.0, 5.5, 6.5, 8.0], "gold": [0.0, 1.0, 2.0, 4.0, 9.0], "proxy": [0.0, 1.0, 1.5, 2.5, 3.0],
        "approxkl": [0.1, 0.3, 1.0, 1.0, 1.0], "clipfrac": [0.2, 0.4, 1.0, 1.0, 1.0], "ratio": [0.5, 0.7, 9.0, 9.0, 9.0],
    }  # fmt: skip
    found = ppo_details.read_off(curve, Settings(first=2))
    assert found == {
        "gold": 3.0, "proxy": 2.0, "steps inside": 2.0, "first gold": 0.0, "last gold": 9.0, "last kl": 8.0,
        "approxkl": pytest.approx(0.2), "clipfrac": pytest.approx(0.3), "ratio": 0.7,
    }  # fmt: skip
    assert ppo_details.read_off(curve, Settings(kl_low=9, kl_high=10))["gold"] is None


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [WHOLE, "Adam's ε as PyTorch has it", "no KL penalty"]
    variants = Settings.variants
    monkeypatch.setattr(Settings, "variants", lambda self: {name: variants(self)[name] for name in names})
    ppo_details.run(ppo_details.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["accept"]) == 6
    [seed] = result["figures"]["seeds"]
    assert list(seed["variants"]) == names
    assert all(len(v["curve"]["gold"]) == 2 for v in seed["variants"].values())
    firsts = {v["first gold"] for v in seed["variants"].values()}
    assert len(firsts) == 1, "all draw the same samples in their first step"
    assert "never there" in (tmp_path / "report.html").read_text() or seed["variants"][WHOLE]["gold"] is not None
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    ppo_details.run(ppo_details.QUICK, tmp_path, True)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before
