"""Every page in both languages, light and dark, wide and narrow: no serious accessibility finding, no request to anywhere else.

With BACKFLIP_SHOTS=FOLDER all eight dresses are worn and a picture of each is kept there, to be looked at; otherwise four, in
which every language, theme and width meets every other one.
"""

from __future__ import annotations

import importlib.resources
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Project, Projects
from backflip.web.pages import PAGES
from tests.web.conftest import Served, Watch, pairs

pytestmark = pytest.mark.slow

LANGUAGES, THEMES, WIDTHS = ("en", "zh-CN"), ("light", "dark"), (360, 1280)
EVERY = list(itertools.product(LANGUAGES, THEMES, WIDTHS))
HALF = [dress for i, dress in enumerate(EVERY) if i.bit_count() % 2 == 0]
READY = {
    "signin": "form", "label": ".pane", "runs": "main figure.chart canvas", "arena": "main table", "agreement": "main table",
    "projects": "main :is(form, table, article, section, li)", "people": "main table",
}  # fmt: skip
TEXTS = (
    "Short waves scatter more than long ones, so **blue light** comes from everywhere.\n\n- red goes straight\n- blue does not",
    "The sky is blue since it mirrors the sea.",
)  # fmt: skip


@pytest.fixture
def full(served: Served) -> Served:
    """A studio with questions, answers of several people and a machine, three generations in the arena, and a run."""
    with Store(served.path) as store:
        projects, rng = Projects(store), Seeds(0).numpy("answers")
        main = Project(id="main", purpose="train", title="Helpful", guideline="Prefer what is **true**.")
        projects.save(main, by="test")
        projects.save(Project(id="arena", purpose="arena", title="Arena", reveal=True), by="test")
        store.add_queries([Query(Prompt("Why is the sky blue?"), TEXTS), *pairs(60)])
        asked = store.queries("train")
        lefts = {"ann": 0.6, "bob": 0.9, "cho": 0.6, "judge": 0.6}
        store.add_verdicts(
            Verdict(q.id, name, "left" if rng.random() < lefts[name] else "right", ms=900 + 40 * i, at=float(i + 1))
            for i, q in enumerate(asked[1:41]) for name in lefts
        )  # fmt: skip
        games = [
            Query(Prompt(f"Game {i}"), (f"x {i} {a}", f"y {i} {b}"), policies=(a, b), purpose="arena")
            for i in range(30) for a, b in (("sft", "round1"), ("round1", "round2"), ("sft", "round2"))
        ]  # fmt: skip
        store.add_queries(games)
        store.add_verdicts(
            Verdict(g.id, "ann", "right" if rng.random() < 0.65 else "left", at=float(i + 1)) for i, g in enumerate(games[:80])
        )
    write_run(served.runs / "demo" / "ppo")
    return served


def write_run(folder: Path) -> None:
    """A finished run of forty steps."""
    folder.mkdir(parents=True)
    card = {"kind": "ppo", "format": 1, "version": "0.1.0", "settings": {"kl_target": 6.0, "steps": 40}}
    (folder / "run.json").write_text(json.dumps(card))
    rng = Seeds(1).numpy("run")
    steps = range(1, 41)
    rows = [
        {"step": s, "objective/scores": s / 20 + rng.normal() / 10, "kl/seq_nats": s / 8, "objective/entropy": 2 - s / 60,
         "rollout/length": 24 + s / 5, "policy/clipfrac_avg": 0.02, "loss/value_avg": 1 / s, "rollout/unfinished_share": 0.0}
        for s in steps
    ]  # fmt: skip
    samples = [
        {"step": s, "prompt": f"Prompt {i}", "completion": f"text {i} of step {s}", "rewards": {"proxy": 0.1 * s}}
        for s in (0, 20, 40) for i in range(4)
    ]  # fmt: skip
    for name, lines in (("metrics", rows), ("timings", [{"step": s, "total": 1.5} for s in steps]), ("samples", samples)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text("{}")


@pytest.fixture(scope="module")
def axe() -> str:
    """The accessibility engine's script."""
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    return importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def sign_in(context: Any, served: Served) -> None:
    page = context.new_page()
    page.goto(served.new_link())
    page.wait_for_url("**/label*")
    page.close()


def test_every_page_in_every_dress(browser: Any, full: Served, axe: str) -> None:
    shots = os.environ.get("BACKFLIP_SHOTS")
    found, seen, watch, dresses = [], 0, Watch(), EVERY if shots else HALF
    for language, theme, width in dresses:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
        address = full.address
        context.add_cookies(
            [{"name": f"backflip_{k}", "value": v, "url": address} for k, v in (("language", language), ("theme", theme))]
        )
        for name in ("signin", *PAGES):
            if name == "label":
                sign_in(context, full)
            page = context.new_page()
            watch.on(page, address)
            page.goto(f"{address}/{name}")
            page.wait_for_selector(READY[name], timeout=20_000)
            page.wait_for_timeout(250)
            where = f"{name} {language} {theme} {width}"
            assert page.evaluate("document.documentElement.lang") == language
            wide = page.evaluate("document.documentElement.scrollWidth")
            found += [f"{where}: {wide} pixels wide"] if wide > width else []
            before = list(watch.errors)
            page.evaluate(axe)
            report = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
            found += [
                f"{where}: {v['id']}: {v['nodes'][0]['html'][:160]} ({v['nodes'][0].get('failureSummary', '')[:200]})"
                for v in report if v["impact"] in ("serious", "critical")
            ]  # fmt: skip
            watch.errors[:] = before  # axe itself sets styles that the pages forbid
            if shots:
                Path(shots).mkdir(parents=True, exist_ok=True)
                page.screenshot(path=f"{shots}/{where.replace(' ', '-')}.png")
            page.close()
            seen += 1
        context.close()
    assert seen == len(dresses) * (1 + len(PAGES))
    assert found == [], "\n".join(found)
    assert watch.foreign == []
    assert watch.errors == []


def test_in_half_of_the_dresses_everything_meets() -> None:
    for a, b in itertools.combinations(range(3), 2):
        assert {(dress[a], dress[b]) for dress in HALF} == {(dress[a], dress[b]) for dress in EVERY}


def test_both_languages_say_everything() -> None:
    folder = importlib.resources.files("backflip.web") / "locales"
    en, zh = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in LANGUAGES)
    assert list(en) == list(zh)
    assert all(text.strip() for text in (*en.values(), *zh.values()))
    for key in en:
        names = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in (en[key], zh[key])]
        assert names[0] == names[1], key


def test_every_string_is_used_and_every_used_string_is_there() -> None:
    web = Path(str(importlib.resources.files("backflip.web")))
    strings = json.loads((web / "locales" / "en.json").read_text(encoding="utf-8"))
    source = "\n".join(p.read_text(encoding="utf-8") for p in web.rglob("*") if p.suffix in (".js", ".html", ".py"))
    named = set(re.findall(r"""["'`]([a-z]+\.[A-Za-z.]+)["'`]""", source))
    begun = set(re.findall(r"""["'`]([a-z]+\.(?:[A-Za-z]+\.)*)(?:\$\{|["'] ~)""", source))  # `skip.${code}`, "role." ~ role
    assert [key for key in strings if key not in named and not any(key.startswith(start) for start in begun)] == []
    prefixes = {key.split(".")[0] for key in strings}
    called = set(re.findall(r"""\bt\(\s*["']([a-z]+\.[A-Za-z.]+)["']""", source))
    assert called <= set(strings)
    assert {key.split(".")[0] for key in called} <= prefixes
