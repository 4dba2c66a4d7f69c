"""`python benchmarks/studio.py`: how many judgements a second the studio takes over HTTP, and how long each waits.

    load       clients that claim and answer as fast as they can, each answer a request of its own
    outbox     the same, ten answers to a request, as a page sends them that was offline
    empty      the same clients, with requests that store nothing: what HTTP and checking who asks cost alone
    store      claims and answers handed to the store in the server's way, 16 at a time, without HTTP
    people     100 annotators who answer 15 times a minute for two minutes

The server is a process of its own; the clients are a few processes more, on the same cores. Milliseconds are from sending a
request to its answer, by when the disk has it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.web.clients import Person, Server, prepare, quantile

from backflip.store import Store
from backflip.store.projects import Projects


def load(port: int, tokens: list[str], seconds: float, batch: int, out: Any) -> None:
    """One process of clients, a thread for each, for `seconds`."""
    people = [Person(port, token, batch=batch) for token in tokens]

    def work(person: Person) -> None:
        while time.monotonic() < end:
            if not person.step(claims=24):
                break
        person.close()

    end = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(
        ([ms for person in people for ms in person.ms], sum(len(p.acknowledged) for p in people), sum(p.failures for p in people))
    )


def paced(port: int, tokens: list[str], seconds: float, per_minute: float, out: Any) -> None:
    """One process of annotators who answer `per_minute` times a minute each."""
    people = [Person(port, token) for token in tokens]
    rng = random.Random(len(tokens))
    begin = time.monotonic()
    due = sorted((begin + rng.random() * 60 / per_minute, i) for i in range(len(people)))
    while due and due[0][0] < begin + seconds:
        when, i = due.pop(0)
        time.sleep(max(0.0, when - time.monotonic()))
        people[i].step(claims=4)
        due.append((when + 60 / per_minute, i))
        due.sort()
    out.put(
        ([ms for person in people for ms in person.ms], sum(len(p.acknowledged) for p in people), sum(p.failures for p in people))
    )


def empty(port: int, tokens: list[str], seconds: float, batch: int, out: Any) -> None:
    """One process of clients that ask to keep no lease at all."""
    people = [Person(port, token, batch=batch) for token in tokens]
    end = time.monotonic() + seconds

    def work(person: Person) -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            if person.call("/heartbeat", {"views": []})[0] == 200:
                person.ms.append(1000 * (time.perf_counter() - began))
            else:
                person.failures += 1
        person.close()

    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ms = [value for person in people for value in person.ms]
    out.put((ms, len(ms), sum(person.failures for person in people)))


def alone(seconds: float, clients: int) -> dict[str, float]:
    """The store without the studio: claims of 24 and answers, `clients` of them waiting together."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feedback.db"
        prepare(path, queries=40_000, people=clients)
        with Store(path) as store:
            projects = Projects(store)
            main_project = next(project for project in projects.all() if project.id == "main")
            names = [f"person {i}" for i in range(clients)]
            done, begin = 0, time.monotonic()
            while time.monotonic() < begin + seconds:
                claims = [store.submit(projects.claim, main_project, name, 24, seed=0, render="1") for name in names]
                held = [claim.result() for claim in claims]
                for views in zip(*([claim.view for claim in each] for each in held), strict=True):
                    answers = [
                        store.submit(store.answer, view.id, name, [[h] for h in view.handles], key=uuid.uuid4().hex)
                        for view, name in zip(views, names, strict=True)
                    ]
                    done += sum(answer.result() is not None for answer in answers)
            elapsed = time.monotonic() - begin
    return {"clients": clients, "judgements": done, "per_s": round(done / elapsed, 1), "errors": 0}


def measure(what: str, *, clients: int, seconds: float, batch: int = 1) -> dict[str, float]:
    """One job on a fresh store and server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feedback.db"
        tokens = prepare(path, queries=40_000 if what != "people" else 6_000, people=clients)
        server = Server(path)
        server.start()
        out: Any = multiprocessing.Queue()
        parts = 2 if clients > 1 else 1
        args = (seconds, batch) if what != "people" else (seconds, 15.0)
        target = {"people": paced, "empty": empty}.get(what, load)
        processes = [
            multiprocessing.Process(target=target, args=(server.port, tokens[i::parts], *args, out)) for i in range(parts)
        ]
        begin = time.monotonic()
        for process in processes:
            process.start()
        found = [out.get() for _ in processes]
        elapsed = time.monotonic() - begin
        for process in processes:
            process.join()
        assert server.stop() == 0
    ms = [value for part, _, _ in found for value in part]
    n = sum(part for _, part, _ in found)
    waits = {f"p{share}_ms": round(quantile(ms, share / 100), 1) for share in (50, 95, 99)}
    errors = sum(part for _, _, part in found)
    return {"clients": clients, "judgements": n, "per_s": round(n / elapsed, 1), **waits, "errors": errors}


def main() -> int:
    """Parse, measure, print a line for each job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="load,outbox,empty,store,people", help="Which of load, outbox, empty, store, people.")
    parser.add_argument("--clients", type=int, default=16, help="Clients of load and outbox.")
    parser.add_argument("--seconds", type=float, default=10.0, help="How long load and outbox last; people last 120 seconds.")
    parser.add_argument("--out", type=Path, help="Write the figures to this file too (JSON).")
    args = parser.parse_args()
    figures = {}
    for job in args.jobs.split(","):
        many = {"clients": 100, "seconds": 120.0} if job == "people" else {"clients": args.clients, "seconds": args.seconds}
        if job == "store":
            figures[job] = alone(args.seconds, args.clients)
        else:
            figures[job] = measure(job, batch=10 if job == "outbox" else 1, **many)
        print(f"{job}: " + ", ".join(f"{name} {value}" for name, value in figures[job].items()), flush=True)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
