"""`python -m tests.store.kill --kills 100`: kill a store's writer with signal 9 again and again, and count its answers.

Each writer has 16 threads that claim and answer through the writer thread of one store, and print the key of every answer
once it is acknowledged. After each kill the same store is opened again: an acknowledged answer that is missing, an answer
that is there twice, or a store that does not verify makes the exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from backflip.records import Prompt, Query
from backflip.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
QUERIES = 500  # more than a writer's people can answer before it is killed

WRITER = """
import sys, threading
from backflip.store import Store
store = Store(sys.argv[1])
lock = threading.Lock()
def work(name):
    while True:
        claim = store.submit(store.claim, name, overlap=10**6).result()
        a, b = claim.view.handles
        key = f"{name} {claim.view.id}"
        store.submit(store.answer, claim.view.id, name, [[a], [b]], key=key).result()
        with lock:
            print(key, flush=True)
threads = [threading.Thread(target=work, args=(f"{sys.argv[2]}-{i}",)) for i in range(16)]
for thread in threads:
    thread.start()
"""


class Count(NamedTuple):
    """What all kills together left: answers acknowledged, of those missing, and stored twice."""

    acknowledged: int
    missing: int
    doubled: int


def kill(place: str, times: int, *, answers: int = 60) -> Count:
    """Kill a writer `times` times, each after at least `answers` acknowledged answers; every store in between verifies."""
    with Store(place) as store:
        store.add_queries(Query(Prompt(f"p{i}"), ("a", "b")) for i in range(QUERIES))
    acknowledged: list[str] = []
    for number in range(times):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, place, str(number)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        )  # fmt: skip
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(answers)]
        time.sleep(number % 7 / 1000)
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.communicate()[0].splitlines(keepends=True) if "\n" in line]
        with Store(place) as store:
            store.verify()
    with Store(place, read_only=True) as store:
        keys = {event.key for event in store.events()}
        people = collections.Counter((verdict.query_id, verdict.annotator) for verdict in store.verdicts())
    doubled = sum(count - 1 for count in people.values())
    return Count(len(acknowledged), len(set(acknowledged) - keys), doubled)


def main() -> int:
    """Parse, kill, print the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="How often.")
    with tempfile.TemporaryDirectory() as folder:
        kills = parser.parse_args().kills
        count = kill(f"{folder}/feedback.db", kills)
    print(f"{kills} kills: {count.acknowledged} acknowledged, {count.missing} missing, {count.doubled} doubled")
    return int(count.missing + count.doubled > 0)


if __name__ == "__main__":
    sys.exit(main())
