"""`guard`: its rules on runs written by hand, what is read off them, and the whole of it at a very small size."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backflip.errors import ConfigError
from backflip.lab import guard
from backflip.lab.guard_figures import Raised, counts, overoptimised, raised, share_kept
from backflip.lab.guard_recorder import Recorder, read
from backflip.lab.guard_rules import alarms, by_kl, ensemble_opinion, monitor, nothing, patient, proxy_opinion, rules
from backflip.lab.guard_settings import ASKING, HELD, HONEST, LEFT_ALONE, Settings
from backflip.records import Query
from backflip.runs.watching import Look
from backflip.settings import Watch


def nobody(queries: Sequence[Query]) -> list[float | None]:
    """Nobody answers."""
    return [None] * len(queries)


def look(step: int, proxy: float, kl: float, *judges: float) -> Look:
    """A look at four prompts, scores spread by 1 around their means."""
    spread = [-1.0, 0.0, 0.0, 1.0]
    return Look(
        step=step, prompts=["a", "b", "c", "d"], completions=[f"{step} {c}" for c in "wxyz"], proxy=[proxy + s for s in spread],
        kl=[kl] * 4, entropy=1.0, lengths=[2] * 4, finished=[True] * 4,
        judges={f"judge {k}": [mean + s for s in spread] for k, mean in enumerate(judges)},
    )  # fmt: skip


def test_no_guard_keeps_the_last_and_a_budget_the_one_before_it_is_spent() -> None:
    looks = [look(5 * i, 0.1 * i, 2.0 * i) for i in range(6)]
    assert nothing(looks) == (None, 5)
    assert by_kl(5.0)(looks) == (3, 2)
    assert by_kl(50.0)(looks) == (None, 5)
    assert by_kl(-1.0)(looks) == (0, 0)


def test_patience_by_hand() -> None:
    looks = [look(i, proxy, 0.0) for i, proxy in enumerate((0.0, 1.0, 0.9, 1.1, 1.0, 0.9, 0.8))]
    assert patient(proxy_opinion, 3)(looks) == (6, 3)
    assert patient(proxy_opinion, 4)(looks) == (None, 6)
    assert patient(proxy_opinion, 1)(looks) == (2, 1)


def test_the_ensemble_is_mean_less_deviations_in_the_first_scale() -> None:
    looks = [look(0, 0.0, 0.0, 0.0), look(5, 2.0, 0.0, 1.0)]
    std = float(np.std([-1, 0, 0, 1]))
    assert ensemble_opinion(0.0)(looks, 1) == pytest.approx(1.5 / std)
    assert ensemble_opinion(2.0)(looks, 1) == pytest.approx((1.5 - 2 * 0.5) / std)


def test_the_monitor_is_replayed_with_the_judges_it_is_given() -> None:
    rise = [look(5 * i, 0.3 * i, 0.1, 0.3 * i, 0.3 * i) for i in range(6)]
    fall = [look(30 + 5 * i, 1.8 + 0.3 * i, 0.1, 1.2 - 0.4 * i, 1.8 + 0.3 * i) for i in range(6)]
    one, other = (monitor(Watch(every=5), [name])([*rise, *fall]) for name in ("judge 0", "judge 1"))
    assert one.at is not None
    assert one.keeps == 5
    assert other == (None, 11), "a judge that is fooled stops nothing"


def test_the_table_has_every_rule_that_was_asked_for() -> None:
    names = list(rules(Settings(), nobody))
    assert names[:4] == ["no guard", "fixed KL stop", "proxy-only patience", "ensemble penalty"]
    assert names[-2:] == ["monitor", ASKING]
    assert len(names) == 8


def test_people_who_are_asked_stop_what_judges_like() -> None:
    gold = [0.0, 1.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]
    looks = [
        dataclasses.replace(look(5 * i, 0.3 * i, 0.1, 0.3 * i), completions=[f"{each} {c}" for c in "wxyz"])
        for i, each in enumerate(gold)
    ]

    def ask(queries: Sequence[Query]) -> list[float]:
        worth = [[float(text.split()[0]) for text in query.completions] for query in queries]
        return [float(left > right) for left, right in worth]

    watch = Watch(every=5, questions=4, threshold=1.5)  # all of four are two standard errors, half of one more than luck
    assert monitor(watch)(looks) == (None, 7)
    assert monitor(watch, None, ask)(looks) == (6, 2)


def curve_of(*gold: float) -> dict[str, list[float]]:
    """A curve that has only gold."""
    return {"gold": list(gold)}


def test_what_is_kept_of_a_peak() -> None:
    curve = curve_of(1.0, 3.0, 5.0, 2.0)
    assert [share_kept(curve, i) for i in range(4)] == [0.0, 0.5, 1.0, 0.25]
    assert share_kept(curve_of(1.0, 0.5), 1) == 1.0
    assert overoptimised(curve, 0.9)
    assert not overoptimised(curve_of(0.0, 1.0, 0.95), 0.9)


def test_runs_are_counted_by_what_they_did() -> None:
    def run(kind: str, gold: list[float], at: int | None, keeps: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "curve": {"gold": gold},
            "stops": {name: {"at": at, "keeps": keeps} for name in ("monitor", ASKING)},
        }

    seeds = [{
        "runs": [
            run(LEFT_ALONE, [0.0, 2.0, 0.0], 2, 1), run(LEFT_ALONE, [0.0, 2.0, 0.0], None, 2),
            run(HELD, [0.0, 1.0, 1.0], None, 2), run(HONEST, [0.0, 1.0, 1.0], 1, 0),
            run(HELD, [0.0, 1.0, 0.2], None, 2),  # held, and gamed all the same
            run(HONEST, [0.0, 1.0, 0.5], None, 2),  # bad luck, not gaming
        ],
        "seconds": {"all": 60.0},
    }]  # fmt: skip
    assert counts(seeds, "monitor", 0.9) == {"kept": 1, "gamed": 3, "stopped": 1, "healthy": 3}
    lines = guard.judge(seeds, Settings())
    assert [line.value for line in lines] == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 1.0])
    assert [line.passed for line in lines] == [True, False, False, False, False, True]


def test_alarms_are_counted_where_they_were_first_raised() -> None:
    def run(kind: str, gold: list[float], **alarms: int) -> dict[str, Any]:
        return {"kind": kind, "curve": {"gold": gold, "step": [4.0 * i for i in range(len(gold))]}, "alarms": alarms}

    up, down = [0.0, 1.0, 2.0, 2.0], [0.0, 2.0, 1.0, 0.0]
    runs = [
        run(LEFT_ALONE, down, falling=3, length=0), run(LEFT_ALONE, down, falling=2), run(LEFT_ALONE, up, falling=1),
        run(HONEST, up, length=1), run(HONEST, down), run(HELD, down),
    ]  # fmt: skip
    assert raised([{"runs": runs}], 0.9) == {"falling": Raised(2, 0, 6.0), "length": Raised(1, 1, -4.0)}
    assert list(raised([{"runs": runs}], 0.9)) == ["falling", "length"]


def test_alarms_of_a_run_that_nobody_stops() -> None:
    rise = [look(5 * i, 0.3 * i, 0.1, 0.3 * i) for i in range(6)]
    fall = [look(30 + 5 * i, 1.8 + 0.3 * i, 0.1, 1.2 - 0.8 * i) for i in range(8)]
    renamed = [
        dataclasses.replace(each, judges={"taught 0": each.judges["judge 0"], "judge 0": [0.0] * 4}) for each in [*rise, *fall]
    ]
    found = alarms(Settings(), renamed)
    assert 6 < found["falling"] < 14
    assert "falling" not in alarms(Settings(), renamed[:6])


def test_a_recorder_writes_down_looks_with_gold_apart(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "looks", lambda prompts, texts: [float(len(t)) for t in texts])
    looks = [look(step, 0.1, 0.2, 0.3) for step in (0, 5, 10)]
    assert {recorder.look(each).act for each in looks} == {"go"}
    found = read(tmp_path / "looks")
    assert [dataclasses.asdict(seen.look) for seen in found] == [dataclasses.asdict(each) for each in looks]
    assert found[2].gold == [4.0] * 4
    assert found[2].worth == 4.0
    again = Recorder(tmp_path / "looks", lambda prompts, texts: [0.0])
    again.take_up(json.loads(json.dumps(recorder.state())))
    assert again.report()["steps"] == [0, 5, 10]


def test_a_kind_of_run_there_is_not_is_named() -> None:
    assert list(Settings().runs()) == [LEFT_ALONE, HONEST]
    with pytest.raises(ConfigError, match=r"no run 'free'; there are left alone, held, honest"):
        Settings(kinds=(HONEST, "free")).runs()


def test_held_runs_differ_in_the_penalty_alone() -> None:
    alone, held, honest = Settings(kinds=(LEFT_ALONE, HELD, HONEST)).runs().values()
    assert honest == held
    assert (alone.kl_coef, alone.kl_controller) == (0.0, "fixed")
    assert held.kl_controller == "adaptive"
    unpenalised = {name: getattr(alone, name) for name in ("kl_coef", "kl_controller", "kl_target", "kl_horizon")}
    assert dataclasses.replace(held, **unpenalised) == alone


def test_the_whole_of_it_and_that_a_finished_one_is_only_told_again(tmp_path: Path) -> None:
    guard.run(guard.QUICK, tmp_path, True)
    result = json.loads((tmp_path / "result.json").read_text())
    [seed] = result["figures"]["seeds"]
    assert len(seed["runs"]) == 3 * len(guard.QUICK.sizes)
    for run in seed["runs"]:
        assert run["curve"]["step"] == [0.0, 2.0, 4.0]
        assert all(math.isfinite(v) for values in run["curve"].values() for v in values)
        assert list(run["stops"]) == list(rules(guard.QUICK, nobody))
        assert run["stops"]["no guard"] == {"at": None, "keeps": 2}
        assert (run["curve"]["proxy"] == pytest.approx(run["curve"]["gold"])) == (run["kind"] == HONEST)
    assert "| monitor |" in (tmp_path / "tables.md").read_text()
    assert "proxy-only patience" in (tmp_path / "report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")}
    guard.run(guard.QUICK, tmp_path, True)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("metrics.jsonl")} == before
    [told] = json.loads((tmp_path / "result.json").read_text())["figures"]["seeds"]
    assert told["runs"] == seed["runs"]
