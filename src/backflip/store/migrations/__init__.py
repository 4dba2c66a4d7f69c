"""Bringing a store of an older schema to this one: Alembic's steps, inside one transaction of ours.

A new store is made from the tables in `schema.py`; a test holds that and the steps here to the same result. There is no
way back down: an older release refuses a newer store by its number, and a backup taken before is the old store.

Stores on PostgreSQL begin at schema 3, so every later step has to run on both databases. Triggers come and go through
`schema.forbid` and `schema.allow`, and numbers that may outgrow 32 bits are of the type `schema.Number`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from backflip.errors import StorageError


def migrate(connection: Connection, name: str) -> None:
    """Bring the store on `connection`, which is in a write transaction, to the newest schema.

    `name` is what messages call the store. Raises StorageError when a row of the old store cannot be read.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(Path(__file__).parent))

    def to_newest(heads: Any, _context: Any) -> Any:
        return steps._upgrade_revs("head", heads)

    with EnvironmentContext(Config(), steps, fn=to_newest) as environment:
        environment.configure(connection=connection)
        context = environment.get_context()
        if not context.get_current_heads():
            context.stamp(steps, "1")  # schema 1 was made without Alembic
        try:
            environment.run_migrations()
        except ValueError as problem:
            raise StorageError(f"store {name} cannot be migrated: {problem}; restore it from an export or a copy") from problem
