"""The pages: each a shell around one ES module, in the reader's language. What they show comes from the API."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from backflip import __version__
from backflip.web.identity import Actor, Permission, studio

router = APIRouter(include_in_schema=False)
HERE = Path(__file__).parent
LANGUAGES = {"en": "English", "zh-CN": "简体中文"}
PAGES: dict[str, Permission] = {
    "label": "label", "runs": "read", "arena": "read", "agreement": "read", "projects": "admin", "people": "admin"
}  # fmt: skip
"""The pages in the order of the tabs, and what one must be allowed for them."""


@router.get("/")
def home(request: Request) -> Response:
    """To the first page that whoever asks may see."""
    actor = studio(request).identities.of(request)
    first = next((page for page, permission in PAGES.items() if actor and actor.may(permission)), "signin")
    return RedirectResponse(f"/{first}", 303)


@router.get("/signin")
def signin(request: Request) -> Response:
    """Where links, invitations and passwords are taken. The secret stands behind the #, so it is in no log."""
    return _page(request, "signin", None)


@router.get("/{page}")
@router.get("/{page}/{part:path}")
def page(request: Request, page: str, part: str = "") -> Response:
    """One of the pages; its module reads the rest of the path."""
    if page == "api":
        return JSONResponse({"detail": "there is no such path; the API is described at /openapi.json"}, 404)
    if page not in PAGES:
        return _page(request, "missing", studio(request).identities.of(request), 404)
    actor = studio(request).identities.of(request)
    if actor is None:
        return RedirectResponse("/signin", 303)
    if not actor.may(PAGES[page]):
        return _page(request, "denied", actor, 403)
    return _page(request, page, actor)


def _page(request: Request, name: str, actor: Actor | None, status: int = 200) -> HTMLResponse:
    language = language_of(request)
    theme = request.cookies.get("backflip_theme", "auto")
    html = _templates().get_template("page.html").render(
        page=name, language=language, languages=LANGUAGES, version=__version__,
        theme=theme if theme in ("light", "dark") else "auto",
        strings=strings(language), sheet=(HERE / "static" / f"{name}.css").exists(), data=_script(strings(language)),
        actor=actor, tabs=[page for page, permission in PAGES.items() if actor and actor.may(permission)],
    )  # fmt: skip
    return HTMLResponse(html, status)


def language_of(request: Request) -> str:
    """The language that was chosen, or the first of the browser's that we have."""
    chosen = request.cookies.get("backflip_language", "")
    if chosen in LANGUAGES:
        return chosen
    for wanted in request.headers.get("accept-language", "").split(","):
        code = wanted.split(";")[0].strip().lower()
        if code.startswith("zh"):
            return "zh-CN"
        if code.startswith("en"):
            return "en"
    return "en"


@functools.cache
def strings(language: str) -> dict[str, str]:
    """Everything the pages say in one language."""
    found: dict[str, str] = json.loads((HERE / "locales" / f"{language}.json").read_text(encoding="utf-8"))
    return found


def _script(values: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")


@functools.cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
