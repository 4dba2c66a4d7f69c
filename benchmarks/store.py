"""`python benchmarks/store.py`: how many judgements a second a store takes, and how long each waits for the disk.

Every producer is a thread that claims a question and answers it, each through the writer thread, one after the other; a
judgement is one such answer. Times are from handing the answer in to its acknowledgement, in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from backflip.records import Prompt, Query, Verdict
from backflip.store import Store


@dataclass(frozen=True, slots=True)
class Measured:
    """Judgements, seconds for all of them, and the milliseconds of each answer and of each claim."""

    n: int
    seconds: float
    answer_ms: list[float]
    claim_ms: list[float]

    def __str__(self) -> str:
        rate = f"{self.n / self.seconds:.0f} judgements/s ({self.n} in {self.seconds:.2f} s)"
        return f"{rate}; answer {_quantiles(self.answer_ms)}; claim {_quantiles(self.claim_ms)}"


def measure(place: str, *, producers: int, each: int, answered: int = 0) -> Measured:
    """Have `producers` threads give `each` judgements; `answered` queries stand before theirs and have their answer."""
    answer_ms: list[float] = []
    claim_ms: list[float] = []
    with Store(place) as store:
        queries = [Query(Prompt(f"Prompt {i}"), ("one answer", "another answer")) for i in range(answered + producers * each)]
        store.add_queries(queries)
        store.add_verdicts(Verdict(query.id, "before", "left") for query in queries[:answered])

        def produce(name: str) -> None:
            for i in range(each):
                began = time.perf_counter()
                claim = store.submit(store.claim, name).result()
                claim_ms.append(1000 * (time.perf_counter() - began))
                assert claim is not None
                a, b = claim.view.handles
                began = time.perf_counter()
                store.submit(store.answer, claim.view.id, name, [[a], [b]], key=f"{name} {i}").result()
                answer_ms.append(1000 * (time.perf_counter() - began))

        threads = [threading.Thread(target=produce, args=(f"producer {i}",)) for i in range(producers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
    return Measured(producers * each, seconds, answer_ms, claim_ms)


def _quantiles(values: list[float]) -> str:
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cut[49]:.1f}, p95 {cut[94]:.1f}, p99 {cut[98]:.1f} ms"


def main() -> int:
    """Parse, measure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--producers", type=int, default=16, help="How many threads.")
    parser.add_argument("--each", type=int, default=100, help="Judgements of each.")
    parser.add_argument("--answered", type=int, default=0, help="Queries that are answered already.")
    parser.add_argument("--store", metavar="URL", help="An empty PostgreSQL database [a new SQLite file].")
    args = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        print(measure(args.pop("store") or str(Path(folder) / "feedback.db"), **args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
