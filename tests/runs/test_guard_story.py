"""What a monitor found, told in a run's report: every alarm, the curves, what is paid for, the suspects, and what was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.web.run_folders import write_run

from backflip.errors import DataError
from backflip.runs.guard_story import read_guard, said, verdict, watched
from backflip.runs.report import from_run, read_report, write_report

LOOKS = [
    {
        "step": float(4 * i), "guard/proxy": 1.0 + i, "guard/proxy_scaled": 0.4 * i, "guard/quality": 0.3 * i - 0.1 * i * i,
        "guard/kl_seq_nats": 0.8 * i, "guard/disagreement": 0.5 + 0.1 * i, "guard/evidence": max(0.0, i - 2.0),
    }
    for i in range(6)
]  # fmt: skip
REPORT: dict[str, Any] = {
    "decision": "stop", "best_step": 8, "looks": LOOKS,
    "findings": [
        {
            "kind": "unsupported", "step": 16, "act": "mine", "sentence": "since step 8 the proxy rose by 0.80",
            "evidence": {"proxy": {"change": 0.8, "standard error": 0.1}, "quality": {"change": -0.4, "standard error": 0.1}},
            "back_to": None,
        },
        {
            "kind": "falling", "step": 20, "act": "stop", "sentence": "the judges' opinion fell by 0.90 <b>",
            "evidence": {"evidence": 5.25, "threshold": 5.0}, "back_to": 8,
        },
    ],
    "features": [
        {"feature": "words", "before": 9.0, "now": 20.0, "proxy": 0.5, "judges": 0.4},
        {"feature": "word: great", "before": 0.1, "now": 0.9, "proxy": 1.5, "judges": -0.5},
    ],
    "suspects": [
        {
            "step": 16, "prompt": f"Prompt {i}", "completion": " great great <i>", "before": " fine", "suspicion": float(i),
            "proxy": 2.0, "quality": -1.0,
        }
        for i in range(9)
    ],
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(
        tmp_path / "run", steps=20, make=lambda step: {"objective/scores": 1.0, "guard/evidence": 0.5, "guard/length": 9.0}
    )
    (folder / "guard.json").write_text(json.dumps(REPORT))
    return folder


def test_a_report_by_hand() -> None:
    found = watched(REPORT)
    assert found.verdict == (
        "6 looks, the last at step 20. The run was stopped; the policy of step 8, the best look, is kept in best/, and the run "
        "ends with it."
    )
    assert [(a.kind, a.step, a.act) for a in found.alerts] == [("unsupported", 16, "mine"), ("falling", 20, "stop")]
    assert found.alerts[0].evidence == {"proxy": "change 0.8, standard error 0.1", "quality": "change −0.4, standard error 0.1"}
    both, *others = found.charts
    assert [s.name for s in both.series] == ["proxy", "judges", "kept"]
    assert both.series[0].ys == [look["guard/proxy_scaled"] for look in LOOKS]
    assert (both.series[2].xs, both.series[2].ys) == ([8.0], [LOOKS[2]["guard/quality"]])
    assert [len(chart.series[0].xs) for chart in others] == [6, 6, 6]
    assert [f.feature for f in found.features] == ["word: great", "words"], "what is paid for most beyond the judges comes first"
    assert [row.prompt for row in found.suspects] == [f"Prompt {i}" for i in (8, 7, 6, 5, 4, 3)]
    assert found.suspects[0].columns[1].rewards == {"proxy": 2.0, "judges": -1.0}


@pytest.mark.parametrize(("decision", "words"), [("go", "Nothing stopped"), ("pause", "until a person"), ("stop", "was stopped")])
def test_what_came_of_it(decision: str, words: str) -> None:
    assert words in verdict({**REPORT, "decision": decision})


def test_without_judges_and_without_looks() -> None:
    looks = [{name: x for name, x in look.items() if name != "guard/quality"} for look in LOOKS]
    rows = [{**REPORT["suspects"][0], "quality": None}]
    features = [{**REPORT["features"][0], "judges": None}]
    found = watched({**REPORT, "looks": looks, "suspects": rows, "features": features})
    assert [s.name for s in found.charts[0].series] == ["proxy", "kept"]
    assert found.suspects[0].columns[1].rewards == {"proxy": 2.0}
    empty = watched({"decision": "go", "best_step": 0, "looks": [], "findings": [], "features": [], "suspects": []})
    assert (empty.charts, empty.alerts, empty.suspects) == ([], [], [])
    assert watched({"steps": [0, 4], "findings": []}).verdict.startswith("Nothing stopped"), "a guard that is no monitor"
    assert said({"x": None}) == {"x": "–"}


def test_the_page_of_a_watched_run_says_it_all_and_escapes_it(run: Path) -> None:
    page = write_report(run).read_text()
    assert "The monitor" in page
    for words in ("unsupported", "falling", "since step 8", "threshold", "word: great", "Suspects", "is kept in best/"):
        assert words.lower() in page.lower(), words
    assert "<i>" not in page, "what a policy wrote is text"
    assert "by 0.90 &lt;b&gt;" in page
    titles = [chart.title for chart in from_run(run).charts]
    assert "length" in titles
    assert "evidence" not in titles, "it is drawn once"


def test_a_run_that_nobody_watched_has_no_such_section(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=3)
    assert from_run(folder).watched is None
    assert "The monitor" not in write_report(folder).read_text()


def test_it_is_stored_and_read_again(run: Path) -> None:
    data = from_run(run)
    write_report(run, data)
    again = read_report(run / "report.json")
    assert again.watched == data.watched
    assert again.watched is not None
    first = (run / "report.html").read_bytes()
    write_report(run)
    assert (run / "report.html").read_bytes() == first


def test_a_damaged_record_is_an_error_that_names_it(run: Path) -> None:
    (run / "guard.json").write_text("{")
    with pytest.raises(DataError, match="guard"):
        read_guard(run)
