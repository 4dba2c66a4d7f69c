"""The Projects and People pages in a real browser: by mouse, by keyboard alone, small, dark, in both languages."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from backflip.records import Verdict
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Project, Projects
from tests.web.conftest import Served, Watch, pairs

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


def jsonl(*rows: Any, name: str = "mine.jsonl") -> dict[str, Any]:
    return {"name": name, "mimeType": "application/jsonl", "buffer": "\n".join(json.dumps(row) for row in rows).encode()}


NAMED = """name => {
  const at = document.activeElement;
  return (at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent ?? at.textContent).trim().startsWith(name);
}"""


def tab_to(page: Any, name: str, most: int = 60) -> None:
    """Press Tab until the element with this accessible name or text has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(NAMED, name):
            return
    raise AssertionError(f"{name!r} is not reached by Tab")


def test_a_project_is_made_filled_and_changed(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/projects")
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Id", exact=True).fill("haiku")
    page.get_by_label("Title").fill("Haiku")
    page.get_by_label("Question", exact=True).fill("Which is the **better** haiku? <img src=x>")
    preview = page.get_by_role("region", name="Question: As people see it")
    expect(preview.locator("strong")).to_have_text("better")
    expect(preview).to_contain_text("<img src=x>")
    page.get_by_label("Answers for each question").fill("3")
    page.get_by_label("Questions with a known answer, %").fill("7.5")
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/haiku")
    page.get_by_label("Say after each answer").check()
    page.get_by_label("Guideline", exact=True).fill("# How\n\n1. Count\n2. Feel")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    with Store(served.path, read_only=True) as store:
        made = Projects(store).get("haiku")
    assert made == Project(
        id="haiku", purpose="haiku", title="Haiku", question="Which is the **better** haiku? <img src=x>", overlap=3,
        guideline="# How\n\n1. Count\n2. Feel", gold_share=0.075, reveal=True,
    )  # fmt: skip
    page.get_by_label("Questions shown again, %").fill("45")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="together at most 0.5")).to_be_visible()
    page.watch.errors.clear()  # the 422
    page.on("dialog", lambda dialog: dialog.accept())  # it asks before leaving: there is something unsaved
    page.goto(f"{served.address}/projects")
    expect(page.get_by_role("listitem").filter(has_text="Haiku")).to_contain_text("no questions yet")


