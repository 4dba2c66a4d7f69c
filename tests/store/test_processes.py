"""Several processes on one store: they take turns, and no question is given to one person too many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

from backflip.records import Prompt, Query
from backflip.store import Store
from tests.store.kill import REPOSITORY

QUERIES = [Query(Prompt(f"p{i}"), ("x", "y")) for i in range(8)]
OVERLAP = 5  # of six people, three in each process, so that both are needed

LABELER = """
import sys
from backflip.store import Store
with Store(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    people = [f"{sys.argv[2]} {i}" for i in range(3)]
    while people:
        for name in list(people):
            claim = store.claim(name, overlap=int(sys.argv[3]))
            if claim is None:
                people.remove(name)
            else:
                a, b = claim.view.handles
                store.answer(claim.view.id, name, [[a], [b]], key=f"{name} {claim.view.id}")
"""


def test_two_processes_that_claim_at_once_give_exactly_as_many_answers_as_wanted(place: str) -> None:
    with Store(place) as store:
        store.add_queries(QUERIES)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    labelers = [
        subprocess.Popen(
            [sys.executable, "-c", LABELER, place, name, str(OVERLAP)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for name in ("ann", "bob")
    ]  # fmt: skip
    for labeler in labelers:
        assert labeler.stdout is not None
        assert labeler.stdout.readline() == "ready\n"
    for labeler in labelers:
        assert labeler.stdin is not None
        labeler.stdin.write("go\n")
        labeler.stdin.flush()
    for labeler in labelers:
        labeler.communicate()
        assert labeler.returncode == 0
    with Store(place, read_only=True) as store:
        found = store.verify()
        answers = [(verdict.query_id, verdict.annotator) for verdict in store.verdicts()]
        assert Counter(query_id for query_id, _ in answers) == {query.id: OVERLAP for query in QUERIES}
        assert len(set(answers)) == len(answers) == found.events == store.cursor
