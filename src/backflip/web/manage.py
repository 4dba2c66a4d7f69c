"""What the Projects and People pages and other programs talk to: projects, people, tokens, questions pushed, verdicts pulled."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/v1", tags=["manage"])
