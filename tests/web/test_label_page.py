"""The Label page in a real browser: every key counts once, offline or not, and the next question is there at once."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import pytest

from backflip.records import Prompt, Query
from backflip.store import Store
from backflip.store.projects import Project, Projects
from tests.web.conftest import Served, pairs

pytestmark = pytest.mark.slow

MEASURE = """() => {
  window.measured = { painted: [], pressed: 0, keys: [], stored: [] };
  addEventListener("keydown", (event) => {
    if (event.key === "Shift") return;
    window.measured.pressed = performance.now();
    window.measured.keys.push(window.measured.pressed);
  }, true);
  const send = window.fetch;
  window.fetch = async (address, options) => {  // the server answers once the answers are on its disk, in the order of the keys
    const response = await send(address, options);
    if (String(address).endsWith("/events") && response.ok)
      for (const _ of JSON.parse(options.body).events)
        window.measured.stored.push(performance.now() - window.measured.keys.shift());
    return response;
  };
  const painted = (since) => {
    const after = new MessageChannel();  // its message comes once the frame is on the screen
    after.port1.onmessage = () => window.measured.painted.push(performance.now() - since);
    after.port2.postMessage(0);
  };
  new MutationObserver(() => {
    const since = window.measured.pressed;
    window.measured.pressed = 0;
    if (since) requestAnimationFrame(() => painted(since));
  }).observe(document.querySelector(".labelling .labelling"), { childList: true });
}"""


def ask(served: Served, queries: list[Query], **settings: Any) -> None:
    with Store(served.path) as store:
        store.add_queries(queries)
        if settings:
            Projects(store).save(Project(**settings), by="test")


def verdicts(served: Served) -> list[Any]:
    with Store(served.path, read_only=True) as store:
        return store.verdicts()


def wait_for(what: Any, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def until(page: Any, script: str, arg: Any = None, seconds: float = 15.0) -> None:
    """Wait until a script says true. Playwright's own way needs `eval`, which the pages forbid."""
    wait_for(lambda: page.evaluate(script, arg), seconds)


def open_label(page: Any, served: Served, project: str = "main") -> None:
    page.goto(f"{served.address}/label/{project}")
    page.wait_for_selector(".pane")


def prompt(page: Any) -> str:
    return str(page.locator(".prompt .text").inner_text())


def press(page: Any, key: str) -> None:
    """Press a key and wait until another question is on the page."""
    before = prompt(page)
    page.keyboard.press(key)
    until(page, "before => document.querySelector('.prompt .text')?.innerText !== before", before)


def test_200_keypresses_are_200_answers(page: Any, served: Served) -> None:
    ask(served, pairs(230))
    open_label(page, served)
    page.evaluate(MEASURE)
    for i in range(200):
        press(page, ("ArrowLeft", "ArrowRight", "ArrowDown", "g", "x", "Shift+ArrowLeft")[i % 6])
    wait_for(lambda: len(verdicts(served)) == 200)
    stored = verdicts(served)
    assert len({v.query_id for v in stored}) == 200
    codes = [(v.choice if v.choice in ("tie", "skip") else "side", v.code, v.strength) for v in stored]
    expected = [("side", "", 2), ("side", "", 2), ("tie", "equal", 0), ("tie", "good", 0), ("tie", "bad", 0), ("side", "", 4)]
    assert codes == [expected[i % 6] for i in range(200)]
    page.wait_for_selector("#connection[data-state=saved]")
    for what, least in (("painted", 195), ("stored", 200)):
        taken = sorted(page.evaluate("what => window.measured[what]", what))
        assert len(taken) >= least
        print(f"key → {what}: p50 {statistics.median(taken):.1f} ms, p95 {taken[int(0.95 * len(taken))]:.1f} ms")


