"""`python -m tests.rounds.person`: a scripted person teaches `backflip rounds` through the studio's web API, for two rounds.

It does what somebody does who has read `backflip rounds --help`: runs the command, and whenever it says that questions wait,
opens the studio on its store, signs in with the link, answers every question of every open project, and runs the command again.
The person likes what the world of reviews holds for good, and now and then slips. Printed is how often each policy was
preferred to the first one, blind, in the arena; the exit code is 1 unless that is more than half after the first round
and no less after the second.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.cookiejar
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.web.clients import Server

from backflip.arena.matches import same_text_purpose
from backflip.config import to_yaml
from backflip.job_settings import DemoJob, RoundsJob
from backflip.maths.ratings import WinRate
from backflip.records import Prompt
from backflip.rounds.deciding import preferred
from backflip.rounds.loop import WAITING
from backflip.seeds import Seeds
from backflip.settings import Tiny
from backflip.store import Store
from backflip.worlds.reviews import Reviews

Taste = Callable[[str, str], float]
"""(prompt, text) → how much somebody likes the text."""
PAIRS = (("round1", "sft"), ("round2", "sft"), ("round2", "round1"))


class Taught(NamedTuple):
    """What a person did and what came of it: the keys of the answers that the studio acknowledged, how often the loop was
    started, and the win rates of the arena by (policy, against)."""

    keys: list[str]
    starts: int
    rates: dict[tuple[str, str], WinRate]


class Person:
    """Somebody at the pages of a studio, signed in by its link, who answers by a taste and errs in a share `noise` of pairs."""

    def __init__(self, link: str, taste: Taste, noise: float) -> None:
        self.address, secret = link.split("/signin#")
        self.taste, self.noise = taste, noise
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )
        self.call("/session", {"link": secret})

    def call(self, path: str, body: object = None) -> Any:
        """What the API answers: to a POST where there is a body, else to a GET."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/v1{path}", content, {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=60) as answer:
            return json.loads(answer.read())

    def answer_everything(self) -> list[str]:
        """Answer until no project has a question left; the keys of the answers, each acknowledged."""
        keys = []
        for project in self.call("/projects"):
            while items := self.call(f"/projects/{project['id']}/claims", {"n": 20, "counts": False})["items"]:
                answers = [self.answered(item) for item in items]
                outcomes = self.call("/events", {"events": answers})["outcomes"]
                assert [outcome["status"] for outcome in outcomes] == ["stored"] * len(items), outcomes
                keys += [answer["key"] for answer in answers]
        return keys

    def answered(self, item: dict[str, Any]) -> dict[str, Any]:
        """The event of an answer to a question as it is shown."""
        one, other = item["slots"]
        lead = self.lead(item["prompt_raw"], one["raw"], other["raw"])
        groups = [[one["handle"]], [other["handle"]]] if lead > 0 else [[other["handle"]], [one["handle"]]]
        if lead == 0:
            groups = [[one["handle"], other["handle"]]]
        return {
            "kind": "answer", "view": item["view"], "key": str(uuid.uuid4()), "groups": groups,
            "code": "equal" if lead == 0 else "", "ms": 1500, "t": time.time(),
        }  # fmt: skip

    def lead(self, prompt: str, one: str, other: str) -> float:
        """By how much `one` is liked better; the same for the same texts, on whichever side they stand."""
        lead = self.taste(prompt, one) - self.taste(prompt, other)
        errs = float(Seeds(0).numpy("slip", prompt, *sorted((one, other))).uniform()) < self.noise
        return -lead if errs else lead


def teach(command: Callable[[], int], folder: Path, taste: Taste, noise: float = 0.05) -> Taught:
    """Run the loop in `folder` by `command` and answer whatever it waits for, until it has ended."""
    server, person, keys, starts = Server(folder / "feedback.db"), None, list[str](), 1
    try:
        while (code := command()) == WAITING:
            if person is None:
                server.start()
                person = Person(server.link, taste, noise)
            said = person.answer_everything()
            assert said, "the loop waits, and the studio has no question"
            keys, starts = keys + said, starts + 1
        assert code == 0, f"the loop ended with exit code {code}"
    finally:
        if person is not None:
            assert server.stop() == 0
    with Store(folder / "feedback.db", read_only=True) as store:
        met = [c for purpose in ("arena", same_text_purpose("arena")) for c in store.comparisons(purpose=purpose)]
    rates = {pair: rate for pair in PAIRS if (rate := preferred(met, *pair)) is not None}
    return Taught(keys, starts, rates)


