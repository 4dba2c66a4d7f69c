"""`python -m tests.web.kill --kills 30`: kill the studio with signal 9 under load, again and again, and count its answers.

Sixteen people claim and answer over HTTP; whatever is not acknowledged they send again with the same key. At the end every
acknowledged answer must be in the store, none twice, and the store must verify; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from backflip.store import Store
from tests.web.clients import Person, Server, prepare


class Count(NamedTuple):
    """Answers acknowledged, of those missing, stored twice, and sent again after a kill."""

    acknowledged: int
    missing: int
    doubled: int
    repeated: int


def kill(path: Path, times: int, *, people: int = 16, answers: int = 60) -> Count:
    """Kill the studio `times` times, each after at least `answers` more answers were acknowledged."""
    tokens = prepare(path, queries=400 * times, people=people)
    server, over = Server(path), threading.Event()
    crowd = [Person(server.port, token) for token in tokens]
    retries = [0]

    def work(person: Person) -> None:
        while not over.is_set():
            waiting = bool(person.outbox)
            if person.step():
                retries[0] += waiting
            else:
                time.sleep(0.05)
        person.close()

    server.start()
    threads = [threading.Thread(target=work, args=(person,)) for person in crowd]
    for thread in threads:
        thread.start()
    for number in range(times + 1):
        before, patience = _acknowledged(crowd), time.monotonic() + 60
        while _acknowledged(crowd) < before + answers and time.monotonic() < patience:
            time.sleep(0.01)
        if number < times:
            time.sleep(number % 7 / 100)
            server.kill()
            server.start()
    over.set()
    for thread in threads:
        thread.join()
    assert server.stop() == 0
    with Store(path) as store:
        store.verify()
        keys = {event.key.split(":", 1)[1] for event in store.events() if event.kind in ("verdict", "surplus")}
        given = collections.Counter((verdict.query_id, verdict.annotator) for verdict in store.verdicts())
    acknowledged = [key for person in crowd for key in person.acknowledged]
    doubled = sum(count - 1 for count in given.values()) + len(acknowledged) - len(set(acknowledged))
    return Count(len(acknowledged), len(set(acknowledged) - keys), doubled, retries[0])


def _acknowledged(crowd: list[Person]) -> int:
    return sum(len(person.acknowledged) for person in crowd)


def main() -> int:
    """Parse, kill, print the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="How often.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = kill(Path(folder) / "feedback.db", args.kills)
    print(
        f"{args.kills} kills: {count.acknowledged} answers acknowledged, {count.missing} missing, {count.doubled} doubled; "
        f"{count.repeated} sent again after a kill"
    )
    return int(count.missing > 0 or count.doubled > 0)


if __name__ == "__main__":
    sys.exit(main())
