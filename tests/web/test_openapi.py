"""The API against its own description: made-up requests, good and bad, one at a time and in sequences, and never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, strategies
from hypothesis.stateful import run_state_machine_as_test

from backflip.store.accounts import SCOPES
from backflip.web.security import Bucket
from backflip.web.server import Studio, application
from tests.web.conftest import pairs

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

BOUNDED = {
    "deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}  # fmt: skip
ENDS = ("DELETE", "/api/v1/session")  # what all other requests are made with
KNOWN = {"project": "main", "name": "ann", "id": "mine", "query": pairs(1)[0].id}
"""Values of paths that lead to something, used in most requests: made-up ones are nearly always 404."""


@schemathesis.serializer("application/jsonl", "video/webm", "image/png", "image/jpeg", "image/webp")
def as_it_is(_context: Any, value: Any) -> bytes:
    """The body of a route that takes a file."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture
def described(studio: Studio) -> Iterator[tuple[Any, dict[str, str]]]:
    """The description of a studio in which there is something of everything, and the headers of somebody who may do all."""
    studio.closing.set()
    studio.guesses = Bucket(1e9, 1e9)
    studio.store.add_queries(pairs(20))
    studio.accounts.add("ann", "annotator", by="test")
    folder = studio.runs / "mine"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": "ppo", "settings": {}}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward": 1.0}) + "\n")
    app = application(studio, hosts=("testserver", "localhost"))
    carried = studio.accounts.issue("token", "owner", by="test", seconds=3600, body={"scopes": list(SCOPES)})
    yield schemathesis.openapi.from_asgi("/openapi.json", app), {"authorization": f"Bearer {carried}"}
    studio.chat.close()


def operations(schema: Any) -> list[Any]:
    found = [result.ok() for result in schema.get_all_operations()]
    return [each for each in found if (each.method.upper(), each.path) != ENDS]


def lead_somewhere(case: Any) -> None:
    """Have most requests that are meant well ask for something that is there."""
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    for name, value in KNOWN.items():
        if name in (case.path_parameters or {}) and len(str(case.body)) % 4:
            case.path_parameters[name] = value


def test_every_route_answers_as_it_is_described_whatever_it_is_asked(described: tuple[Any, dict[str, str]]) -> None:
    """No 5xx; only statuses, types and bodies that the description names; what breaks the description is refused."""
    schema, headers = described
    statuses: dict[int, int] = {}
    for operation in operations(schema):
        good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @hypothesis.settings(max_examples=8, **BOUNDED)
        @hypothesis.given(case=strategies.one_of(good, bad))
        def ask(case: Any) -> None:
            lead_somewhere(case)
            answer = case.call(headers=dict(headers))
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code != 413:  # refused before anybody looked at it
                case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        ask()
    assert sum(statuses.values()) > 300
    assert statuses[200] > 50
    assert max(statuses) < 500


def test_sequences_of_requests_end_in_no_error(described: tuple[Any, dict[str, str]]) -> None:
    """What one request answers goes into the next: made, changed, asked for, ended."""
    schema, headers = described
    for operation in operations(schema):  # the machine takes them from the description
        assert operation.path.startswith("/api/v1/")
    schema = schema.exclude(method=ENDS[0], path=ENDS[1])
    statuses: list[int] = []

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            lead_somewhere(case)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **kwargs: Any) -> None:
            statuses.append(response.status_code)
            case.validate_response(response, checks=[not_a_server_error])

    run_state_machine_as_test(Machine, settings=hypothesis.settings(max_examples=12, stateful_step_count=8, **BOUNDED))
    assert len(statuses) > 40
    assert max(statuses) < 500
