"""The hash chain of events: each seals itself and, through the one before, everything before it.

    hash_0 = "",   hash_n = SHA-256(JSON [hash_{n−1}, key, actor, view_id, kind, payload, client_t, server_t, app_version])

Whoever changes, adds or drops an event in the middle breaks every link after it. Cutting off the end leaves a shorter
chain that still holds, so note the last hash somewhere else (`backflip store verify` prints it) to notice that too.
"""

from __future__ import annotations

import hashlib
import json

START = ""


def link(
    before: str, key: str, actor: str, view_id: str | None, kind: str, payload: str, client_t: float | None, server_t: float,
    app_version: str,
) -> str:  # fmt: skip
    """The hash of an event, 64 hexadecimal digits; `before` is that of the event before it (`START` for the first)."""
    sealed = json.dumps([before, key, actor, view_id, kind, payload, client_t, server_t, app_version])
    return hashlib.sha256(sealed.encode()).hexdigest()
