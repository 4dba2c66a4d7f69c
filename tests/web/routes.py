"""Every route of the studio, and requests that reach it, for tests that go through all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute

from backflip.web.server import ROUTERS

Key = tuple[str, str]  # method and path
UNSAFE = {"POST", "PUT", "DELETE", "PATCH"}
VALUES = {"project": "main", "name": "f" * 64, "id": "absent", "query": "absent", "page": "label", "part": "x"}
"""What stands in for each parameter of a path."""


def routes() -> dict[Key, APIRoute]:
    """Every route by method and path, pages included."""
    return {
        (method, route.path): route
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    }


def api() -> dict[Key, APIRoute]:
    """Every route of the API."""
    return {key: route for key, route in routes().items() if key[1].startswith("/api/")}


def permissions(dependant: Any) -> Iterator[str]:
    """The permissions that a route asks for, in the order in which it does."""
    for inner in dependant.dependencies:
        if hasattr(inner.call, "permission"):
            yield inner.call.permission
        yield from permissions(inner)


def parameters(path: str) -> list[str]:
    """The names of a path's parameters as they stand in it, such as "id:path"."""
    return [part.split("}")[0] for part in path.split("{")[1:]]


def filled(path: str, **values: str) -> str:
    """A path with values in place of its parameters."""
    for parameter in parameters(path):
        name = parameter.split(":")[0]
        path = path.replace("{" + parameter + "}", values.get(name, VALUES.get(name, "absent")))
    return path
