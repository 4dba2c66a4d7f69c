"""Text that models write and people read: it is shown, it never runs, and it loads nothing from anywhere."""

from __future__ import annotations

import html.parser
import re
from typing import Any

import pytest

from backflip.records import Prompt, Query
from backflip.store import Store, accounts
from backflip.store.projects import Project, Projects
from backflip.web.render import markdown, masked, visible
from tests.web.conftest import Served, Watch

RUNS = "window.pwned=1"
CORPUS = [
    f"<script>{RUNS}</script>", f"<img src=x onerror={RUNS}>", f"<svg onload={RUNS}>", f"<svg><script>{RUNS}</script></svg>",
    f"</xmp><script>{RUNS}</script>", f"</textarea><script>{RUNS}</script>", f"</script><script>{RUNS}</script>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'>", "<iframe src=https://evil.example>", f"<body onload={RUNS}>",
    f"[x](javascript:{RUNS})", f"[x](JaVaScRiPt:{RUNS})", f"[x](java&#10;script:{RUNS})", f"[x](&#x6A;avascript:{RUNS})",
    f"[x](data:text/html,<script>{RUNS}</script>)", f"[x](vbscript:{RUNS})", "[x](//evil.example/x)", "[x](/\\evil.example)",
    "[x](\\\\evil.example)", "[x](/api/v1/export)", "[x](..)", "[x](?a)", "[x](#a)", "[x](https:///evil)",
    "[x](http:evil.example)", "[x](blob:http://x)", "[x](file:///etc/passwd)", "<https://evil.example/x>",
    f"<javascript:{RUNS}>", "![x](https://evil.example/a.png)", "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "![](https://evil.example/b.png 'x')", f'[x](https://evil.example/"onmouseover="{RUNS})',
    f"[x](<https://evil.example/ onclick={RUNS}>)", "[x]: //evil.example/r\n\n[x]", f"`<script>{RUNS}</script>`",
    f"```html\n<script>{RUNS}</script>\n```", f"    <script>{RUNS}</script>", f"| a |\n|---|\n| <img src=x onerror={RUNS}> |",
    f"<a href='javascript:{RUNS}'>x</a>", f"<math><mi xlink:href='javascript:{RUNS}'>x</mi></math>",
    "<style>@import 'https://evil.example/c.css';</style>", "<link rel=stylesheet href=https://evil.example/c.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>", "<base href=https://evil.example/>",
    f"<form action=https://evil.example><button formaction=javascript:{RUNS}>", f"<details open ontoggle={RUNS}>x</details>",
    f"<input autofocus onfocus={RUNS}>", f"<video src=https://evil.example/v onerror={RUNS}>",
    "<object data=https://evil.example>", "<embed src=https://evil.example>",
    f"<noscript><p title=\"</noscript><img src=x onerror={RUNS}>\">", f"<template><script>{RUNS}</script></template>",
    "<div style=\"background:url(https://evil.example/s)\">x</div>", f"&lt;script&gt;{RUNS}&lt;/script&gt;",
    f"&#60;img src=x onerror={RUNS}&#62;", f"<scr\0ipt>{RUNS}</scr\0ipt>", f"<img/src=x/onerror={RUNS}>",
    "{{constructor.constructor('window.pwned=1')()}}", "${window.pwned=1}", "<%= window.pwned=1 %>", f"javascript:{RUNS}",
    f"\u2028<script>{RUNS}</script>", "&" * 500, "[" * 500, "<" * 500, "*" * 501, "> " * 300 + "x", "- " * 200 + "x",
]  # fmt: skip
BIDI = [chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]


class Tags(html.parser.HTMLParser):
    """What elements and attributes a piece of HTML has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_what_a_model_writes_is_shown_and_never_runs(text: str) -> None:
    for written in (text, f"before {text} after", f"> {text}", f"1. {text}\n2. x"):
        for tag, attributes in Tags(markdown(written)).found:
            assert tag in {
                "p", "br", "hr", "strong", "em", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3",
                "h4", "h5", "h6", "a", "table", "thead", "tbody", "tr", "th", "td", "span",
            }  # fmt: skip
            assert attributes.keys() <= ({"href", "rel"} if tag == "a" else {"start"} if tag == "ol" else set())
            if tag == "a":
                assert attributes["rel"] == "noopener noreferrer nofollow"
                assert re.match(r"(https?://[^/\\\s]|mailto:)", attributes.get("href") or "https://x")


@pytest.mark.parametrize("sign", BIDI, ids=lambda sign: f"{ord(sign):04X}")
def test_no_text_turns_the_reading_direction_around(sign: str) -> None:
    for text in (
        f"access{sign}user",
        f"`a{sign}b`",
        f"[{sign}](https://x.example/{sign})",
        f"```\n{sign}\n```",
        f"&#x{ord(sign):X};",
    ):
        assert sign not in markdown(text)
    assert visible(f"a{sign}b") == f"a⟨U+{ord(sign):04X}⟩b"


def test_a_name_is_hidden_however_it_is_written() -> None:
    assert masked("I am Zebra-One (ZEBRA-ONE), not zebra-ones", ("zebra-one",)) == "I am ▇▇▇ (▇▇▇), not zebra-ones"
    assert masked("x.*y", (".*",)) == "x.*y"
    assert masked("a", ("", "a")) == "▇▇▇"


def test_planted_text_does_nothing_in_a_browser(browser: Any, served: Served) -> None:
    planted = "\n\n".join(CORPUS)
    with Store(served.path) as store:
        projects = Projects(store)
        projects.save(
            Project(id="main", purpose="train", title=CORPUS[0], question=planted[:3000], guideline=planted, reveal=True),
            by=CORPUS[1],
        )
        projects.save(Project(id="other", purpose=CORPUS[2], title=CORPUS[3]), by=CORPUS[4])
        texts = [text for text in CORPUS if len(set(text)) > 3]
        store.add_queries(
            Query(Prompt(f"{i} {text}", {"x": text}), (text, planted), policies=(text, f"{text} 2"))
            for i, text in enumerate(texts[:25])
        )
        names = accounts.Accounts(store)
        names.issue("token", "owner", by="owner", seconds=600, body={"scopes": ["read"], "note": CORPUS[0]})
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    page = context.new_page()
    watch, dialogs = Watch(), []
    watch.on(page, served.address)
    page.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
    page.goto(served.link)
    page.wait_for_url("**/label*")
    page.goto(f"{served.address}/label/main")
    page.locator(".pane").first.wait_for()
    done = page.get_by_text("You have done everything there is")
    pane = page.locator(".pane").first
    for i in range(200):
        pane.or_(done).first.wait_for()
        if done.is_visible():
            break
        if i % 8 == 0:
            for key in ("m", "m", "i", "Escape"):
                page.keyboard.press(key)
        for link in page.evaluate("[...document.querySelectorAll('.pane a[href]')].slice(0, 2).map(a => a.getAttribute('href'))"):
            assert link.startswith(("http://", "https://", "mailto:"))
        page.keyboard.press("ArrowLeft")
    done.wait_for()
    for path, ready in (
        ("projects", ".project"),
        ("projects/main", ".preview .text"),
        ("people", ".audit li"),
        ("agreement", "main"),
        ("arena", "main"),
    ):
        page.goto(f"{served.address}/{path}")
        page.locator(ready).first.wait_for()
        page.wait_for_timeout(150)
        assert page.evaluate("window.pwned") is None
    assert page.evaluate("window.pwned") is None
    assert dialogs == []
    assert watch.foreign == []
    assert watch.errors == []
    context.close()
