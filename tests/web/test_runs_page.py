"""The Runs page in a real browser: lines as they are logged, alarms with their evidence, runs that obey, samples for people."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backflip.runs import Run, control
from backflip.store import Store
from backflip.store.projects import Project, Projects
from tests.web.conftest import Served
from tests.web.run_folders import living, row, wait_for, write_run

pytestmark = pytest.mark.slow

LAST = """([title, run]) => {
  const chart = [...document.querySelectorAll(".grid .chart")].find((c) => c.querySelector(".name").textContent === title);
  const line = chart?.querySelector(".plot").chart.lines.find((each) => each.name === run);
  return line && line.x.length ? line.x.at(-1) : 0;
}"""

PAINTED = """(step) => {
  const plot = document.querySelector(".grid .plot");
  const draw = plot.chart.draw.bind(plot.chart);
  window.painted = {};
  plot.chart.draw = () => {
    draw();
    const last = plot.chart.lines[0].x.at(-1);
    requestAnimationFrame(() => { window.painted[last] ??= Date.now() / 1000; });
  };
}"""

FIFTY = """async () => {
  const { Chart } = await import("/static/lib/chart.js");
  const walk = (r) => {
    const [x, y] = [[], []];
    for (let i = 0, v = 0; i < 2000; i += 1) { v += Math.random() - 0.5; x.push(i); y.push(v); }
    return { name: `run ${r}`, slot: r, x, y, wrong: [] };
  };
  const lines = Array.from({ length: 50 }, (_, r) => walk(r));
  const place = document.querySelector(".middle");
  const began = performance.now();
  const chart = new Chart({ title: "fifty" });
  place.prepend(chart.element);
  chart.set(lines);
  await new Promise((done) => {
    const draw = chart.draw.bind(chart);
    chart.draw = () => {
      draw();
      requestAnimationFrame(() => {
        const after = new MessageChannel();  // its message comes once the frame is on the screen
        after.port1.onmessage = done;
        after.port2.postMessage(0);
      });
    };
  });
  const took = performance.now() - began;
  const { width, height } = chart.canvas;
  const pixels = chart.canvas.getContext("2d").getImageData(0, 0, width, height).data.some((part) => part > 0);
  chart.remove();
  return [took, pixels];
}"""


def open_runs(page: Any, served: Served, id: str = "") -> None:
    page.goto(f"{served.address}/runs/{id}")
    page.wait_for_selector(".runs .chart .values li")


def last_step(page: Any, run: str, title: str = "KL per sequence") -> int:
    return int(page.evaluate(LAST, [title, run]))


def button(page: Any, name: str | re.Pattern[str]) -> Any:
    return page.get_by_role("button", name=name, exact=isinstance(name, str))


def words(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def eventually(page: Any, selector: str, what: str | Callable[[str], bool]) -> None:
    """Wait until an element says something."""
    says = what if callable(what) else lambda text: what in text
    wait_for(lambda: page.locator(selector).count() and says(words(page, selector)))


def test_nothing_yet_and_the_three_lines_that_change_it(page: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    page.goto(f"{served.address}/runs")
    page.wait_for_selector(".empty")
    snippet = words(page, ".snippet")
    assert len(snippet.strip().splitlines()) == 3
    monkeypatch.chdir(served.runs.parent)
    exec(compile(snippet, "snippet", "exec"), {})  # what the page says must be true
    page.wait_for_selector(".runs .chart")
    eventually(page, ".runlist", "first")


def test_a_line_is_on_the_screen_soon_after_it_is_logged(page: Any, served: Served) -> None:
    folder = write_run(served.runs / "live", steps=5, finished=False)
    open_runs(page, served)
    page.evaluate(PAINTED)
    written: dict[str, float] = {}
    with Run.open(folder, kind="ppo", settings={"steps": 5}, quiet=True) as run:
        for step in range(6, 26):
            written[str(step)] = time.time()
            run.log(step, row(step))
            run.time(step, {"rollout": 0.5, "update": 1.5})
            time.sleep(0.13)
        wait_for(lambda: "25" in page.evaluate("() => window.painted"))
        painted: dict[str, float] = page.evaluate("() => window.painted")
        # A step that was painted together with a later one was on the screen when that one was.
        moments = sorted((int(step), at) for step, at in painted.items())
        delays = [next(at for last, at in moments if last >= int(step)) - then for step, then in written.items()]
        print(f"event → pixel: median {statistics.median(delays):.2f} s, worst {max(delays):.2f} s")
        assert max(delays) <= 1.5
        eventually(page, ".subject .state", "running")
        eventually(page, ".subject", "25/5")


def test_alarms_of_the_monitor_appear_as_they_begin(page: Any, served: Served) -> None:
    finding = {
        "kind": "unsupported", "step": 4, "act": "mine", "sentence": "the proxy rose", "evidence": {"proxy": {"change": 1.5}},
        "back_to": None,
    }  # fmt: skip
    look = {
        "guard/proxy_scaled": 0.0,
        "guard/quality": 0.0,
        "guard/kl_seq_nats": 0.0,
        "guard/disagreement": 1.0,
        "guard/evidence": 0.0,
    }
    report: dict[str, Any] = {
        "decision": "go", "best_step": 0, "looks": [{"step": 0.0, **look}], "findings": [], "suspects": [],
        "features": [{"feature": "words", "before": 1.0, "now": 2.0, "proxy": 0.5, "judges": -0.5}],
    }  # fmt: skip
    folder = write_run(served.runs / "live", steps=5, finished=False)
    open_runs(page, served)
    assert page.locator(".guard").is_hidden(), "nobody looked"
    with Run.open(folder, kind="ppo", settings={"steps": 5}, quiet=True) as run:
        for step, found in ((6, []), (7, [finding])):
            report["looks"].append({"step": float(step), **look})
            report["findings"] = found
            (folder / "guard.json").write_text(json.dumps(report))
            run.log(step, row(step))
            eventually(page, ".guard header", f"the last at step {step}")
    eventually(page, ".findings", "Proxy rises alone")
    assert "The proxy rose." in words(page, ".findings")
    assert page.locator(".guard .chart").count() == 4
    page.locator(".guard summary").first.click()
    assert "words" in words(page, ".guard table")


def test_a_run_that_goes_back_is_drawn_anew(page: Any, served: Served) -> None:
    folder = write_run(served.runs / "live", steps=20, finished=False)
    open_runs(page, served)
    assert last_step(page, "live") == 20
    with Run.open(folder, kind="ppo", settings={"steps": 20}, quiet=True) as run:
        run.rewind(8)
        wait_for(lambda: last_step(page, "live") == 8)
        for step in (9, 10):
            run.log(step, row(step))
        wait_for(lambda: last_step(page, "live") == 10)


def test_newest_eight_are_drawn_and_others_when_they_are_chosen(page: Any, served: Served) -> None:
    for i in range(11):
        write_run(served.runs / f"run{i:02d}", steps=3, sample_every=0)
        time.sleep(0.02)
    write_run(served.runs / "loop", steps=0, kind="rounds")
    open_runs(page, served)
    drawn = page.locator(".show[aria-pressed=true]")
    assert drawn.count() == 8
    assert [words(page, f".runlist li:nth-child({i}) .speak") for i in (1, 2)] == ["loop", "run10"]
    assert page.locator(".runlist li:nth-child(1) .show").is_disabled(), "there is nothing to draw of it"
    assert last_step(page, "run10") == 3
    button(page, "Draw run00").click()
    wait_for(lambda: last_step(page, "run00") == 3)
    assert drawn.count() == 9
    button(page, "None").click()
    wait_for(lambda: drawn.count() == 0)
    button(page, "All").click()
    wait_for(lambda: last_step(page, "run02") == 3)
    assert drawn.count() == 11
    look = "(p) => p.getAttribute('stroke') + p.getAttribute('stroke-dasharray')"
    looks = page.evaluate(f"() => [...document.querySelectorAll('.show svg path')].map({look})")
    assert len(set(looks)) == 11, "no two look alike"
    page.get_by_role("searchbox").fill("run07")
    wait_for(lambda: page.locator(".runlist li:visible").count() == 1)
    page.get_by_role("searchbox").fill("")
    button(page, "Newest").click()
    wait_for(lambda: drawn.count() == 8)


def test_over_time_and_the_shared_cursor(page: Any, served: Served) -> None:
    write_run(served.runs / "a", steps=30, make=lambda step: row(step) if step != 9 else row(step) | {"kl/seq_nats": 1e9})
    open_runs(page, served)
    kl = page.locator(".grid .chart", has_text="KL per sequence").locator(".plot")
    kl.scroll_into_view_if_needed()
    kl.hover(position={"x": 200, "y": 60})
    wait_for(lambda: page.locator(".chart .where:visible").count() > 3)
    said = set(page.locator(".chart .where:visible").all_inner_texts())
    assert len(said) == 1, "all charts speak of the same step"
    assert re.fullmatch(r"step \d+", said.pop())
    button(page, "Time").click()
    wait_for(lambda: page.evaluate(LAST, ["KL per sequence", "a"]) == 60)
    wait_for(lambda: "60 s" in str(kl.get_attribute("aria-label")))  # which is said with the next frame
    button(page, "Steps").click()
    wait_for(lambda: page.evaluate(LAST, ["KL per sequence", "a"]) == 30)


def test_charts_by_keyboard_in_words_and_as_tables(page: Any, served: Served) -> None:
    folder = write_run(served.runs / "a", steps=30, finished=False)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 31, "kl/seq_nats": float("nan")}) + "\n" + json.dumps({"step": 32, **row(32)}) + "\n")
    open_runs(page, served)
    chart = page.locator(".grid .chart", has_text="KL per sequence")
    plot = chart.locator(".plot")
    assert plot.get_attribute("role") == "img"
    wait_for(lambda: "not finite numbers: 1." in str(plot.get_attribute("aria-label")))
    assert re.search(r"KL per sequence \(nats\): 1 lines?. a: 3\.\d+ at step 32, between", str(plot.get_attribute("aria-label")))
    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    wait_for(lambda: "step 12" in chart.locator(".where").inner_text())
    assert "step 12" in chart.locator("[aria-live]").inner_text()
    red = """() => {
      const { canvas, frame } = [...document.querySelectorAll(".plot")].find((p) => p.chart.lines[0]?.wrong.length).chart;
      const at = Math.round(frame.px(31) * (canvas.width / canvas.clientWidth));
      return [...canvas.getContext("2d").getImageData(at, (frame.bottom + 3) * (canvas.width / canvas.clientWidth), 1, 1).data];
    }"""
    r, g, b, a = page.evaluate(red)
    assert a > 200
    assert r > g + 60
    assert r > b + 60
    chart.get_by_role("button", name="KL per sequence as a table").press("Enter")
    rows = chart.locator("tbody tr")
    assert 10 <= rows.count() <= 26
    assert rows.first.inner_text().startswith("step 1")


def test_alarms_open_their_evidence_and_send_the_suspicious(page: Any, served: Served) -> None:
    write_run(served.runs / "gamed", steps=60)
    with Store(served.path) as store:
        Projects(store).save(Project(id="look", purpose="looking", title="Have a look"), by="test")
    open_runs(page, served)
    alarm = page.locator(".alarm", has_text="Reward over-optimised")
    alarm.wait_for()
    assert words(page, ".alarms h2") == f"Alarms: {page.locator('.alarm').count()}"
    assert alarm.get_attribute("data-level") == "error"
    alarm.locator("summary").press("Enter")
    assert "lost ground" in alarm.locator("> p").first.inner_text()
    wait_for(lambda: alarm.locator(".chart .values li").count() == 2)
    assert alarm.locator(".chart .name").all_inner_texts() == ["proxy", "gold"]
    alarm.get_by_label("Project").select_option("look")
    send = alarm.get_by_role("button", name="Label the 12 most suspicious")
    send.click()
    wait_for(lambda: "12 new questions in Have a look." in alarm.inner_text())
    send.click()
    wait_for(lambda: "0 new questions in Have a look. 12 were there already." in alarm.inner_text())
    with Store(served.path, read_only=True) as store:
        assert len(store.queries("looking")) == 12


def test_a_run_is_paused_resumed_and_stopped(page: Any, served: Served) -> None:
    with living(served.runs / "live") as run:
        open_runs(page, served)
        button(page, "Pause").click()
        eventually(page, ".subject .state", "paused")
        eventually(page, ".controls", "Paused by owner")
        step = run.step
        button(page, "Resume").click()
        eventually(page, ".subject .state", "running")
        wait_for(lambda: run.step > step)
        page.locator("body").press("p")
        eventually(page, ".subject .state", "paused")
        page.locator("body").press("P")
        eventually(page, ".subject .state", "running")
        button(page, "Stop").click()
        assert "Stop live?" in words(page, "dialog")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        assert control.standing(run.folder) is None
        button(page, "Stop").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        eventually(page, ".subject .state", "stopped")
        run.thread.join(15)
        assert "owner asked" in (run.ended_by or "")
        eventually(page, ".controls", "The same command makes it go on")


def test_a_stage_says_whose_pause_it_keeps(page: Any, served: Served) -> None:
    write_run(served.runs / "loop", steps=0, kind="rounds", finished=False)
    with Run.open(served.runs / "loop", kind="rounds", settings={"steps": 0}, quiet=True), living(served.runs / "loop/ppo"):
        open_runs(page, served, "loop/ppo")
        wait_for(lambda: words(page, ".subject h2") == "loop/ppo")
        control.pause(served.runs / "loop", by="ann")
        eventually(page, ".controls", "ann asked it to pause")
        assert control.standing(served.runs / "loop") is not None
        button(page, "Take it back").click()
        wait_for(lambda: control.standing(served.runs / "loop") is None)
        page.locator(".controls").get_by_role("button", name="Pause").wait_for()


def test_samples_beside_the_first_and_sent_to_people(page: Any, served: Served) -> None:
    write_run(served.runs / "r", steps=40)
    open_runs(page, served)
    samples = page.locator("section", has=page.get_by_role("heading", name="Samples of r"))
    samples.locator(".sample").first.wait_for()
    assert samples.locator(".sample").count() == 4
    first = samples.locator(".sample").first
    assert first.locator(".place").all_inner_texts() == ["step 1", "step 40"]
    assert "proxy 4 (+3.9)" in first.inner_text().replace("\n", " ")
    assert "Word for word" in samples.locator(".sample").last.inner_text()
    first.get_by_label("Send").uncheck()
    send = samples.get_by_role("button", name=re.compile("to labelling"))
    assert send.inner_text() == "Send 2 of these to labelling"
    send.click()
    wait_for(lambda: "2 new questions in main." in samples.inner_text())
    page.locator("body").press(",")
    wait_for(lambda: first.locator(".place").last.inner_text() == "step 30")
    assert send.inner_text() == "Send 3 of these to labelling"
    page.locator("body").press(".")
    wait_for(lambda: first.locator(".place").last.inner_text() == "step 40")
    with Store(served.path, read_only=True) as store:
        assert {frozenset(query.policies) for query in store.queries("train")} == {frozenset({"r@1", "r@40"})}


def test_what_a_policy_writes_is_text_and_nothing_else(page: Any, served: Served) -> None:
    bad = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>\u202eevil"
    with Run.open(served.runs / "r", kind=bad[:30], settings={"note": bad}, quiet=True) as run:
        run.log(1, {"objective/scores": 1.0, bad: 2.0})
        run.samples(1, [{"prompt": bad, "completion": bad}])
        run.log(2, {"objective/scores": 1.0, bad: 2.0})
        run.samples(2, [{"prompt": bad, "completion": bad + "!", bad: 1.0}])
    open_runs(page, served)
    page.locator(".sample").wait_for()
    assert "<img src=x" in words(page, ".sample")
    page.locator(".settings summary").click()
    page.locator(".group summary").click()
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.pwned") is None
    assert page.locator(".runs img, .runs script").count() == 0


def test_by_keyboard_alone(page: Any, served: Served) -> None:
    for name in ("a", "b", "c"):
        write_run(served.runs / name, steps=12)
        time.sleep(0.02)
    open_runs(page, served)
    wait_for(lambda: words(page, ".subject h2") == "c")
    page.keyboard.press("j")
    wait_for(lambda: words(page, ".subject h2") == "b")
    assert page.evaluate("() => document.activeElement.textContent") == "b"
    assert page.url.endswith("/runs/b")
    page.keyboard.press("x")
    wait_for(lambda: page.locator(".show[aria-pressed=true]").count() == 2)
    page.keyboard.press("k")
    wait_for(lambda: words(page, ".subject h2") == "c")
    page.keyboard.press("t")
    wait_for(lambda: button(page, "Time").get_attribute("aria-pressed") == "true")
    page.keyboard.press("?")
    assert "Pause the run, or let it go on" in words(page, "dialog")
    page.keyboard.press("Escape")
    reached: set[str] = set()
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(str(page.evaluate("() => document.activeElement.className + ' ' + document.activeElement.tagName")))
    for part in ("show BUTTON", "speak BUTTON", "plot DIV", "main BUTTON"):
        assert part in reached, sorted(reached)


def test_a_lost_connection_greys_the_charts_and_comes_back(page: Any, served: Served) -> None:
    folder = write_run(served.runs / "r", steps=5, finished=False)
    write_run(served.runs / "other", steps=5)
    page.clock.install()
    open_runs(page, served)
    refused: list[str] = []
    page.route("**/runs/stream*", lambda route: (refused.append(route.request.url), route.abort()))
    button(page, "Draw other").click()  # whose place in the stream makes it a new one
    page.clock.run_for(1000)
    wait_for(lambda: refused)
    page.clock.fast_forward(15_000)
    page.clock.run_for(2000)
    eventually(page, ".stale", lambda text: re.search(r"Stale 1\d s", text) is not None)
    assert page.locator(".groups[data-stale]").count() == 1
    assert page.locator("#connection").get_attribute("data-state") == "offline"
    page.unroute("**/runs/stream*")
    with Run.open(folder, kind="ppo", settings={"steps": 5}, quiet=True) as run:
        run.log(6, row(6))

        def back() -> bool:
            page.clock.run_for(500)
            return last_step(page, "r") == 6

        wait_for(back)
    assert page.locator(".groups[data-stale]").count() == 0
    page.watch.errors.clear()


def test_a_silent_run_is_not_called_running(page: Any, served: Served) -> None:
    folder = write_run(served.runs / "r", steps=12, finished=False)
    with Run.open(folder, kind="ppo", settings={"steps": 12}, quiet=True):
        past = time.time() - 500
        for path in (folder, *folder.iterdir()):
            os.utime(path, (past, past))
        open_runs(page, served)
        eventually(page, ".subject .state", "no heartbeat since")
        assert page.locator(".runlist .state").get_attribute("data-state") == "silent"
        page.locator(".alarm", has_text="No heartbeat").wait_for()


def test_a_viewer_looks_and_touches_nothing(page: Any, served: Served, browser: Any) -> None:
    from backflip.store.accounts import Accounts

    with Store(served.path) as store:
        accounts = Accounts(store)
        accounts.add("vera", "viewer", by="test")
        link = accounts.issue("link", "vera", by="test", seconds=60)
    with living(served.runs / "live"):
        context = browser.new_context()
        other = context.new_page()
        other.goto(f"{served.address}/signin#{link}")
        other.wait_for_url("**/runs")
        other.wait_for_selector(".runs .chart .values li")
        other.locator(".sample").first.wait_for()
        assert other.get_by_role("button", name=re.compile("Pause|Stop|labelling")).count() == 0
        assert other.get_by_role("checkbox").count() == 0
        context.close()


def test_fifty_runs_are_drawn_quickly(page: Any, served: Served) -> None:
    write_run(served.runs / "r", steps=3)
    open_runs(page, served)
    took = []
    for _ in range(5):
        milliseconds, pixels = page.evaluate(FIFTY)
        assert pixels
        took.append(milliseconds)
    print(f"50 lines of 2,000 points, first paint: median {statistics.median(took):.0f} ms, worst {max(took):.0f} ms")
    assert len(took) > 0 < min(took)  # what it costs is printed, not judged: other work on the machine must not fail a test


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_for_everybody_in_both_languages_and_themes(page: Any, served: Served, theme: str, language: str) -> None:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    axe = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    rng = random.Random(1)
    write_run(served.runs / "gamed", steps=60)
    write_run(served.runs / "loop/other", steps=30, make=lambda step: row(step) | {"new metric": rng.random()})
    cookies = {"backflip_language": language, "backflip_theme": theme}
    page.context.add_cookies([{"name": name, "value": value, "url": served.address} for name, value in cookies.items()])
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        open_runs(page, served)
        page.locator(".alarm summary").first.click()
        page.locator(".alarm .chart").first.wait_for()
        page.locator(".grid .chart button").first.click()
        page.locator(".sample").first.wait_for()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.watch.errors == []
        page.evaluate(axe + "; null")
        result = page.evaluate(
            "async () => (await axe.run()).violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html.slice(0, 120))])"
        )
        assert [each for each in result if each[0] in ("serious", "critical")] == []
        page.watch.errors.clear()  # the checker itself tries inline styles, which the pages forbid
