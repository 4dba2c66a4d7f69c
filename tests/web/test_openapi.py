"""The API against its own description: made-up requests, good and bad, one at a time and in sequences, and never a 5xx."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from backflip.store import Store
from backflip.store.accounts import SCOPES
from backflip.web.server import Studio, application
from tests.web.conftest import pairs

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