def test_files_are_taken_whole_or_not_at_all(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/projects/main#bring")
    good, bad = {"prompt": "P", "completions": ["a", "b"]}, {"promt": "P", "completions": ["a", "b"]}
    page.set_input_files("input[type=file]", jsonl(good, bad))
    refused = page.locator("#bring").get_by_role("alert")
    expect(refused).to_contain_text("Nothing of mine.jsonl was taken: the file, line 2: no column 'prompt'")
    page.watch.errors.clear()  # the 422
    page.set_input_files("input[type=file]", jsonl(good, {"prompt": "Q", "chosen": "a", "rejected": "b"}))
    expect(page.locator("#bring")).to_contain_text("2 new questions and answers in 2 rows of mine.jsonl.")
    expect(refused).to_be_hidden()
    expect(page.locator(".figures div").first).to_contain_text("2")
    page.get_by_label("The rows become").select_option("true")
    drop = page.evaluate_handle(
        "text => { const t = new DataTransfer(); t.items.add(new File([text], 'dropped.jsonl')); return t; }",
        json.dumps({"prompt": "G", "completions": ["a", "b"], "choice": "right"}),
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": drop})
    expect(page.locator("#bring")).to_contain_text("1 new questions and answers in 1 rows of dropped.jsonl.")
    with Store(served.path, read_only=True) as store:
        assert list(Projects(store).golds().values()) == ["right"]
        assert len(store.queries("train")) == 2


def test_everything_is_exported(page: Any, served: Served) -> None:
    with Store(served.path) as store:
        store.add_queries(pairs(3))
    page.goto(f"{served.address}/projects")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").click()
    assert waiting.value.suggested_filename == "backflip.jsonl"
    assert len(waiting.value.path().read_text().splitlines()) == 3


def test_somebody_who_finds_nothing_to_label_can_start_at_once(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/label/main")
    expect(page.get_by_role("link", name="Import questions")).to_have_attribute("href", "/projects/main#bring")
    tab_to(page, "Load the starter set")
    page.wait_for_timeout(4500)  # the page asks for questions meanwhile
    page.keyboard.press("Enter")
    expect(page.locator(".pane")).to_have_count(2)
    page.goto(f"{served.address}/projects/main")
    page.get_by_role("button", name="Load the starter set").click()
    expect(page.get_by_text("The starter set is there already.")).to_be_visible()
    with Store(served.path, read_only=True) as store:
        assert len(store.queries("train")) >= 30


def test_whoever_may_only_label_is_offered_nothing(browser: Any, served: Served) -> None:
    with Store(served.path) as store:
        accounts = Accounts(store)
        accounts.add("ann", "annotator", by="test")
        link = accounts.issue("link", "ann", by="test", seconds=60)
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{served.address}/signin#{link}")
    expect(page.get_by_text("Nothing to compare right now")).to_be_visible()
    assert page.get_by_role("button", name="Load the starter set").count() == 0
    page.goto(f"{served.address}/people")
    expect(page.get_by_role("heading", name="Not for you")).to_be_visible()
    context.close()


def test_a_person_is_let_in_and_shut_out(page: Any, served: Served, browser: Any) -> None:
    page.goto(f"{served.address}/people")
    page.get_by_text("Add somebody").first.click()
    page.locator("details.more").get_by_label("Name").fill("ann")
    page.get_by_role("button", name="Add somebody").click()
    page.get_by_role("button", name="Change ann").click()
    page.get_by_role("button", name="Make a sign-in link").click()
    link = page.get_by_role("textbox", name="Sign-in link of ann").input_value()
    page.get_by_role("button", name="Close").click()
    assert page.get_by_role("textbox", name="Sign-in link of ann").count() == 0
    context = browser.new_context(locale="en-US")
    other = context.new_page()
    other.goto(link)
    other.wait_for_url("**/label*")
    page.get_by_role("button", name="Change ann").click()
    page.get_by_label("May sign in").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row").filter(has_text="ann")).to_contain_text("may not sign in")
    other.goto(f"{served.address}/label")
    other.wait_for_url("**/signin")
    context.close()


def test_an_invitation_and_a_token_are_shown_once(page: Any, served: Served, browser: Any) -> None:
    page.goto(f"{served.address}/people")
    page.get_by_role("button", name="Invite").click()
    link = page.get_by_role("textbox", name="Invitation link").input_value()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Annotator, by owner")).to_be_visible()
    context = browser.new_context(locale="en-US")
    other = context.new_page()
    other.goto(link)
    other.get_by_label("Name").fill("joe")
    other.get_by_label("New password").fill("correct horse")
    other.get_by_role("button", name="Join").click()
    other.wait_for_url("**/label*")
    context.close()
    page.get_by_role("button", name="Issue a token").click()
    field = page.get_by_role("textbox", name="Token of owner")
    expect(field).to_have_value(re.compile("^bf_[0-9a-f]{16}_"))
    carried = field.input_value()
    page.keyboard.press("Escape")
    page.reload()
    expect(page.get_by_text("No invitation waits")).to_be_visible()
    assert carried[20:] not in page.content()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("There are no tokens.")).to_be_visible()
    with Store(served.path, read_only=True) as store:
        assert Accounts(store).held("token") == []


def test_what_was_changed_is_listed_and_the_store_verified(page: Any, served: Served) -> None:
    with Store(served.path) as store:
        for i in range(25):
            Projects(store).save(Project(id=f"p{i}", purpose=f"p{i}"), by="owner")
    page.goto(f"{served.address}/people")
    rows = page.locator(".audit > li")
    expect(rows).to_have_count(20)
    expect(rows.first).to_contain_text("owner made project p24")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(28)
    expect(page.get_by_role("button", name="Older")).to_be_hidden()
    expect(rows.last).to_contain_text("studio added owner as Owner")
    page.get_by_role("button", name="Verify the store").click()
    expect(page.get_by_text("Everything holds: 0 questions, 0 answers")).to_be_visible()
    assert rows.count() == 28


def test_a_token_is_issued_and_revoked_by_keyboard_alone(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/people")
    expect(page.get_by_role("button", name="Issue a token")).to_be_visible()
    tab_to(page, "What it is for")
    page.keyboard.type("by hand")
    tab_to(page, "run:")
    page.keyboard.press("Space")
    tab_to(page, "Issue a token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Escape")
    tab_to(page, "Revoke by hand")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There are no tokens.")).to_be_visible()
    assert page.evaluate("document.activeElement !== document.body"), "the place is not lost"


def test_a_project_is_made_by_keyboard_alone(page: Any, served: Served) -> None:
    page.goto(f"{served.address}/projects")
    expect(page.get_by_role("link", name="New project")).to_be_visible()
    tab_to(page, "New project")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Id", exact=True)).to_be_focused()
    page.keyboard.type("by-hand")
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/by-hand")
    with Store(served.path, read_only=True) as store:
        assert Projects(store).get("by-hand") is not None


@pytest.fixture
def furnished(served: Served) -> Served:
    """A studio in which every list has something in it."""
    with Store(served.path) as store:
        accounts, projects = Accounts(store), Projects(store)
        accounts.add("Ann Lee-Whatshername the Third", "annotator", by="owner", password="correct horse")
        accounts.add("王芳", "adjudicator", by="owner")
        accounts.change("王芳", by="owner", active=False)
        accounts.issue("token", "owner", by="owner", seconds=1e6, body={"scopes": ["read", "run"], "note": "nightly"})
        accounts.issue("invitation", "owner", by="owner", seconds=1e6, body={"role": "viewer"})
        store.add_queries(pairs(4))
        store.add_verdicts([Verdict(query.id, "ann", "left", at=1.0) for query in pairs(2)])
        projects.save(
            Project(id="main", purpose="train", title="Helpful", question="Which?", guideline="# How\n\n> so"), by="owner"
        )
        projects.save(Project(id="closed", purpose="closed", answers="rate", open=False), by="owner")
    return served


SHOWN = {"projects": ".project", "projects/main": ".preview h1", "people": ".audit li"}


@pytest.mark.parametrize(
    ("language", "dresses"),
    [("en", [("light", 360), ("dark", 1280)]), ("zh-CN", [("dark", 360), ("light", 1280)])],
    ids=["en", "zh-CN"],
)
def test_the_pages_are_sound_in_every_dress(
    browser: Any, furnished: Served, axe: Callable[[Any], list[str]], language: str, dresses: list[tuple[str, int]]
) -> None:
    context = browser.new_context()
    page = context.new_page()
    watch = Watch()
    watch.on(page, furnished.address)
    page.goto(furnished.link)
    page.wait_for_url("**/label*")
    for (theme, width), (path, ready) in itertools.product(dresses, SHOWN.items()):
        cookies = {"backflip_language": language, "backflip_theme": theme}
        context.add_cookies([{"name": name, "value": value, "url": furnished.address} for name, value in cookies.items()])
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{furnished.address}/{path}")
        page.locator(ready).first.wait_for()
        assert axe(page) == [], (theme, width, path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, path)
        assert page.locator("html").get_attribute("lang") == language
    assert (watch.errors, watch.foreign) == ([], [])
    context.close()
