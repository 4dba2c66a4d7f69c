"""What the Arena page talks to: ratings with intervals, and chat with a policy in a process of its own."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/v1", tags=["arena"])
