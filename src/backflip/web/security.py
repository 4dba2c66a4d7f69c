"""What stands before every request: whom we speak to, who may send us forms, how much and how often, and what a page may load.

One pure ASGI middleware, because wrapping requests a second time costs more than answering them.

- Host: only names we were told, so that a page elsewhere cannot rebind its own name to this machine.
- Cross-site writes: a browser says where a request comes from (Sec-Fetch-Site, else Origin); anything but ourselves is refused.
  A request with a token and without a cookie is a program's, which no page can forge.
- Size: bodies are read up to a limit; where files are sent it is larger, for whoever is signed in.
- Number: tokens and sessions are counted each for itself, strangers by their address.
- Pages load nothing from elsewhere and run no script but ours (Content-Security-Policy, with trusted types).
"""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::\d{1,5})?")
SAFE = {"GET", "HEAD", "OPTIONS"}
BODY = 256 * 1024  # 64 events of an outbox, each with a note of 4,000 characters, fit
LARGE_BODY = 64 * 2**20
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types backflip"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]


class Guard:
    """The middleware. `hosts` are the names that requests may be addressed to; `large` matches the paths that take large
    bodies; `limit` is the bucket that says whether somebody asks too often, or None; `who` says what a request is counted
    under, None for a stranger."""

    def __init__(
        self, app: App, *, hosts: Iterable[str], large: re.Pattern[str] | None = None, limit: Bucket | None = None,
        who: Callable[[Scope], str | None] = lambda _scope: None,
    ) -> None:  # fmt: skip
        self._app, self._hosts, self._large, self._limit, self._who = app, frozenset(hosts), large, limit, who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with one sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        size = _Size(receive, self._most(scope))
        refused = self._refusal(scope, headers, size.limit)
        if refused is not None:
            await refuse(send, *refused)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if size.exceeded and not started:  # whatever the application makes of a body that was cut off
                return
            if message["type"] == "http.response.start":
                started = True
                said = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in said)]
                if b"cache-control" not in said:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        try:
            await self._app(scope, size.receive, with_headers)
        except _TooLargeError:
            pass
        except Exception:
            if not started:
                await refuse(send, 500, "something went wrong in the studio; its log says what")
            raise
        if size.exceeded and not started:
            await refuse(send, *size.refusal)

    def _most(self, scope: Scope) -> int:
        """How large a body may be. Strangers have no files to send."""
        large = self._large is not None and self._large.fullmatch(scope["path"]) and self._who(scope) is not None
        return LARGE_BODY if large else BODY

    def _refusal(self, scope: Scope, headers: dict[str, str], most: int) -> tuple[int, str] | tuple[int, str, float] | None:
        host = headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return 421, f"this studio does not answer to the name {host[:80]!r}; start it with --host-name to add one"
        method, program = scope["method"], "authorization" in headers and "cookie" not in headers
        if method not in SAFE and not program and not _own(headers, host):
            return 403, "this request comes from another site and was refused"
        length = headers.get("content-length", "0")
        if length.isdigit() and len(length) < 20 and int(length) > most:
            return 413, f"the request is larger than {most // 1024} KiB"
        if self._limit is not None:
            wait = self._limit.wait(self._who(scope) or f"address {(scope.get('client') or ('',))[0]}")
            if wait > 0:
                return 429, "too many requests; try again in a moment", wait
        return None


class Bucket:
    """Token buckets: each asker may do `rate` things a second, and `burst` at once."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic, most: int = 10_000) -> None:
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, asker: str) -> float:
        """Seconds until `asker` may ask; 0 when they may now, and then it counts."""
        now = self._clock()
        left, then = self._left.pop(asker, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[asker] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > self._most:  # whoever was not seen for longest has a full bucket anyway
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def give_back(self, asker: str) -> None:
        """What `asker` did last does not count after all."""
        left, then = self._left.get(asker, (self._burst, self._clock()))
        self._left[asker] = (min(self._burst, left + 1), then)


async def refuse(send: Send, status: int, sentence: str, wait: float | None = None) -> None:
    """Send an error as the API writes it."""
    body = json.dumps({"detail": sentence}).encode()
    said = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    headers = [*said, *HEADERS]
    if wait is not None:
        headers.append((b"retry-after", str(max(1, round(wait))).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _TooLargeError(Exception):
    pass


class _Size:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit, self._seen = receive, limit, 0

    @property
    def exceeded(self) -> bool:
        return self._seen > self.limit

    @property
    def refusal(self) -> tuple[int, str]:
        return 413, f"the request is larger than {self.limit // 1024} KiB"

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self.exceeded:
            raise _TooLargeError
        return message


def _own(headers: dict[str, str], host: str) -> bool:
    """Whether a browser says that a request comes from a page of ours, or it comes from no browser at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or (origin != "null" and urlsplit(origin).netloc.lower() == host.lower())


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; of one that is no name and port, all of it."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else host
