"""Where feedback lives: an append-only store of queries, verdicts and retractions that outlives any run.

Labelers write, training reads, and the two meet nowhere else. Imports no torch.
"""

from __future__ import annotations

from backflip.store.store import Store

__all__ = ["Store"]
