"""docs/store.md against the code: every table, whether it may forget, every kind of event and every method."""

from __future__ import annotations

import re
from pathlib import Path

from backflip.store import Store, leases, schema
from backflip.store.events import NOTES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "store.md").read_text(encoding="utf-8")


def test_every_table_stands_on_the_page_with_whether_it_forgets() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", PAGE, flags=re.MULTILINE))
    assert told == {name: "yes" if name in schema.APPEND_ONLY else "no" for name in schema.metadata.tables}


def test_what_the_page_says_of_events_leases_and_versions() -> None:
    assert all(f"`{kind}`" in PAGE for kind in ("verdict", "retraction", "surplus", *NOTES))
    assert f"A lease lasts {leases.LEASE_S:.0f} seconds" in PAGE
    assert f"This is schema {schema.VERSION}." in PAGE


def test_every_method_on_the_page_is_there() -> None:
    used = set(re.findall(r"store\.(\w+)", PAGE)) | {"claim", "heartbeat", "release", "submit", "export_jsonl", "import_jsonl"}
    assert {name for name in used - {"md", "py", "kill"} if not hasattr(Store, name)} == set()
