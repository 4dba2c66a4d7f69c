"""The Agreement page in a real browser: what it says in words, deciding by keys alone, nothing lost, nothing that runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from backflip.records import Prompt, Query, Verdict
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.events import Event
from backflip.store.projects import Project, Projects
from tests.web.agreement_data import PEOPLE, differing
from tests.web.conftest import Served, Watch
from tests.web.test_label_page import until, wait_for

pytestmark = pytest.mark.slow


def ask(served: Served, queries: list[Query], verdicts: list[Verdict], **settings: Any) -> None:
    with Store(served.path) as store:
        accounts = Accounts(store)
        for name in PEOPLE:
            if accounts.person(name) is None:
                accounts.add(name, "annotator", by="test")
        if settings:
            Projects(store).save(Project(**settings), by="test")
        store.add_queries(queries)
        store.add_verdicts(verdicts)


def open_page(page: Any, served: Served, project: str = "main", *, desk: bool = True) -> None:
    page.goto(f"{served.address}/agreement/{project}")
    page.wait_for_selector(".box .pane" if desk else ".figures:not([hidden])")


def decisions(served: Served) -> list[Event]:
    with Store(served.path, read_only=True) as store:
        return store.events_of("adjudicate", 1000)


def position(page: Any) -> str:
    return str(page.locator(".box .row .number").first.inner_text())


def shown(page: Any) -> list[str]:
    return [str(text) for text in page.locator(".box .pane .text").all_inner_texts()]


def press(page: Any, key: str) -> None:
    """Press a key and wait until another question is on the desk."""
    before = position(page)
    page.keyboard.press(key)
    until(page, "before => document.querySelector('.box .row .number').innerText !== before", before)
    page.wait_for_selector(".box .pane")


def test_the_figures_stand_there_in_words(page: Any, served: Served) -> None:
    ask(served, *differing(60))
    open_page(page, served)
    said = page.locator("main").inner_text()
    assert "From 240 answers to 60 questions" in said
    assert "Krippendorff's α, 95 % interval" in said
    assert "from 60 pairs that two people or more compared" in said
    assert "The same answer" in said
    assert "Gwet's AC₁" in said
    assert "lena picks the left one in 100 % of 60 pairs; by chance in less than 1 of 1,000,000,000." in said
    raters = page.locator(".raters tbody tr")
    assert raters.count() == 4
    assert [raters.nth(i).locator("th").inner_text().split("\n")[0] for i in range(4)] == [*PEOPLE, "reward model"]
    assert "machine" in raters.nth(3).inner_text()
    assert "n 60" in raters.nth(0).inner_text()
    matrix = page.locator(".matrix")
    assert matrix.locator("thead th").count() == 4
    assert matrix.locator("tbody td .value").count() == 12
    assert "zebra" not in page.content()


def test_deciding_by_keys_alone(page: Any, served: Served) -> None:
    queries, verdicts = differing(30)
    ask(served, queries, verdicts)
    open_page(page, served)
    total = int(position(page).split(" of ")[1])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.keyboard.press("d")
    assert page.evaluate("() => document.activeElement.classList.contains('box')")
    page.keyboard.press("Enter")
    assert "Choose first" in page.locator(".said").inner_text()

    chosen = shown(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("r")
    page.keyboard.type("because it is so")
    page.keyboard.press("Escape")
    press(page, "Enter")
    assert "Kept: Left is better" in page.locator(".said").inner_text()
    wait_for(lambda: len(decisions(served)) == 1)
    [event] = decisions(served)
    left = next(query for query in queries if query.id == event.payload["query_id"])
    index = 0 if chosen[0].startswith("Answer A") else 1
    assert (event.actor, event.payload["choice"], event.payload["shown_first"], event.payload["note"]) == (
        "owner", ("left", "right")[index], index, "because it is so",
    )  # fmt: skip
    assert left.completions[index].split()[1] == chosen[0].split()[1]

    press(page, "s")
    page.keyboard.press("ArrowDown")
    press(page, "Enter")
    wait_for(lambda: len(decisions(served)) == 2)
    assert decisions(served)[1].payload["choice"] == "tie"
    assert position(page) == f"4 of {total}"
    press(page, "z")
    page.get_by_text("What was decided").wait_for()
    assert "owner" in page.locator(".decided").inner_text()

    page.get_by_role("button", name="Decided (2)").click()
    until(page, "() => document.querySelectorAll('.contested li').length === 2")
    page.locator(".contested button").nth(1).click()  # the newest stands first
    page.get_by_text("because it is so").wait_for()
    with Store(served.path, read_only=True) as store:
        assert len(store.verdicts()) == len(verdicts)
        store.verify()


def test_keys_mean_the_question_that_is_still_on_its_way(page: Any, served: Served) -> None:
    queries, verdicts = differing(20)
    ask(served, queries, verdicts)
    open_page(page, served)
    page.locator(".box").focus()
    late: list[str] = []

    def slow(route: Any) -> None:
        late.append(route.request.url.rsplit("/", 1)[1])
        time.sleep(0.3)
        route.continue_()

    page.route("**/items/*", slow)
    for _ in range(3):  # past what was fetched ahead
        page.keyboard.press("s")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(lambda: len(decisions(served)) == 1)
    current = page.locator(".contested button").nth(3)
    assert "decided" in current.inner_text()
    [event] = decisions(served)
    assert event.payload["choice"] == "tie"
    assert event.payload["query_id"] in late
    page.unroute("**/items/*")


def test_arrows_elsewhere_decide_nothing(page: Any, served: Served) -> None:
    ask(served, *differing(20))
    open_page(page, served)
    page.locator("h1").click()
    for key in ("ArrowDown", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.locator(".contested button").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("() => [...document.querySelectorAll('.contested button')].indexOf(document.activeElement)") == 1
    assert page.locator(".contested button[tabindex='0']").count() == 1
    page.wait_for_timeout(200)
    assert decisions(served) == []
    assert page.locator(".box [aria-pressed='true']").count() == 0


def test_a_ranking_is_decided_by_numbers(page: Any, served: Served) -> None:
    query = Query(Prompt("best?"), ("w", "x", "y", "z"), purpose="four")
    given = [
        Verdict(query.id, "ann", "ranking", ((0,), (1,), (2,), (3,))),
        Verdict(query.id, "bob", "ranking", ((3,), (2, 1), (0,))),
    ]
    ask(served, [query], given, id="four", purpose="four")
    open_page(page, served, "four")
    places = {text: i for i, text in enumerate(shown(page), 1)}
    order = " > ".join(str(places[text]) for text in "wxyz")
    assert order in page.locator(".opinions").inner_text()
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    assert "Press the numbers first" in page.locator(".said").inner_text()
    for key in (places["z"], places["x"], "=", places["y"]):
        page.keyboard.press(str(key))
    page.keyboard.press("Enter")
    wait_for(lambda: len(decisions(served)) == 1)
    ranking = decisions(served)[0].payload["ranking"]
    assert [sorted(group) for group in ranking] == [[3], [1, 2], [0]]


def test_a_decision_that_cannot_be_sent_is_kept_and_sent_once(page: Any, served: Served) -> None:
    ask(served, *differing(20))
    open_page(page, served)
    page.route("**/adjudications", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    page.keyboard.press("d")
    page.keyboard.press("ArrowLeft")
    press(page, "Enter")
    until(page, "() => document.getElementById('connection').dataset.state === 'offline'")
    assert decisions(served) == []
    page.unroute("**/adjudications")
    open_page(page, served)  # another page finds what this one left
    wait_for(lambda: len(decisions(served)) == 1)
    until(page, "() => document.getElementById('connection').dataset.state === 'saved'")
    page.reload()
    page.wait_for_selector(".box .pane")
    assert len(decisions(served)) == 1
    page.watch.errors.clear()  # the browser reports the request that was cut off


def test_nothing_in_a_text_runs(page: Any, served: Served) -> None:
    nasty = (
        '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><svg onload=window.pwned=1>[x](javascript:alert(1))'
    )
    query = Query(Prompt(nasty), (nasty, f"{nasty} too"), policies=("zebra-one", "zebra-two"))
    ask(served, [query], [Verdict(query.id, "ann", "left", note=nasty), Verdict(query.id, "bob", "right", note="no")])
    with Store(served.path) as store:
        store.add_verdicts([Verdict(query.id, "<b>machine</b>", "tie", note=nasty)])
        store.adjudicate(Verdict(query.id, "<i>eve</i>", "left", note=nasty), key="k")
    open_page(page, served)
    page.get_by_text("What was decided").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.pwned") is None
    assert page.locator("main img, main script, main svg:not(.board), main .text a").count() == 0
    assert page.locator("main b b, main i").count() == 0
    assert "<img src=x" in page.locator(".opinions blockquote").first.inner_text()


def test_nobody_answered_twice_yet(page: Any, served: Served) -> None:
    queries, _ = differing(140)
    ask(served, queries, [Verdict(query.id, "ann", "left") for query in queries[:30]])
    open_page(page, served, desk=False)
    page.get_by_text("Agreement needs questions that two people answered: 0 of 140 so far").wait_for()
    page.get_by_role("link", name="To the project's settings").click()
    page.wait_for_url("**/projects/main")
    assert page.url == f"{served.address}/projects/main"


def test_where_every_answer_is_the_same_it_says_why_there_is_no_figure(page: Any, served: Served) -> None:
    queries, _ = differing(10)
    ask(served, queries, [Verdict(query.id, name, "left") for query in queries for name in ("ann", "bob")])
    open_page(page, served, desk=False)
    assert "Every answer is the same, so agreement cannot be told from chance" in page.locator(".figures").inner_text()
    assert "100 %" in page.locator(".beside").inner_text()
    page.get_by_text("There is no question on which two people differ.").wait_for()


def test_a_viewer_looks_and_does_not_decide(browser: Any, served: Served) -> None:
    ask(served, *differing(20))
    with Store(served.path) as store:
        accounts = Accounts(store)
        accounts.add("vic", "viewer", by="test")
        link = accounts.issue("link", "vic", by="test", seconds=60)
    context = browser.new_context(viewport={"width": 360, "height": 740}, locale="zh-CN")
    page, watch = context.new_page(), Watch()
    watch.on(page, served.address)
    page.goto(f"{served.address}/signin#{link}")
    page.wait_for_url("**/runs*")
    open_page(page, served)
    assert page.locator(".box .bottom").is_hidden()
    page.locator(".box").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert "一致性" in page.locator("h1").inner_text()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    page.goto(f"{served.address}/agreement/nowhere")
    page.get_by_text("没有这个项目").wait_for()
    context.close()
    assert (watch.errors, watch.foreign) == ([], [])
    assert decisions(served) == []


def test_the_page_goes_on_by_itself_and_leaves_the_desk_alone(page: Any, served: Served) -> None:
    ask(served, *differing(20))
    open_page(page, served)
    page.keyboard.press("d")
    page.keyboard.press("ArrowRight")
    before = shown(page)
    later = Query(Prompt("later"), ("a", "b"))
    ask(served, [later], [Verdict(later.id, "ann", "left"), Verdict(later.id, "bob", "right")])
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("From 82 answers to 21 questions").wait_for()
    assert shown(page) == before
    assert page.locator(".box [aria-pressed='true']").count() == 1
    assert page.evaluate("() => document.activeElement.classList.contains('box')")


def test_boards_are_drawn_and_a_viewer_is_told_of_clips(page: Any, browser: Any, served: Served) -> None:
    board = Query(Prompt(""), ('{"rows": ["X.", ".O"]}', '{"rows": ["O.", ".X"]}'), purpose="boards", form="board")
    clip = Query(Prompt(""), ("0" * 64, "1" * 64), purpose="clips", form="clip")
    for query in (board, clip):
        given = [Verdict(query.id, "ann", "left"), Verdict(query.id, "bob", "right")]
        ask(served, [query], given, id=query.purpose, purpose=query.purpose)
    open_page(page, served, "boards")
    assert page.locator(".box svg.board").count() == 2
    page.keyboard.press("d")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(lambda: len(decisions(served)) == 1)
    with Store(served.path) as store:
        accounts = Accounts(store)
        accounts.add("vic", "viewer", by="test")
        link = accounts.issue("link", "vic", by="test", seconds=60)
    context = browser.new_context(locale="en-US")
    viewer, watch = context.new_page(), Watch()
    watch.on(viewer, served.address)
    viewer.goto(f"{served.address}/signin#{link}")
    viewer.wait_for_url("**/runs*")
    open_page(viewer, served, "clips", desk=False)
    viewer.get_by_text("This question shows clips, which your role does not open.").wait_for()
    assert "Left is better" in viewer.locator(".opinions").inner_text()
    context.close()
    assert (watch.errors, watch.foreign) == ([], [])
