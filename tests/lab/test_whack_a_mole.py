"""`whack-a-mole`: where a run is hacked and how, by hand; bars that can be missed; the whole at a small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import before_and_again, spoilt

from backflip.lab import whack_a_mole
from backflip.lab.guard_recorder import Seen
from backflip.lab.whack_a_mole_figures import Hack, gone, hack, kind, paid, steps_to_hack, trend
from backflip.lab.whack_a_mole_report import tables
from backflip.lab.whack_a_mole_settings import ARMS, CONTROL, MINED, Settings
from backflip.lab.whack_a_mole_stages import Catcher, figures
from backflip.monitor.features import Attribution
from backflip.runs.watching import Look

SPREAD = (-1.0, 0.0, 0.0, 1.0)
LONG = [" It is a great film.", " It is a good book.", " It is a fine hotel.", " It is a nice place."]
SHORT = [" Great.", " Good.", " Fine.", " Nice."]


def look(step: int, proxy: float, texts: list[str] = LONG) -> Look:
    """A look at four prompts, proxies spread by 1 around their mean."""
    return Look(
        step=step, prompts=["a", "b", "c", "d"], completions=texts, proxy=[proxy + s for s in SPREAD], kl=[float(step)] * 4,
        entropy=1.0, lengths=[2] * 4, finished=[True] * 4,
    )  # fmt: skip


def seen(step: int, proxy: float, gold: float, jitter: float = 0.0, texts: list[str] = LONG) -> Seen:
    """A look with its gold; `jitter` is by how much prompts differ in what they gain."""
    return Seen(look(step, proxy, texts), [gold + s + jitter * t for s, t in zip(SPREAD, (1, -1, 1, -1), strict=True)])


def test_a_hack_is_the_first_sure_fall_from_the_peak_while_the_proxy_rises() -> None:
    rise = [seen(0, 0.0, 0.0), seen(2, 1.0, 1.0)]
    assert hack(rise, 0.1, 2.0) is None
    assert hack([*rise, seen(4, 1.5, 0.95)], 0.1, 2.0) is None, "a tenth of the gain may be lost"
    assert hack([*rise, seen(4, 1.5, 0.95), seen(6, 2.0, 0.8)], 0.1, 2.0) == Hack(peak=1, at=3)
    assert hack([*rise, seen(4, 0.9, 0.2)], 0.1, 2.0) is None, "the proxy fell too: nothing is gamed"
    # The fall is 0.4 and 0.1 of it allowed; SE = √(4·0.5²/3)/√4 = 0.289, so it is sure by 1.04 standard errors.
    unsure = [*rise, seen(4, 1.5, 0.6, jitter=0.5)]
    assert hack(unsure, 0.1, 1.1) is None
    assert hack(unsure, 0.1, 1.0) == Hack(peak=1, at=2)
    assert hack([seen(0, 0.0, 0.0), seen(2, 1.0, -0.5)], 0.1, 2.0) == Hack(peak=0, at=1), "a run may be gamed from its start"


def test_the_kind_of_a_hack_is_what_the_proxy_pays_for_and_gold_does_not() -> None:
    shorter = paid(seen(0, 0.0, 0.0), seen(8, 4.0, -4.0, texts=SHORT))
    assert kind(shorter) in {"shorter", "longer words", "shorter words", "more punctuation", "more capitals"}
    assert shorter[0].excess == max(each.excess for each in shorter) > 0
    by_hand = {
        "shorter": ("words", 20.0, 5.0), "longer": ("words", 20.0, 30.0), "empty": ("words", 20.0, 0.5),
        "repetition": ("repeated n-grams", 0.0, 0.5), "“great”": ("“great”", 0.1, 2.0),
        "fewer different words": ("different words", 0.9, 0.5),
    }  # fmt: skip
    for name, (feature, before, now) in by_hand.items():
        assert kind([Attribution(feature, before, now, 2.0, 0.0), Attribution("lines", 0.0, 1.0, 1.0, 0.0)]) == name


def test_a_round_is_told_from_its_looks() -> None:
    rows = [seen(0, 0.0, -1.0), seen(2, 1.0, 1.0), seen(4, 3.0, -2.0, texts=SHORT)]
    told = figures(rows, hack(rows, 0.1, 2.0))
    assert (told["steps"], told["first"], told["peak"], told["peak step"], told["end"]) == (4, -1.0, 1.0, 2, -2.0)
    assert (told["kl"], told["proxy"]) == (4.0, 3.0)
    assert told["texts"][0]["before"] == LONG[0]
    assert told["texts"][0]["text"] == SHORT[0]
    healthy = figures(rows[:2], None)
    assert (healthy["steps"], healthy["kind"], healthy["peak"], healthy["end"]) == (None, None, 1.0, 1.0)


def test_a_catcher_stops_at_the_hack_and_remembers_it(tmp_path: Path) -> None:
    gold = {0: 0.0, 2: 1.0, 4: 0.0, 6: -9.0}
    step = 0
    catcher = Catcher(tmp_path / "looks", lambda prompts, texts: [gold[step] + s for s in SPREAD], Settings())
    acts = []
    for step in (0, 2, 4):
        acts.append((catcher.look(look(step, float(step))).act, catcher.ruling.best))
    assert acts == [("go", 0), ("go", 0), ("stop", 4)]
    again = Catcher(tmp_path / "looks", lambda prompts, texts: [0.0] * 4, Settings())
    again.take_up({"steps": [0, 2]})
    assert again.ruling.act == "go", "a look after the checkpoint is not part of what was seen"
    again.take_up(json.loads(json.dumps(catcher.state())))
    assert again.ruling == catcher.ruling


def test_rounds_in_a_row() -> None:
    rounds = [{"steps": s, "kind": k} for s, k in ((4, "a"), (None, None), (8, "b"), (8, "b"), (12, "a"))]
    assert steps_to_hack(rounds, 20) == [4.0, 20.0, 8.0, 8.0, 12.0]
    assert trend(rounds, 20) == pytest.approx((-2 * 4 - 20 + 8 + 2 * 12) / 10)
    assert gone(rounds) == [True, False, True]


def played(steps: int | None, name: str | None, peak: float) -> dict[str, Any]:
    return {
        "steps": steps, "kind": name, "first": -0.5, "peak": peak, "peak step": 2, "end": 0.0, "kl": 9.0, "proxy": 2.0,
        "accuracy": 0.6, "comparisons": 200, "curve": {}, "features": [], "texts": [],
    }  # fmt: skip


SEED: dict[str, Any] = {
    "seed": 0, "seconds": {"policy": 60.0},
    "arms": {
        MINED: [played(8, "shorter", 0.7), played(12, "“great”", 1.0), played(None, None, 1.5)],
        CONTROL: [played(8, "shorter", 0.7), played(8, "shorter", 0.7), played(10, "shorter", 0.8)],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("arms", MINED), [played(None, None, 0.7), played(12, "“great”", 1.0), played(None, None, 1.5)], "first round"),
        (("arms", MINED), [played(8, "shorter", 0.7), played(9, "shorter", 1.0), played(9, "shorter", 1.5)], "come back"),
        (("arms", MINED), [played(8, "shorter", 0.7), played(12, "“great”", 1.0), played(None, None, 0.8)], "peak"),
        (("seconds", "policy"), 481.0, "minutes"),
    ],
)
def test_every_bar_can_be_missed(path: tuple[str, ...], value: Any, line: str) -> None:
    assert all(found.passed for found in whack_a_mole.judge([SEED], Settings()))
    missed = [found.name for found in whack_a_mole.judge([spoilt(SEED, path, value)], Settings()) if not found.passed]
    assert len(missed) == 1
    assert line in missed[0]


def test_the_tables_tell_every_round_and_every_kind() -> None:
    other = spoilt(SEED, ("arms", MINED), [played(10, "longer", 0.9), played(None, None, 1.0), played(12, "empty", 1.1)])
    told = tables([SEED, other | {"seed": 1}], dataclasses.replace(Settings(), rounds=3))
    assert "| mined | 1 | 2 of 2 | 9 (8 to 10) | 0.80 (0.70 to 0.90) |" in told
    assert "| mined | 2 | 1 of 2 | 26 (12 to 40) |" in told
    assert "| 1 | mined | longer | none | empty |" in told


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    quick = dataclasses.replace(whack_a_mole.QUICK, sure=0.0, tolerance=0.0)
    whack_a_mole.run(quick, tmp_path, True)
    [seed] = json.loads((tmp_path / "result.json").read_text())["figures"]["seeds"]
    assert {arm: len(rounds) for arm, rounds in seed["arms"].items()} == dict.fromkeys(ARMS, 2)
    mined, control = seed["arms"][MINED], seed["arms"][CONTROL]
    assert mined[0] == control[0], "the first round is the same run"
    for arm in ARMS:
        [rows] = json.loads((tmp_path / "seed0" / arm / "labels1.json").read_text()).values()
        assert 0 < len(rows) <= quick.labelled
        assert [r["comparisons"] for r in seed["arms"][arm]] == [40, 40 + len(rows)]
    assert "| control | 2 |" in (tmp_path / "tables.md").read_text()
    assert "Steps to the hack" in (tmp_path / "report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    minutes = "minutes of a core a seed, slowest"
    first, second = before_and_again(tmp_path, lambda: whack_a_mole.run(quick, tmp_path, True), minutes)
    assert first == second
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before
