"""`python -m tests.web.click_to_policy`: from a click to a policy, in a real browser.

Runs `backflip demo --human yes`, signs in with the link it prints, answers what the studio asks as a person with a stated taste
would (keys on the Label page), lets it train, answers the blind arena by the same taste, and prints how often the new policy
beats the old one under it: in the arena's answers, and over all arena prompts. The exit code is 1 below `--bar`.

The taste: the review says something good, says what is true of its subject, and is well formed; brief rather than long.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backflip.records import Prompt, Sample
from backflip.worlds.reviews import Reviews
from backflip.worlds.reviews.gold import Weights
from tests.web.conftest import CHROMIUM, FLAGS

TASTE = Weights()
WORLD = Reviews()


def like(prompt: str, text: str) -> float:
    """How much this person likes a review."""
    return WORLD.judge(Prompt(prompt), text, TASTE)


def teach(link: str, folder: Path, *, deadline: float) -> dict[str, int]:
    """Answer in a browser until the demo has its result; how many answers were given in each project."""
    from playwright.sync_api import sync_playwright

    given = {"reviews": 0, "arena": 0}
    with sync_playwright() as running:
        chromium = next(path for path in CHROMIUM if Path(path).exists())
        browser = running.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.goto(link)
        page.wait_for_url("**/label*")
        page.evaluate("() => localStorage.setItem('backflip raw', '1')")
        address = link.split("/signin")[0]
        for project in given:
            page.goto(f"{address}/label/{project}")
            while not _over(folder, project):
                assert time.monotonic() < deadline, "the demo took too long"
                if page.locator(".pane").count():
                    given[project] += _answer(page)
                else:  # the demo is still making its questions, or all of them are answered
                    page.wait_for_timeout(500)
        while not _over(folder, "arena"):
            assert time.monotonic() < deadline, "the demo took too long"
            page.wait_for_timeout(500)
        browser.close()
    return given


def _answer(page: Any) -> bool:
    """One answer by key; False if there was none to give."""
    shown = page.evaluate(
        """() => [document.querySelector(".prompt .text")?.textContent ?? "",
                  ...[...document.querySelectorAll(".pane .text")].map((text) => text.textContent)]"""
    )
    if len(shown) != 3:
        return False
    prompt, left, right = shown
    a, b = like(prompt, left), like(prompt, right)
    page.keyboard.press("ArrowLeft" if a > b else "ArrowRight" if b > a else "ArrowDown")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        now = page.evaluate("() => [...document.querySelectorAll('.prompt .text, .pane .text')].map((text) => text.textContent)")
        if now != shown:
            return True
    raise AssertionError("the next question did not come")


def _over(folder: Path, project: str) -> bool:
    done = (folder / "round1" / "comparisons.jsonl") if project == "reviews" else (folder / "result.json")
    return done.exists()


def preferred(folder: Path, new: str = "round1", old: str = "sft") -> tuple[float, int]:
    """How often the new policy's review is liked more than the old one's over all arena prompts, ties ½; and how many."""
    texts = {
        name: [Sample.from_json(json.loads(line)) for line in (folder / "arena" / f"{name}.jsonl").read_text().splitlines()]
        for name in (new, old)
    }
    wins = [
        0.5 + 0.5 * ((a := like(x.prompt.plain, x.text)) > (b := like(y.prompt.plain, y.text))) - 0.5 * (a < b)
        for x, y in zip(texts[new], texts[old], strict=True)
    ]
    return sum(wins) / len(wins), len(wins)


def run(folder: Path, settings: list[str], *, minutes: float) -> dict[str, Any]:
    """The whole way; what came out."""
    command = [sys.executable, "-m", "backflip", "demo", "--human", "yes", "--no-browser", "--output", str(folder), *settings]
    deadline = time.monotonic() + 60 * minutes
    log = folder.with_suffix(".log")
    with log.open("w") as into:
        process = subprocess.Popen(command, stdout=into, stderr=subprocess.STDOUT, text=True)
        try:
            while not (found := re.search(r"http://\S+/signin#\S+", log.read_text())):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            given = teach(found[0], folder, deadline=deadline)
            assert process.wait(120) == 0, log.read_text()[-2000:]
        finally:
            process.terminate()
            process.wait(30)
    result = json.loads((folder / "result.json").read_text())
    rate, n = preferred(folder)
    return {"answers": given, "arena": result["win_rate_vs_sft"], "taste": rate, "prompts": n, "kl": result["kl_seq_nats"]}


def main() -> int:
    """Parse, run, print, compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bar", type=float, default=0.7, help="Share of wins to reach.")
    parser.add_argument("--minutes", type=float, default=40.0, help="Give up after this long.")
    parser.add_argument("--output", type=Path, help="Keep the run in this folder.")
    args, settings = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(args.output or Path(folder) / "demo", settings, minutes=args.minutes)
    print(json.dumps(found, indent=1))
    return int(found["taste"] < args.bar)


if __name__ == "__main__":
    sys.exit(main())
