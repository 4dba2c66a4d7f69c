"""People answer on the studio's pages while the loop waits, and may go on answering while it trains.

The studio is a process of its own: the two meet in the store alone, so neither can hold up or take down the other.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from backflip.records import Query
from backflip.runs import Run
from backflip.store import Store
from backflip.store.projects import Project, Projects

LOOK_EVERY_S = 0.5
EVERY = sys.maxsize
"""As many answers as there are questions."""
TITLES = {
    "train": ("Questions", "Which answer is better?", False),
    "verify": ("Verification: before or after this round?", "Which answer is better?", True),
    "arena": ("Arena: all generations", "Which answer is better?", True),
}
"""Of each purpose that a loop asks about: the project's title, its question, and whether it says afterwards who wrote what."""

KINDS = {
    "train": "what the reward model learns from",
    "verify": "whether this round's policy is better",
    "arena": "the blind arena of all generations",
}
"""What a loop asks each of them for."""


def offer(store: Store, purpose: str) -> None:
    """Make a project of the studio for the questions of a purpose, unless somebody has made one."""
    there = Projects(store).all()
    if purpose in TITLES and all(project.purpose != purpose for project in there):
        title, question, reveal = TITLES[purpose]
        name = purpose if all(project.id != purpose for project in there) else f"rounds-{purpose}"
        Projects(store).save(Project(id=name, purpose=purpose, title=title, question=question, reveal=reveal), by="rounds")


def told(purposes: Iterable[str], waiting: int, asked: int, folder: Path) -> str:
    """What a person reads while questions of the run in `folder` wait: which, how many, where they are answered, what then."""
    kinds = " and ".join(sorted(KINDS.get(purpose, purpose) for purpose in purposes))
    store = shlex.quote(str(folder / "feedback.db"))
    runs = "" if folder.parent == Path("runs") else f" --runs {shlex.quote(str(folder.parent))}"
    return (
        f"{waiting} of {asked} questions wait for an answer ({kinds}); run 'backflip studio {store}{runs}' and answer there, or "
        f"'backflip label {store}' to answer in the terminal, then run the same command again; with --studio it opens the pages "
        "itself and waits"
    )


@contextlib.contextmanager
def studio(store: Path, runs: Path, *, browser: bool, quiet: bool) -> Iterator[None]:
    """A studio on a free port while the block runs; it prints its sign-in link, and opens it with `browser`."""
    command = [sys.executable, "-m", "backflip", "studio", str(store), "--runs", str(runs), "--port", "0"]
    process = subprocess.Popen([*command, *([] if browser else ["--no-browser"])], stdout=sys.stderr)
    if not quiet:
        print("opening the studio; sign in with its link and answer what is asked there", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def wait_for_answers(store: Store, queries: Sequence[Query], enough: int, run: Run, pause: Callable[[], None]) -> int:
    """Wait until `enough` of the queries have an answer, all of them if they are fewer; how many have one then.

    `pause` is called twice a second and may end the wait by raising. A skip is an answer too.
    """
    asked, enough = {query.id for query in queries}, min(enough, len(queries))
    answered = _answered(store, asked)
    with run.progress(enough, "answers", done=min(answered, enough)) as bar:
        while answered < enough:
            pause()
            time.sleep(LOOK_EVERY_S)
            before, answered = answered, _answered(store, asked)
            for _ in range(min(answered, enough) - before):
                bar.advance()
    return answered


def _answered(store: Store, asked: set[str]) -> int:
    return len(asked) - sum(query.id in asked for query in store.unanswered())