def test_offline_votes_survive_a_reload_and_are_stored_once(page: Any, served: Served) -> None:
    ask(served, pairs(12))
    open_label(page, served)
    press(page, "ArrowLeft")
    wait_for(lambda: len(verdicts(served)) == 1)
    page.route("**/api/v1/**", lambda route: route.abort())
    for _ in range(3):
        press(page, "ArrowRight")
    page.wait_for_selector("#connection[data-state=offline]")
    assert "3" in page.locator("#connection").inner_text()
    page.reload()
    page.wait_for_selector("#connection[data-state=offline]")
    assert len(verdicts(served)) == 1
    page.get_by_role("heading", name="Waiting for the server").wait_for()
    page.unroute("**/api/v1/**")  # the page goes on by itself
    page.wait_for_selector(".pane")
    wait_for(lambda: len(verdicts(served)) == 4)
    page.wait_for_selector("#connection[data-state=saved]")
    stored = verdicts(served)
    assert len({v.query_id for v in stored}) == 4
    press(page, "ArrowLeft")
    wait_for(lambda: len(verdicts(served)) == 5)
    assert len({v.query_id for v in verdicts(served)}) == 5, "nothing that was answered offline is asked again"
    page.watch.errors.clear()  # the browser reports every request that the route aborted
    page.watch.foreign.clear()


def test_what_the_server_refuses_is_put_aside_and_the_rest_is_sent(page: Any, served: Served) -> None:
    ask(served, pairs(12))
    open_label(page, served)
    full = [True]

    def answer(route: Any) -> None:
        if full[0]:
            route.fulfill(status=507, content_type="application/json", body=json.dumps({"detail": "the disk is full"}))
        else:
            route.continue_()

    page.route("**/api/v1/events", answer)
    press(page, "ArrowLeft")
    press(page, "ArrowLeft")
    page.wait_for_selector("#connection[data-state=waiting]")
    assert "disk is full" in page.locator(".foot").inner_text()
    assert verdicts(served) == []
    full[0] = False
    page.wait_for_selector("#connection[data-state=saved]")  # a sleep here would keep the route from being served
    assert len(verdicts(served)) == 2
    page.unroute("**/api/v1/events")
    page.route(
        "**/api/v1/events",
        lambda route: route.fulfill(
            status=200, content_type="application/json",
            body=json.dumps({"outcomes": [
                {"key": e["key"], "status": "refused", "event": 0, "error": "no such view", "reveal": {}}
                for e in json.loads(route.request.post_data)["events"]
            ]}),
        ),
    )  # fmt: skip
    press(page, "ArrowLeft")
    attention = page.locator(".foot button")
    attention.wait_for()
    attention.click()
    assert "no such view" in page.locator("dialog").inner_text()
    page.unroute("**/api/v1/events")
    page.watch.errors.clear()


def test_a_session_that_ends_keeps_the_outbox(page: Any, served: Served) -> None:
    with Store(served.path) as store:
        from backflip.store.accounts import Accounts

        Accounts(store).change("owner", by="test", password="a long password")
    page.goto(served.new_link())
    page.wait_for_url("**/label*")
    ask(served, pairs(8))
    open_label(page, served)
    page.context.clear_cookies()
    press(page, "ArrowLeft")
    dialog = page.locator("dialog[data-signin]")
    dialog.wait_for()
    dialog.locator("input").fill("a long password")
    dialog.locator("button.main").click()
    wait_for(lambda: len(verdicts(served)) == 1)
    assert [v.annotator for v in verdicts(served)] == ["owner"]
    page.watch.errors.clear()  # the browser reports the 401


def test_composition_held_keys_and_fields_never_answer(page: Any, served: Served) -> None:
    ask(served, pairs(8))
    open_label(page, served)
    page.evaluate(
        """() => {
          const both = { bubbles: true, cancelable: true };
          const send = (init) => document.body.dispatchEvent(new KeyboardEvent("keydown", { ...both, ...init }));
          send({ key: "ArrowLeft", isComposing: true });
          send({ key: "Process", keyCode: 229 });
          send({ key: "g", isComposing: true });
          for (let i = 0; i < 20; i += 1) send({ key: "ArrowLeft", repeat: true });
          for (const held of ["ctrlKey", "metaKey", "altKey"]) send({ key: "ArrowLeft", [held]: true });
        }"""
    )
    page.keyboard.press("r")
    field = page.locator(".tray textarea")
    field.type("gxs because")
    page.keyboard.press("ArrowLeft")
    field.evaluate(
        "e => e.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, isComposing: true, bubbles: true}))"
    )
    assert field.is_visible()
    page.keyboard.press("Control+Enter")
    assert verdicts(served) == []
    press(page, "ArrowLeft")
    wait_for(lambda: len(verdicts(served)) == 1)
    assert verdicts(served)[0].note == "gxs because"