def stored(folder: Path) -> set[str]:
    """The keys of the answers that the store holds."""
    with Store(folder / "feedback.db", read_only=True) as store:
        return {event.key.split(":", 1)[1] for event in store.events() if event.kind == "verdict"}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """A file of JSON lines; its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def job_in(folder: Path, comparisons: int, seed: int) -> RoundsJob:
    """The demo's job, somewhat smaller and with people, from files as a user has them."""
    demo, world, seeds = DemoJob(), Reviews(), Seeds(seed)
    loop = dataclasses.replace(
        demo.loop, comparisons=comparisons, verify=100, arena_prompts=120,
        ppo=dataclasses.replace(demo.loop.ppo, steps=16),
        reward=dataclasses.replace(demo.loop.reward, epochs=3.0),
    )  # fmt: skip
    prompts = [*world.prompts(1500, seeds.child("prompts")), *world.prompts(loop.arena_prompts, seeds.child("arena"), "test")]
    shown = world.demonstrations(800, seeds.child("demonstrations"))
    return RoundsJob(
        policy="tiny", output=str(folder / "run"), seed=seed, train=loop, finetune=demo.finetune,
        pretrain=dataclasses.replace(demo.pretrain, epochs=1.0),
        tiny=Tiny(vocabulary=640, hidden_size=96, layers=3, heads=4, context=128),
        texts=write(folder / "texts.jsonl", ({"text": text} for text in world.corpus(6000, seeds.child("corpus")))),
        data=write(folder / "prompts.jsonl", ({"prompt": prompt.text} for prompt in prompts)),
        demonstrations=write(folder / "shown.jsonl", ({"prompt": p.text, "completion": text} for p, text in shown)),
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Read the flags, teach, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.rounds.person", description="A scripted person teaches two rounds.")
    parser.add_argument("--comparisons", type=int, default=600, help="Questions of each round.")
    parser.add_argument("--seed", type=int, default=0, help="Root of all randomness.")
    given = parser.parse_args(argv)
    world, begun = Reviews(), time.monotonic()

    def taste(prompt: str, text: str) -> float:
        return world.gold(Prompt(prompt), text)

    with tempfile.TemporaryDirectory() as place:
        job = job_in(Path(place), given.comparisons, given.seed)
        settings = Path(place) / "job.yaml"
        settings.write_text(to_yaml(job), encoding="utf-8")
        command = [sys.executable, "-m", "backflip", "rounds", "--config", str(settings), "--quiet"]
        found = teach(lambda: subprocess.run(command).returncode, Path(job.output), taste)
        missing = set(found.keys) - stored(Path(job.output))
        decisions = json.loads((Path(job.output) / "result.json").read_text())["decisions"]
    print(
        f"{len(found.keys)} answers over HTTP, {len(missing)} of them missing in the store; "
        f"{found.starts} starts of the command; {time.monotonic() - begun:.0f} s"
    )
    for decision in decisions:
        print(f"after round {decision['round']}: {decision['act']}; {decision['why']}")
    for (policy, against), rate in found.rates.items():
        print(f"arena: {policy} preferred to {against} in {rate.mean:.0%} of {rate.n} ({rate.low:.0%} to {rate.high:.0%})")
    return int(bool(missing) or not rises(found.rates))


def rises(rates: dict[tuple[str, str], WinRate]) -> bool:
    """Whether the first policy is beaten after a round, and after two at least as often."""
    first, second = (rates[pair].mean for pair in PAIRS[:2])
    return 0.5 < first <= second


if __name__ == "__main__":
    sys.exit(main())
