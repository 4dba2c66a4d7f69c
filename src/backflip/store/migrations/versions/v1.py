"""Schema 1: queries, verdicts and retractions. Where a store of backflip 0.1.0 begins; there is nothing to run."""

from __future__ import annotations

revision = "1"
down_revision = None
