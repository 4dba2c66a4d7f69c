"""The studio inside uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from backflip.store import Store
from backflip.web.security import Bucket
from backflip.web.serve import BURST, REQUESTS_PER_S
from backflip.web.server import LOOPBACK, Studio, application


def run(
    store: Store, runs: Path, listener: socket.socket, *, names: tuple[str, ...], certificate: tuple[str, str] | None,
    behind_proxy: bool, ready: Callable[[str], None], until: Callable[[], bool] | None,
) -> None:  # fmt: skip
    """Serve on a bound socket; `ready` gets the owner's sign-in secret once requests are answered."""
    studio = Studio(store, runs)
    app = application(studio, hosts=(*LOOPBACK, *names), limit=Bucket(REQUESTS_PER_S, BURST))
    cert, key = certificate or (None, None)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ssl_certfile=cert, ssl_keyfile=key,
        proxy_headers=behind_proxy, forwarded_allow_ips="127.0.0.1", timeout_graceful_shutdown=5, lifespan="on",
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        ready(studio.begin())
        while until is not None and not server.should_exit:
            if until():
                server.should_exit = True
            await asyncio.sleep(0.5)

    async def both() -> None:
        telling = asyncio.create_task(announce())
        await server.serve(sockets=[listener])
        telling.cancel()

    asyncio.run(both())