def test_undo_to_fifty_and_redo(page: Any, served: Served) -> None:
    ask(served, pairs(70))
    open_label(page, served)
    seen = [prompt(page)]
    for _ in range(52):
        press(page, "ArrowLeft")
        seen.append(prompt(page))
    for i in range(50):
        page.keyboard.press("Backspace" if i % 2 else "z")
        until(page, "text => document.querySelector('.prompt .text').innerText === text", seen[51 - i])
    page.keyboard.press("z")
    wait_for(lambda: len(verdicts(served)) == 2)
    assert "nothing left" in page.locator(".foot").inner_text()
    page.keyboard.press("y")
    page.keyboard.press("y")
    wait_for(lambda: len(verdicts(served)) == 4)
    assert prompt(page) == seen[4]
    with Store(served.path) as store:
        assert store.verify().retractions == 50


def test_skips_notes_edits_flags_and_spans(page: Any, served: Served) -> None:
    ask(served, pairs(8))
    open_label(page, served)
    page.keyboard.press("f")
    page.locator(".tray textarea").fill("no question")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("e")
    page.locator(".tray textarea").fill("as it should be")
    page.keyboard.press("Control+Enter")
    page.locator(".pane .text").first.locator("p").select_text()
    page.mouse.up()
    page.locator(".tray textarea").fill("wrong")
    page.keyboard.press("Control+Enter")
    before = prompt(page)
    page.keyboard.press("s")
    page.keyboard.press("5")
    until(page, "before => document.querySelector('.prompt .text').innerText !== before", before)
    wait_for(lambda: len(verdicts(served)) == 1)
    assert (verdicts(served)[0].choice, verdicts(served)[0].code) == ("skip", "cannot")
    with Store(served.path, read_only=True) as store:
        notes = {event.kind: event.payload for event in store.events() if event.view_id}
    assert notes["flag"] == {"note": "no question"}
    assert notes["edit"]["text"] == "as it should be"
    assert (notes["span"]["start"], notes["span"]["end"], notes["span"]["of"], notes["span"]["tag"]) == (
        0,
        9,
        "rendered",
        "wrong",
    )


def test_ranking_with_keys_and_by_clicks(page: Any, served: Served) -> None:
    texts = ("w", "x", "y", "z")
    ask(served, [Query(Prompt(f"p{i}"), texts, purpose="four") for i in range(3)], id="four", purpose="four")
    open_label(page, served, "four")
    shown = page.locator(".pane .text").all_inner_texts()
    for key in "42=13":
        page.keyboard.press(key)
    page.keyboard.press("Backspace")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    wait_for(lambda: len(verdicts(served)) == 1)
    groups = [{texts[i] for i in group} for group in verdicts(served)[0].ranking]
    assert groups == [{shown[3]}, {shown[1], shown[0]}, {shown[2]}]
    until(page, "() => document.querySelector('.prompt .text').innerText === 'p1'")
    shown = page.locator(".pane .text").all_inner_texts()
    for place in (2, 0, 3):
        page.locator(".pane").nth(place).click()
    page.locator(".chip").nth(2).focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Done").click()
    wait_for(lambda: len(verdicts(served)) == 2)
    assert [texts[group[0]] for group in verdicts(served)[1].ranking] == [shown[2], shown[3], shown[0], shown[1]]


def test_rating_by_keys(page: Any, served: Served) -> None:
    ask(served, [Query(Prompt("p"), ("x", "y", "z"), purpose="rate")], id="rate", purpose="rate", answers="rate")
    open_label(page, served, "rate")
    shown = page.locator(".pane .text").all_inner_texts()
    page.keyboard.press("Enter")
    assert "no score yet" in page.locator(".foot").inner_text()
    for key in "275":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    wait_for(lambda: len(verdicts(served)) == 1)
    scores = dict(zip(("x", "y", "z"), verdicts(served)[0].scores, strict=True))
    assert [scores[text] for text in shown] == [2, 7, 5]


