"""A studio for every test: as an application in this process, or served on a free port of the loopback to a real browser."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.records import Prompt, Query
from backflip.store import Store
from backflip.web.serve import serve
from backflip.web.server import Studio, application

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
HOST = "http://127.0.0.1"


def pairs(n: int, purpose: str = "train") -> list[Query]:
    """Pairs whose writers have names that stand nowhere else."""
    return [
        Query(Prompt(f"Question {i}"), (f"Answer A{i}", f"Answer B{i}"), policies=("zebra-one", "zebra-two"), purpose=purpose)
        for i in range(n)
    ]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    """A studio with an owner and the project `main`, nothing asked yet."""
    with Store(tmp_path / "feedback.db") as store:
        made = Studio(store, tmp_path / "runs")
        made.begin()
        yield made


@pytest.fixture
def as_role(studio: Studio) -> Iterator[Callable[..., TestClient]]:
    """`as_role("annotator", name="ann")`: a client signed in as a person of that role, made if need be; None: a stranger."""
    app = application(studio)
    opened: list[TestClient] = []

    def make(role: str | None, name: str | None = None) -> TestClient:
        client = TestClient(app, base_url=HOST, raise_server_exceptions=True)
        client.__enter__()
        opened.append(client)
        if role is not None:
            name = name or ("owner" if role == "owner" else f"the {role}")
            if studio.accounts.person(name) is None:
                studio.accounts.add(name, role, by="test")  # type: ignore[arg-type]
            link = studio.accounts.issue("link", name, by="test", seconds=60)
            assert client.post("/api/v1/session", json={"link": link}).status_code == 200
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def owner(as_role: Callable[..., TestClient]) -> TestClient:
    """The owner's client."""
    return as_role("owner")


@dataclass
class Served:
    """A studio that is served: its address, a link that signs the owner in once, its store's path and its runs folder."""

    address: str
    link: str
    path: Path
    runs: Path
    stop: Callable[[], None] = field(repr=False, default=lambda: None)

    def new_link(self) -> str:
        """Another link of the owner's."""
        with Store(self.path) as store:
            return f"{self.address}/signin#{Studio(store, self.runs).begin()}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A studio on a free port, in a thread of this process."""
    (tmp_path / "runs").mkdir()
    path, ended, links = tmp_path / "feedback.db", threading.Event(), []
    ready = threading.Event()

    def told(link: str) -> None:
        links.append(link)
        ready.set()

    thread = threading.Thread(
        target=serve, args=(str(path),),
        kwargs={"runs": tmp_path / "runs", "port": 0, "on_ready": told, "until": ended.is_set},
    )  # fmt: skip
    thread.start()
    assert ready.wait(20), "the studio did not start"
    yield Served(links[0].split("/signin")[0], links[0], path, tmp_path / "runs", ended.set)
    ended.set()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real headless browser; skipped with a reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((p for p in CHROMIUM if shutil.which(p)), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def axe() -> Callable[[Any], list[str]]:
    """`axe(page)`: every serious or critical finding of axe-core on a page, as "rule: element"."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not installed (axe-playwright-python)")
    script = Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")

    def findings(page: Any) -> list[str]:
        page.evaluate(f"{script};0")  # evaluated by the debugger, so the page's policy for scripts stays as it is
        said = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [rule for rule in said["violations"] if rule["impact"] in ("serious", "critical")]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in serious for node in rule["nodes"]]

    return findings


@dataclass
class Watch:
    """What a page did that it should not: errors, and requests to anywhere but its own server."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def on(self, page: Any, address: str) -> None:
        """Look at a page of the server at `address`."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda r: self.foreign.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """A page in which the owner is signed in; at its end there must be no error and no request to anywhere else.

    `page.watch.errors` may be cleared by a test that causes some on purpose.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    opened = context.new_page()
    opened.watch = Watch()
    opened.watch.on(opened, served.address)
    opened.goto(served.link)
    opened.wait_for_url("**/label*")
    yield opened
    context.close()
    assert opened.watch.errors == []
    assert opened.watch.foreign == []
