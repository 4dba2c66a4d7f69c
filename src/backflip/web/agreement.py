"""What the Agreement page talks to: how far people, judges and reward models agree, and what is decided where they do not."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/v1", tags=["agreement"])
