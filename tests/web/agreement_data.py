"""Stores with answers on which people differ, for the tests of the Agreement page: small ones, and a large one quickly."""

from __future__ import annotations

import json
import random

from sqlalchemy import insert

from backflip import __version__
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store, schema
from backflip.store.chain import START, link
from backflip.store.schema import events, verdicts

PEOPLE = ("ann", "bob", "lena")


def differing(n: int, purpose: str = "train") -> tuple[list[Query], list[Verdict]]:
    """`n` pairs that ann, bob and lena answer, and a machine. ann is right, bob nine times in ten, lena takes what stands left;
    they differ on some of them. Of the completions `A…` is the better one, and its places are drawn."""
    draw = random.Random(3)
    asked, given = [], []
    for i in range(n):
        query = Query(
            Prompt(f"Question {i}"), (f"Answer A{i} of zebra-one", f"Answer B{i}"), policies=("zebra-one", "zebra-two"),
            purpose=purpose,
        )  # fmt: skip
        asked.append(query)
        for name in PEOPLE:
            first = draw.randrange(2)
            taken = {"ann": 0, "bob": int(draw.random() < 0.1), "lena": first}[name]
            note = f"says {name}, of **zebra-two**" if name == "bob" else ""
            given.append(
                Verdict(query.id, name, ("left", "right")[taken], shown_first=first, ms=1000 + i, at=float(i + 1), note=note)
            )
        given.append(Verdict(query.id, "reward model", "left" if draw.random() < 0.8 else "right", at=float(i + 1)))
    return asked, given


def fill(store: Store, answers: int, people: int = 40) -> None:
    """Put `answers` answers into an empty store at once, three to a question: as if they had been given one by one."""
    draw = random.Random(1)
    asked = [
        Query(
            Prompt(f"Question {i}: why is the sky blue?"), (f"Answer A{i} " + "word " * (i % 90), f"Answer B{i} " + "word " * 40)
        )
        for i in range(-(-answers // 3))
    ]
    store.add_queries(asked)
    given = []
    for query in asked:
        for i in draw.sample(range(people), 3):
            choice = "tie" if draw.random() < 0.1 else "left" if draw.random() < 0.7 else "right"
            given.append(
                Verdict(query.id, f"person {i}", choice, shown_first=draw.randrange(2), ms=1000 + i, at=1e9 + len(given))
            )
    _append(store, given[:answers])


def _append(store: Store, given: list[Verdict]) -> None:
    with store._db.write() as connection:
        head, last = START, 0
        for event in store.events()[-1:]:
            last = event.id
        if last:
            head = str(connection.scalar(events.select().with_only_columns(events.c.hash).where(events.c.id == last)))
        sealed, rows = [], []
        for row, verdict in enumerate(given, 1):
            payload = json.dumps({"row": row, "id": verdict.id, "verdict": verdict.to_json()}, ensure_ascii=False)
            named = (f"verdict:{verdict.id}", verdict.annotator, None, "verdict", payload, None, verdict.at, __version__)
            before, head = head, link(head, *named)
            names = ("key", "actor", "view_id", "kind", "payload", "client_t", "server_t", "app_version")
            sealed.append({"id": last + row, **dict(zip(names, named, strict=True)), "prev_hash": before, "hash": head})
            body = json.dumps(verdict.to_json(), ensure_ascii=False)
            rows.append(
                {"row": row, "id": verdict.id, "query_id": verdict.query_id, "annotator": verdict.annotator, "body": body}
            )
        schema.allow(connection, verdicts.name)
        connection.execute(insert(events), sealed)
        connection.execute(insert(verdicts), rows)
        schema.forbid(connection, verdicts.name)
