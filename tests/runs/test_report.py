"""The page: self-contained, escaped, complete, and the same when set again from report.json."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from backflip.cli import report as command
from backflip.errors import DataError
from backflip.records import Rating
from backflip.runs import Run
from backflip.runs.report import from_run, read_report, write_report
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

EVIL = """</script><script>alert(1)</script><img src=http://evil.example/x onerror="alert(2)">'$title\x00"""


class Tags(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def full(text: str = "words") -> ReportData:
    return ReportData(
        title=f"T {text}",
        summary=f"S {text}",
        figures=[Figure(f"label {text}", f"+1.2 {text}", f"95 % {text}", f"note {text}")],
        charts=[
            Chart(f"C {text}", text, text,
                  [Series(text, [1, 2], [0.5, None]), Series("b", [1, 2], [1, 2], [0, 1], [2, 3])],
                  f"why {text}", group=text),
        ],
        ratings=[Rating(text, 1010.4, 990.0, 1030.0, 12), Rating("fresh", None, None, None, 0)],
        samples=[
            SampleRow(text, [Column("before", text, {"gold": -0.5}), Column(text, text, {"gold": 0.25, text: 1.0})]),
        ],
        settings=f"note: {text}\n",
        notes=[text],
    )  # fmt: skip


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = write_report(tmp_path, full(EVIL)).read_text(encoding="utf-8")
    seen = Tags(page)
    assert seen.open == []
    kinds = {tag for tag, _ in seen.tags}
    assert "img" not in kinds
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert not [a for _, attributes in seen.tags for a in attributes if a.startswith("on")]
    assert "<script>alert" not in page
    assert seen.text.count("<script>alert(1)</script>") > 12, "the text itself must be readable in every place"
    assert "\x00" not in page


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    page = write_report(tmp_path, full()).read_text(encoding="utf-8")
    seen = Tags(page)
    assert not [attributes for _, attributes in seen.tags if {"src", "href", "srcset", "action"} & set(attributes)]
    assert not re.search(r"https?://|@import|url\(", page)
    [policy] = [a["content"] for tag, a in seen.tags if tag == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() in policy


def test_everything_given_is_on_the_page(tmp_path: Path) -> None:
    seen = Tags(write_report(tmp_path, full()).read_text(encoding="utf-8"))
    for words in ("T words", "S words", "label words", "+1.2 words", "95 % words", "note words", "why words"):
        assert words in seen.text
    assert "1010" in seen.text
    assert "990 to 1030" in seen.text
    assert "not yet comparable" in seen.text
    assert "−0.50" in seen.text
    assert "0.25 (+0.75)" in seen.text
    assert "1 (0 to 2)" in seen.text  # the table behind the chart


def test_every_chart_has_words_and_a_table_instead(tmp_path: Path) -> None:
    page = write_report(tmp_path, full()).read_text(encoding="utf-8")
    seen = Tags(page)
    charts = [a for tag, a in seen.tags if tag == "svg" and a.get("role") == "img"]
    assert charts
    assert all(a["aria-label"] for a in charts)
    assert page.count("<details><summary>Values") == len(charts)
    assert ("html", {"lang": "en"}) in seen.tags


def test_the_same_page_comes_from_the_stored_data(tmp_path: Path) -> None:
    first = write_report(tmp_path, full(EVIL)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first
    assert ReportData.from_json(full().to_json()) == read_report_of(full(), tmp_path)


def read_report_of(data: ReportData, folder: Path) -> ReportData:
    write_report(folder, data)
    return read_report(folder / "report.json")


def test_an_empty_report_is_a_page_too(tmp_path: Path) -> None:
    seen = Tags(write_report(tmp_path, ReportData(title="Nothing yet")).read_text(encoding="utf-8"))
    assert seen.open == []
    assert "section" not in {tag for tag, _ in seen.tags}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    with Run.open(tmp_path / "first-try", kind="ppo", settings={"seed": 3}, quiet=True) as run:
        for step in range(1, 101):
            run.log(step, {"objective/kl": step / 10, "loss": 1 / step, "objective/scores": step / 50})
        for step in (1, 100):
            rows = [{"prompt": f"p{i}", "completion": f"text {step} {i}", "gold": step / 100} for i in range(9)]
            run.samples(step, rows)
        run.finish({"gold": 0.91, "folder": "x"})
    return tmp_path / "first-try"


def test_a_training_run_is_read_from_its_logs(trained: Path) -> None:
    data = from_run(trained)
    assert data.summary == "A ppo run of 100 steps, finished."
    assert [(c.group, c.title) for c in data.charts] == [
        ("objective", "kl"),
        ("objective", "scores"),
        ("training", "loss"),
    ]
    assert list(data.charts[0].series[0].ys) == [s / 10 for s in range(1, 101)]
    assert [f.label for f in data.figures] == ["gold"]
    assert len(data.samples) == 6
    assert [(c.policy, c.text) for c in data.samples[0].columns] == [("step 1", "text 1 0"), ("step 100", "text 100 0")]
    assert data.settings == "seed: 3\n"
    page = write_report(trained).read_text(encoding="utf-8")
    assert not (trained / "report.json").exists(), "a stored report would hide what the run logs later"
    assert "Thin lines are the values" in page
    assert Tags(page).open == []


def test_an_unfinished_run_says_so_and_a_torn_line_is_no_obstacle(trained: Path) -> None:
    (trained / "result.json").unlink()
    with open(trained / "metrics.jsonl", "a") as file:
        file.write('{"step": 10')
    assert from_run(trained).summary.endswith("not finished yet.")


def test_a_folder_without_a_run_and_a_broken_report_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="is not a run folder"):
        write_report(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    for content in ("{", "[]", '{"title": "x", "charts": [{}]}', '{"title": "x", "colour": 1}'):
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(DataError, match=r"report.json is not a stored report"):
            write_report(tmp_path)


def test_the_command_prints_the_path_and_opens_it(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(trained)])) == 0
    assert capsys.readouterr().out == f"{trained / 'report.html'}\n"
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(shown.append(url)))
    assert command.run(parser.parse_args([str(trained), "--open"])) == 0
    assert shown == [(trained / "report.html").as_uri()]
    assert "no web browser" in capsys.readouterr().out


def test_the_stored_data_is_plain_json(tmp_path: Path) -> None:
    write_report(tmp_path, full())
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["figures"][0] == {
        "label": "label words",
        "value": "+1.2 words",
        "interval": "95 % words",
        "note": "note words",
    }
