"""The Arena page in a real browser: ratings with intervals, blind battles, chat; by keyboard, on a phone, in both languages."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backflip.arena.games import Games
from backflip.arena.kept import add_kept, kept_runs
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Project, Projects
from backflip.web import chat
from tests.kept_runs import answers, write_run
from tests.web.conftest import Served
from tests.web.test_chat import FAKE, make_run

NAMES = ("sft", "round1", "round2")
NARROW = {"width": 360, "height": 740}


def fill(served: Served, pairs: Any, n: int = 20, *, by: str = "judge", project: bool = True) -> None:
    """`n` matches of each pair, of which the later generation won 3 in 4."""
    with Store(served.path) as store:
        if project and not any(p.id == "arena" for p in Projects(store).all()):
            Projects(store).save(Project(id="arena", purpose="arena", reveal=True, title="Arena"), by="test")
        for a, b in pairs:
            for i in range(n):
                texts = (f"One {a} {i}", f"Two {b} {i}" + " more" * (i % 7))
                query = Query(Prompt(f"Question {i}"), texts, policies=(a, b), purpose="arena")
                store.add_queries([query])
                store.add_verdicts([Verdict(query.id, by, "left" if i % 4 == 3 else "right")])


def go(page: Any, served: Served, path: str = "") -> None:
    page.goto(f"{served.address}/arena{path}")


def rows(page: Any) -> list[list[str]]:
    """The cells of the table of ratings."""
    found: list[list[str]] = page.locator(".standings tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim()))"
    )
    return found


def wait(page: Any, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=20_000)


@pytest.fixture
def look(axe: Callable[[Any], list[str]]) -> Callable[[Any], None]:
    """`look(page)`: nothing on it is in the way of somebody who cannot see it, or sees it small."""

    def at(page: Any) -> None:
        assert page.watch.errors == []
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        assert axe(page) == []
        page.watch.errors.clear()  # the checker itself tries inline styles, which the pages forbid

    return at


def test_ratings_never_stand_without_interval_and_count(page: Any, served: Served, look: Callable[[Any], None]) -> None:
    fill(served, itertools.combinations(NAMES, 2))
    go(page, served)
    page.locator(".standings").wait_for(timeout=20_000)
    best, middle, last = rows(page)
    assert [best[1], middle[1], last[1]] == ["round2", "round1", "sft"]
    assert last[2] == "1000 anchor"
    for row in (best, middle):
        rating, low, high = (float(x.strip("[],")) for x in row[2].split())
        assert low < rating < high
        assert row[4] == "40"
        assert row[5].endswith(" 20 games")
    assert "than round1, 20 games" in best[5]
    assert page.locator(".standings svg.interval").count() == 3
    assert page.get_by_text("Votes 60 · annotators 1 · prompts 20").count() == 1
    figure = page.locator("svg.bygeneration")
    assert figure.locator("circle").count() == 3
    assert "sft 1000 [1000, 1000]" in figure.get_attribute("aria-label")
    cell = page.locator(".rates tbody tr").first.locator("td").nth(1).inner_text().split("\n")
    assert cell[0].endswith(" %")
    assert cell[2] == "n 20"
    look(page)
    page.set_viewport_size(NARROW)
    look(page)


def test_what_is_chosen_is_asked_for_and_kept_in_the_address(page: Any, served: Served) -> None:
    with Store(served.path) as store:
        Accounts(store).add("ann", "annotator", by="test")
    fill(served, [("sft", "round1")])
    fill(served, [("round1", "round2")], by="ann")
    go(page, served)
    page.locator(".standings").wait_for(timeout=20_000)
    assert [row[1] for row in rows(page)] == ["round2", "round1", "sft"]
    page.get_by_role("button", name="People").click()
    wait(page, "Votes 20 · annotators 1")
    assert [(row[1], row[2].split()[0]) for row in rows(page)][-1] == ("sft", "none")
    assert "No chain of battles joins {round1, round2} and {sft}." in page.locator("div.notice").inner_text()
    assert page.url.endswith("?by=people")
    page.get_by_role("button", name="All").click()
    page.get_by_role("button", name="At equal length").click()
    wait(page, "times as long has its odds of winning multiplied by")
    wait(page, "only the ratings are those at equal length")
    page.get_by_label("Stands at 1000").select_option("round1")
    page.locator("tr", has_text="1000 anchor").filter(has_text="round1").wait_for(timeout=20_000)
    page.reload()
    page.locator("tr", has_text="1000 anchor").filter(has_text="round1").wait_for(timeout=20_000)
    assert page.get_by_role("button", name="At equal length").get_attribute("aria-pressed") == "true"
    page.get_by_label("Stands at 1000").select_option("")
    page.locator(".standings").filter(has_not_text="anchor").wait_for(timeout=20_000)
    assert "anchor=" in page.url


def test_before_there_is_enough_there_are_counts(page: Any, served: Served, look: Callable[[Any], None]) -> None:
    go(page, served)
    wait(page, "No battles yet")
    look(page)
    fill(served, [("sft", "round1")], 9)
    page.reload()
    wait(page, "9 of 10 votes")
    assert page.locator(".few tbody tr").all_inner_texts() == ["round1\t9", "sft\t9"]
    assert page.locator(".standings, svg.bygeneration, .rates").count() == 0
    look(page)
    with Store(served.path) as store:
        store.add_verdicts([Verdict(store.queries("arena")[0].id, "another", "left")])
    page.locator(".standings").wait_for(timeout=30_000)  # by itself


def test_the_missing_link_is_named_asked_for_and_answered(page: Any, served: Served) -> None:
    write_run(served.runs, "loop", {name: answers(name, 12) for name in (*NAMES, "round3")})
    [run] = kept_runs(served.runs)
    with Store(served.path) as store:
        Projects(store).save(Project(id="arena", purpose="arena", reveal=True, title="Arena"), by="test")
        queries = add_kept(store, Games(), run, [("sft", "round1"), ("round2", "round3")], limit=12).queries
        store.add_verdicts([Verdict(q.id, "judge", "left") for q in queries])
    go(page, served)
    wait(page, "The missing link is round1 against round2.")
    assert page.locator(".standings b").count() == 0, "nobody has a rating"
    page.get_by_role("button", name="Ask for 12 battles of round1 against round2").click()
    wait(page, "12 battles wait for an answer now")
    wait(page, "12 battles of these two wait for an answer.")
    page.get_by_role("link", name="Answer them").click()
    page.locator(".pane").first.wait_for(timeout=20_000)
    page.locator("body").press("ArrowLeft")
    wait(page, "Last battle: ")
    go(page, served)
    page.locator(".standings b").first.wait_for(timeout=20_000)
    assert page.locator("text=Not comparable yet").count() == 0
    before = page.locator(".offers li").count()
    page.get_by_role("button", name="Add: loop: sft against round2").click()
    wait(page, "12 battles wait for an answer now")
    page.locator(".offers li").nth(before - 1).wait_for(state="detached", timeout=20_000)


def test_a_battle_is_blind_until_the_vote(page: Any, served: Served, look: Callable[[Any], None]) -> None:
    write_run(served.runs, "loop", {name: answers(f"{name}", 6) for name in ("zebra-sft", "zebra-round1")})
    seen: list[str] = []
    page.on("response", lambda r: seen.append(r.text()) if "/claims" in r.url else None)
    go(page, served, "/battle")
    page.get_by_role("button", name="Set up battles").click()
    wait(page, "There are no questions yet")
    assert page.get_by_text("starter set").count() == 0, "it does not say who wrote what"
    with Store(served.path) as store:
        [project] = [p for p in Projects(store).all() if p.purpose == "arena"]
        assert (project.id, project.reveal) == ("arena", True)
        [run] = kept_runs(served.runs)
        add_kept(store, Games(), run, [("zebra-sft", "zebra-round1")], limit=6)
    page.locator(".pane").first.wait_for(timeout=20_000)
    assert "zebra" not in "".join(seen).replace("▇▇▇", "")
    assert "zebra" not in page.content()
    look(page)
    shown = page.locator(".pane .text").all_inner_texts()
    page.locator("body").press("ArrowRight")
    said = page.locator(".reveal")
    wait(page, "Last battle: Left: zebra-")
    with Store(served.path, read_only=True) as store:
        [verdict] = store.verdicts(purpose="arena")
        query = next(q for q in store.queries("arena") if q.id == verdict.query_id)
    won = query.policies[0] if verdict.choice == "left" else query.policies[1]
    assert said.inner_text().endswith(f"Right: {won}")
    assert shown != page.locator(".pane .text").all_inner_texts()
    assert page.get_by_role("button", name="Undo").count() == 0
    page.locator("body").press("z")
    wait(page, "so your answer stands")
    with Store(served.path, read_only=True) as store:
        assert len(store.verdicts(purpose="arena")) == 1


def test_keys_of_a_battle_do_nothing_elsewhere(page: Any, served: Served) -> None:
    fill(served, itertools.combinations(NAMES, 2), 8)
    with Store(served.path) as store:
        before = store.cursor
    for path, there in (("", ".standings"), ("/chat", ".empty")):
        go(page, served, path)
        page.locator(there).first.wait_for(timeout=20_000)
        for key in ("ArrowLeft", "ArrowRight", "ArrowDown", "x", "s", "1"):
            page.locator("body").press(key)
    page.locator("body").press("g")
    page.locator("body").press("a")
    page.locator(".standings").wait_for(timeout=20_000)
    with Store(served.path, read_only=True) as store:
        assert store.cursor == before


@pytest.fixture
def talkers(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two generations that a script speaks for."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    real = chat.Worker
    monkeypatch.setattr(chat, "Worker", lambda folder, _command: real(folder, (sys.executable, str(script), "{policy}")))
    return make_run(served.runs, "loop", "sft", "round1")


@pytest.mark.usefixtures("talkers")
def test_chat_by_keyboard(page: Any, served: Served, look: Callable[[Any], None]) -> None:
    go(page, served, "/chat")
    wait(page, "Say something to sft.")
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.keyboard.type("**Hello**")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    turns = page.locator(".turn")
    turns.nth(1).wait_for(timeout=20_000)
    assert turns.nth(0).locator(".text").inner_text() == "**Hello**\n<img src=x onerror=alert(1)>"
    answer = turns.nth(1).locator(".text")
    assert answer.locator("strong").inner_text() == "Hello"
    assert answer.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in answer.inner_text()
    look(page)
    page.keyboard.type("die")  # the process is killed; what was asked is not lost
    page.keyboard.press("Enter")
    wait(page, "the policy's process ended (signal SIGKILL)")
    assert page.locator("textarea").input_value() == "die"
    assert turns.count() == 2
    page.watch.errors = [each for each in page.watch.errors if "502" not in each]
    page.get_by_label("Policy").select_option("loop/round1")
    page.get_by_text("How it samples").click()
    page.get_by_label("Temperature").fill("0")
    page.locator("textarea").fill("again")
    page.keyboard.press("Enter")
    wait(page, "round1: again 0.0")
    page.set_viewport_size(NARROW)
    look(page)
    page.get_by_role("button", name="New conversation").click()
    wait(page, "Say something to round1.")
    assert turns.count() == 0


def test_what_nobody_may_do_is_not_there(browser: Any, served: Served) -> None:
    with Store(served.path) as store:
        accounts = Accounts(store)
        accounts.add("vic", "viewer", by="test")
        link = accounts.issue("link", "vic", by="test", seconds=60)
    write_run(served.runs, "loop", {name: answers(name) for name in NAMES})
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{served.address}/signin#{link}")
    page.wait_for_url("**/runs*")
    go(page, served)
    wait(page, "No battles yet")
    assert page.locator(".head .tabs a").all_inner_texts() == ["Ratings"]
    assert page.locator(".offers li").count() == 0
    for path in ("/battle", "/chat"):
        go(page, served, path)
        wait(page, "Your role does not open this part.")
    context.close()


def test_in_chinese_no_english_is_left(page: Any, served: Served) -> None:
    fill(served, itertools.combinations(NAMES, 2))
    page.context.add_cookies([{"name": "backflip_language", "value": "zh-CN", "url": served.address}])
    go(page, served, "?length=controlled")
    page.locator(".standings").wait_for(timeout=20_000)
    text = page.locator("main").inner_text()
    english = json.loads((Path(chat.__file__).parent / "locales" / "en.json").read_text())
    ours = {value for key, value in english.items() if key.startswith("arena.")}
    words = [value for value in ours if len(value) > 9 and "{" not in value]
    assert [value for value in words if value in text] == []
    assert "各代的评分" in text