def test_clips_play_in_step_and_are_watched_to_the_end(page: Any, served: Served) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    import numpy as np

    from backflip.store.clips import encode

    def clip(shade: int, n: int) -> bytes:
        frames = []
        for t in range(n):
            frame = np.full((90, 120, 3), shade, np.uint8)
            frame[30:60, 2 * t : 2 * t + 20] = 255 - shade
            frames.append(frame)
        return encode(frames, fps=15)

    with Store(served.path) as store:
        projects = Projects(store)
        names = [projects.add_media(clip(shade, n), "video/webm") for shade, n in ((40, 24), (90, 30))]
        projects.save(Project(id="clips", purpose="clips"), by="test")
        store.add_queries([Query(Prompt(""), tuple(names), purpose="clips", form="clip")])
    open_label(page, served, "clips")
    until(page, "() => [...document.querySelectorAll('video')].every(v => v.readyState >= 3 && v.currentTime > 0.2)")
    gaps = page.evaluate(
        """async () => {
          const [a, b] = document.querySelectorAll("video"), gaps = [];
          for (let i = 0; i < 40; i += 1) {
            await new Promise(requestAnimationFrame);
            if (!a.ended && !b.ended && !a.seeking && !b.seeking) gaps.push(Math.abs(a.currentTime - b.currentTime));
          }
          return gaps;
        }"""
    )
    assert statistics.median(gaps) < 1 / 15, "less than a frame apart"
    page.keyboard.press("ArrowLeft")
    assert verdicts(served) == []
    until(page, "() => [...document.querySelectorAll('video')].some(v => v.ended)")
    page.wait_for_timeout(1200)
    page.keyboard.press(" ")
    until(page, "() => [...document.querySelectorAll('video')].every(v => v.paused)")
    page.keyboard.press(",")
    page.wait_for_timeout(150)
    first, second = page.evaluate("() => [...document.querySelectorAll('video')].map(v => v.currentTime)")
    assert abs(first - second) < 0.02
    page.keyboard.press("]")
    assert page.evaluate("() => document.querySelector('video').playbackRate") == 1.5
    page.keyboard.press("ArrowRight")
    wait_for(lambda: len(verdicts(served)) == 1)


def test_a_clip_that_is_missing_says_so_and_can_be_skipped(page: Any, served: Served) -> None:
    ask(served, [Query(Prompt(""), ("0" * 64, "1" * 64), purpose="clips", form="clip")], id="clips", purpose="clips")
    open_label(page, served, "clips")
    page.get_by_text("cannot be played").first.wait_for()
    assert page.locator(".skips").is_visible()
    page.keyboard.press("3")
    wait_for(lambda: len(verdicts(served)) == 1)
    assert verdicts(served)[0].code == "broken"
    page.watch.errors.clear()  # the browser reports the 404s


def test_when_everything_is_answered_the_page_says_so_and_goes_on_by_itself(page: Any, served: Served) -> None:
    open_label_empty = page.get_by_role("heading", name="Nothing to compare right now")
    open_label_empty.wait_for()
    ask(served, pairs(1))
    page.wait_for_selector(".pane", timeout=10_000)
    page.keyboard.press("ArrowLeft")
    page.get_by_role("heading", name="You have done everything there is").wait_for()
    wait_for(lambda: len(verdicts(served)) == 1)
    assert "1 of 1" in page.locator(".foot").inner_text()


def test_counts_that_the_server_made_before_an_answer_are_not_told_after_it(page: Any, served: Served) -> None:
    ask(served, pairs(3))
    open_label(page, served)
    page.keyboard.press("ArrowLeft")
    wait_for(lambda: len(verdicts(served)) == 1)
    page.wait_for_timeout(300)
    held: list[Any] = []
    page.route("**/claims", lambda route: held.append((route, route.fetch())))
    page.keyboard.press("ArrowLeft")
    wait_for(lambda: (page.wait_for_timeout(20), held)[1])
    page.keyboard.press("ArrowLeft")
    until(page, "() => document.querySelector('.foot').innerText.startsWith('3 of 3')")
    for route, response in held:
        route.fulfill(response=response)  # counted before the last answer
    page.unroute("**/claims")
    page.wait_for_timeout(300)
    assert page.locator(".foot").inner_text().startswith("3 of 3")


def test_keys_that_lead_elsewhere_and_the_key_sheet(page: Any, served: Served) -> None:
    ask(served, pairs(3))
    open_label(page, served)
    page.keyboard.press("?")
    assert "Both are bad" in page.locator("dialog").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert verdicts(served) == []
    page.keyboard.press("Shift+G")
    page.keyboard.press("q")
    page.wait_for_url("**/agreement")
