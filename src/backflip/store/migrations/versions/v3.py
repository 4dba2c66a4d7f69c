"""Schema 3: what the studio keeps (projects, gold answers, media, people, secrets), and views that show a question again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add the tables and the column, and say that this is schema 3."""
    op.add_column("views", sa.Column("repeat", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_views_annotator", "views", ["annotator"])
    op.create_index("ix_leases_annotator", "leases", ["annotator"])
    op.create_index("ix_queries_purpose", "queries", ["purpose", "row"])
    op.create_table(
        "projects",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "golds",
        sa.Column("query_id", sa.Text, sa.ForeignKey("queries.id"), primary_key=True, nullable=False),
        sa.Column("expected", sa.Text, nullable=False),
    )
    op.create_table(
        "media",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.String(64), primary_key=True, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password", sa.Text),
        sa.Column("active", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("used", sa.Float),
    )
    op.execute("DROP TRIGGER backflip_schema_no_update")
    op.execute("UPDATE backflip_schema SET version = 3")
    op.execute(
        "CREATE TRIGGER backflip_schema_no_update BEFORE UPDATE ON backflip_schema "
        "BEGIN SELECT RAISE(ABORT, 'backflip_schema is append-only: UPDATE refused'); END"
    )
