"""Serving the studio: one process, one port, loopback unless it is told otherwise, stopped by Ctrl-C without losing a click."""

from __future__ import annotations

import contextlib
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from backflip.errors import UserError
from backflip.store import Store

LOOPBACK = ("127.0.0.1", "localhost", "::1")
REQUESTS_PER_S, BURST = 100.0, 400.0  # of one person; nobody clicks as fast, a program that does is slowed down


def serve(
    place: str, *, runs: Path, host: str = "127.0.0.1", port: int = 8042, names: tuple[str, ...] = (), browser: bool = True,
    certificate: tuple[str, str] | None = None, behind_proxy: bool = False, on_ready: Callable[[str], None] | None = None,
    until: Callable[[], bool] | None = None,
) -> None:  # fmt: skip
    """Serve the store at `place` until Ctrl-C, SIGTERM, or `until` says so; `port` 0 takes a free one.

    `on_ready` is given the link that signs the owner in (by default it is printed and, with `browser`, opened). Raises
    UserError when others could reach the studio without encryption, and when the port is taken.
    """
    if host not in LOOPBACK and certificate is None and not behind_proxy:
        raise UserError(
            f"on {host} others could listen in: give --certificate and --key, or --behind-proxy if something in front encrypts"
        )
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    with listener, Store(place) as store:
        from backflip.web.run import run

        shown = names[0] if names else f"[{host}]" if ":" in host else "127.0.0.1" if host in ("0.0.0.0", "::") else host
        scheme = "https" if certificate or behind_proxy else "http"
        address = f"{scheme}://{shown}" + ("" if behind_proxy else f":{port}")

        def ready(secret: str) -> None:
            link = f"{address}/signin#{secret}"
            if on_ready is not None:
                on_ready(link)
                return
            print(f"The studio is at {address} (Ctrl-C stops it). This link signs you in, once:\n\n    {link}\n")
            sys.stdout.flush()
            if browser:
                with contextlib.suppress(webbrowser.Error):
                    webbrowser.open(link)

        run(
            store,
            runs,
            listener,
            names=(*names, host),
            certificate=certificate,
            behind_proxy=behind_proxy,
            ready=ready,
            until=until,
        )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns off Nagle's algorithm, which would hold the end of an answer back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise UserError(f"port {port} of {host} cannot be used ({problem.strerror}); give another one with --port") from problem
    return listener
