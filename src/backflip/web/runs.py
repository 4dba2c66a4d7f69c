"""What the Runs page talks to: run folders as they are, while training writes them."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/v1", tags=["runs"])
