"""`python -m tests.rounds.kills --kills 40`: kill `backflip rounds` at every place of its loop, go on, compare bit for bit.

Two tiny jobs, one plain and one with everything on that a round may hold (sentinel, a monitor that stops it and goes back,
mined and chosen questions, verification, earlier policies), run undisturbed, each of them twice: two runs with the same labels
are equal. Then each is started in fresh folders and killed with signal 9 before or after a call of one of `PLACES`; the process
that goes on is killed at a random moment, and the next one ends. What it leaves (store, questions, comparisons, reward models,
policies, optimizers, logs, decisions, ratings, result) is compared with the undisturbed run. A third job has people as labelers,
who answer on the studio's API while both the loop and the studio are killed: what was acknowledged is in the store. Exit code 0
when all that is so, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.resume.compare import differences, snapshot
from tests.tiny_models import tiny
from tests.tiny_rounds import LOOP, STAGE, TINY, loop_job
from tests.web.clients import Server

from backflip.client import Client
from backflip.errors import Interrupted
from backflip.job_settings import RoundsJob
from backflip.policies.language import LanguagePolicy
from backflip.rewards.learned import RewardModel
from backflip.rounds import deciding
from backflip.rounds import job as room
from backflip.rounds.loop import WAITING, Loop
from backflip.runs import Run
from backflip.runs.checkpoints import Checkpoints
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Projects
from backflip.train.arithmetic import NAME as MATMUL
from backflip.train.guarding import Watcher
from backflip.train.learner import Learner
from backflip.train.online import Trainer
from backflip.worlds.reviews import Reviews

PLACES: Mapping[str, tuple[Any, str]] = {
    "pretraining, fine-tuning, reward model and PPO: an update": (Learner, "update"),
    "questions chosen": (Loop, "questions"),
    "questions filed": (Store, "add_queries"),
    "answers written": (Store, "add_verdicts"),
    "last reward model heard": (Loop, "hear"),
    "comparisons kept": (Loop, "comparisons"),
    "reward model saved": (RewardModel, "save"),
    "reward model or sentinel fitted": (Loop, "fit"),
    "PPO step": (Trainer, "step"),
    "monitor's look": (Watcher, "look"),
    "checkpoint": (Checkpoints, "_put"),
    "policy saved": (LanguagePolicy, "save"),
    "generation kept": (Loop, "keep"),
    "verification drawn": (Loop, "verification"),
    "decision": (Loop, "decide"),
    "decision written": (deciding, "write"),
    "arena's samples": (Loop, "arena_samples"),
    "arena": (Loop, "play"),
    "a stage's result": (Run, "finish"),
    "report": (room, "write_report"),
    "a file renamed": (os, "replace"),
    "a folder renamed": (os, "rename"),
    "a file flushed": (os, "fsync"),
}
"""Calls before and after which a loop may die, by what a person would call the place."""
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": LOOP,
    "everything": {
        **LOOP, "comparisons": 12, "sentinel": 0.3, "verify": 6, "patience": 3, "past": 0.3, "mined": 0.25, "ask": "near-tie",
        "candidates": 3, "watch": {"every": 1, "prompts": 8, "kl_stop": 1e-4, "suspects": 4},
        "ppo": {**LOOP["ppo"], "steps": 4, "optim": {"learning_rate": 0.015}},
    },
}  # fmt: skip
NOT_COMPARED = {MATMUL, "report.html", "report.json"}
"""What was measured of the machine, and the pages that say in words how many minutes it took."""


AT_WORK = ("questions filed", "comparisons kept", "reward model saved", "PPO step", "checkpoint")
"""Where a loop dies while people answer on."""


class Death(NamedTuple):
    """Where a process is killed: at the `nth` call of a place (from 1), before it or after it."""

    place: str
    nth: int
    after: bool


class Trial(NamedTuple):
    """A run that was killed at a place and then perhaps once more, and what of it differs from the undisturbed one."""

    kind: str
    death: Death
    again: float | None
    different: list[str]


def job_of(kind: str, place: Path, output: Path) -> RoundsJob:
    """Everything in a loop, seconds long: pretraining, fine-tuning, two rounds, arena; a reward model answers, or people do."""
    labeler = "human" if kind == "people" else str(place / "annotator")
    return loop_job(
        Path("tiny"), place / "prompts.jsonl", output, demonstrations=str(place / "demonstrations.jsonl"), tiny=TINY,
        labeler=labeler, noise=0.2, pretrain=STAGE, finetune=STAGE, train=KINDS.get(kind, LOOP),
    )  # fmt: skip


def prepare(place: Path) -> None:
    """The files of the jobs: prompts, demonstrations, and a reward model that plays the annotator."""
    world, seeds = Reviews(), Seeds(3)
    prompts = [{"prompt": prompt.text} for prompt in world.prompts(30, seeds)]
    shown = [{"prompt": prompt.text, "completion": text} for prompt, text in world.demonstrations(20, seeds)]
    for name, rows in (("prompts", prompts), ("demonstrations", shown)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    RewardModel.from_policy(tiny(7), seeds=Seeds(7), max_length=64).save(place / "annotator")


def work(kind: str, place: Path, output: Path, death: Death | None, calls: Path | None) -> None:
    """What a process does: the job, until it ends or dies; how often each place was called goes into the file `calls`."""
    import torch

    torch.set_num_threads(1)
    with counted(death) as counts:
        try:
            room.rounds(job_of(kind, place, output), quiet=True)
        except Interrupted as stop:  # questions wait for people
            sys.exit(stop.exit_code)
    if calls is not None:
        calls.write_text(json.dumps(counts))


@contextlib.contextmanager
def counted(death: Death | None) -> Iterator[dict[str, int]]:
    """Counts the calls of every place, and kills this process with signal 9 where `death` says."""
    counts, real = dict.fromkeys(PLACES, 0), {name: getattr(*where) for name, where in PLACES.items()}

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def instead(*args: Any, **named: Any) -> Any:
            counts[name] += 1
            due = death is not None and (name, counts[name]) == (death.place, death.nth)
            if due and death is not None and not death.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **named)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return instead

    for name, (owner, attribute) in PLACES.items():
        setattr(owner, attribute, watched(name, real[name]))
    try:
        yield counts
    finally:
        for name, (owner, attribute) in PLACES.items():
            setattr(owner, attribute, real[name])


def left_by(folder: Path) -> dict[str, str]:
    """A digest of everything that two equal runs share; of the report the charts, samples and ratings."""
    found = {name: digest for name, digest in snapshot(folder).items() if name.split(":")[0] not in NOT_COMPARED}
    report = json.loads((folder / "report.json").read_text())
    for key in report.keys() - {"notes", "settings"}:  # which name the minutes and the folder
        found[f"report: {key}"] = hashlib.sha256(json.dumps(report[key], sort_keys=True).encode()).hexdigest()
    return found


class Yard:
    """Where loops are run and killed: `expected` and `calls` of the undisturbed run of each kind, and its seconds.

    Processes are forked off a server that has imported everything once, so that dying costs seconds only.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload([__spec__.name])
        prepare(place)
        self.expected: dict[str, dict[str, str]] = {}
        self.calls: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}

    def undisturbed(self, kind: str) -> None:
        """Run a kind that nobody disturbs."""
        calls, begun = self.place / f"{kind}.json", time.monotonic()
        code = self.start(kind, kind, calls=calls)
        if code != 0:
            raise RuntimeError(f"the undisturbed {kind} loop ended with exit code {code}")
        self.seconds[kind] = time.monotonic() - begun
        self.expected[kind], self.calls[kind] = left_by(self.place / kind), json.loads(calls.read_text())

    def start(
        self, kind: str, name: str, *, death: Death | None = None, after: float | None = None, calls: Path | None = None
    ) -> int:
        """Start a job in a folder or go on with it; killed where told, or so many seconds `after` its start. The exit code."""
        process = self.processes.Process(target=work, args=(kind, self.place, self.place / name, death, calls))
        process.start()
        process.join(after if after is not None else 300)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    def trial(self, kind: str, name: str, death: Death, again: float | None) -> Trial:
        """Kill a run where told, then with `again` once more after so many seconds, and compare what it has become in the end."""
        code = self.start(kind, name, death=death)
        if code != -signal.SIGKILL:
            raise RuntimeError(f"nothing died at {death}: exit code {code}")
        if again is not None and self.start(kind, name, after=again) != -signal.SIGKILL:
            again = None  # it was done before
        code = self.start(kind, name)
        left = left_by(self.place / name) if code == 0 else {}
        found = Trial(kind, death, again, differences(self.expected[kind], left))
        if not found.different:
            shutil.rmtree(self.place / name)
        return found

    def deaths(self, kind: str) -> list[Death]:
        """A death in the first and in the last quarter of the calls of each place, one before its call and one after it."""
        found = []
        for name, n in self.calls[kind].items():
            if n:
                found += [Death(name, 1 + n // 4, False), Death(name, n - n // 4, True)]
        return found


class Kept(NamedTuple):
    """Answers that the studio acknowledged while the loop and the studio were killed, how many kills, and what is missing."""

    acknowledged: int
    kills: int
    missing: int


def people(yard: Yard, places: Sequence[str]) -> Kept:
    """A loop with people: while it works on the first one's answers, one person after another answers the same questions and
    the loop dies after the first call of each of `places`; at the end the studio dies too. Then the store must hold it all."""
    folder = yard.place / "people"
    assert yard.start("people", "people") == WAITING
    server, keys = Server(folder / "feedback.db"), list[str]()
    with Store(folder / "feedback.db") as store:
        (project,) = Projects(store).all()
        Projects(store).save(dataclasses.replace(project, overlap=1 + len(places)), by="test")
        accounts = Accounts(store)
        accounts.add("owner", "owner", by="test")
        names = [f"person {i}" for i in range(1 + len(places))]
        for name in names:
            accounts.add(name, "annotator", by="test")
        tokens = [accounts.issue("token", name, by="test", seconds=86400, body={"scopes": ["label"]}) for name in names]
    server.start()

    def answer(token: str) -> None:
        client = Client(f"http://127.0.0.1:{server.port}", token)
        while asked := client.claim(project.id, 1):
            key = uuid.uuid4().hex
            client.answer(asked[0].view, [[handle] for handle in sorted(asked[0].texts, key=asked[0].texts.get)], key=key)
            keys.append(key)

    answer(tokens[0])
    for token, name in zip(tokens[1:], places, strict=True):
        person = threading.Thread(target=answer, args=(token,))
        person.start()
        assert yard.start("people", "people", death=Death(name, 1, True)) == -signal.SIGKILL, name
        person.join()
    server.kill()
    with Store(folder / "feedback.db") as store:
        store.verify()
        held = {event.key.split(":", 1)[1] for event in store.events() if event.kind in ("verdict", "surplus")}
    return Kept(len(keys), len(places) + 1, len(set(keys) - held))


def campaign(yard: Yard, kills: int, seed: int) -> list[Trial]:
    """At least `kills` kills, spread evenly over the kinds, the places, and the time after the first death."""
    done: list[Trial] = []
    deaths: dict[str, list[Death]] = {}
    for kind in KINDS:
        yard.undisturbed(kind)
        first = yard.expected[kind]
        shutil.rmtree(yard.place / kind)
        yard.undisturbed(kind)
        different = differences(first, yard.expected[kind])
        verdict = f"they DIFFER in {', '.join(different[:5])}" if different else "bit-equal"
        print(f"{kind}: {yard.seconds[kind]:.1f} s, {len(first)} things compared; two undisturbed runs: {verdict}", flush=True)
        if different:
            done.append(Trial(kind, Death("nowhere", 0, False), None, different))
        deaths[kind] = [yard.deaths(kind)[i] for i in Seeds(seed).permutation(len(yard.deaths(kind)), "deaths", kind)]
    number = 0
    while count(done) < kills:
        kind = list(KINDS)[number % len(KINDS)]
        death = deaths[kind][number // len(KINDS) % len(deaths[kind])]
        share = float(Seeds(seed).numpy("again", number).uniform())
        done.append(yard.trial(kind, f"{kind}-{number}", death, share * yard.seconds[kind]))
        _tell(done[-1])
        number += 1
    return done


def count(trials: list[Trial]) -> int:
    """How many processes were killed in these trials."""
    return sum((trial.death.nth > 0) + (trial.again is not None) for trial in trials)


def _tell(trial: Trial) -> None:
    where = f"{'after' if trial.death.after else 'before'} call {trial.death.nth} of '{trial.death.place}'"
    then = "" if trial.again is None else f", again after {trial.again:.1f} s"
    verdict = f"DIFFERS in {', '.join(trial.different[:5])}" if trial.different else "bit-equal"
    print(f"{trial.kind}: killed {where}{then}: {verdict}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Read the flags, run the campaign, print the count."""
    parser = argparse.ArgumentParser(prog="python -m tests.rounds.kills", description="Kill the loop, go on, compare.")
    parser.add_argument("--kills", type=int, default=40, help="How many processes to kill.")
    parser.add_argument("--seed", type=int, default=0, help="Decides places and moments.")
    given = parser.parse_args(argv)
    place, begun = Path(tempfile.mkdtemp(prefix="backflip-kills-")), time.monotonic()
    yard = Yard(place)
    kept = people(yard, AT_WORK)
    print(
        f"people: {kept.acknowledged} answers acknowledged while loop and studio were killed {kept.kills} times, "
        f"{kept.missing} missing",
        flush=True,
    )
    trials = campaign(yard, given.kills, given.seed)
    differ = sum(bool(trial.different) for trial in trials)
    places = len({(trial.death.place, trial.kind) for trial in trials})
    print(
        f"{count(trials)} kills in {len(trials)} runs, at {places} of the places of both kinds and at "
        f"{sum(trial.again is not None for trial in trials)} random moments: {len(trials) - differ} runs bit-equal, "
        f"{differ} differ; {time.monotonic() - begun:.0f} s"
    )
    if differ or kept.missing:
        print(f"the runs that differ are kept in {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    from tests.rounds.kills import main as by_name  # so that the processes know its functions by that name

    sys.exit(by_name())
