"""The studio inside uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from backflip.store import Store
from backflip.web.security import Bucket
from backflip.web.serve import BURST, REQUESTS_PER_S
from backflip.web.server import LOOPBACK, Studio, application


class _Server(uvicorn.Server):
    """Tells the studio when it stops: it would wait for streams to end, and they have no end of their own."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self._studio = studio

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in good order on Ctrl-C or SIGTERM. Stopping a studio is no failure, so unlike uvicorn we do not raise the signal
        again afterwards; outside the main thread, where Python has no signals, whoever serves says when to stop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._studio.closing.set()
        await super().shutdown(sockets)


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
    server = _Server(config, studio)

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        ready(studio.begin())
        await asyncio.to_thread(_warm)
        while until is not None and not server.should_exit:
            if until():
                server.should_exit = True
            await asyncio.sleep(0.5)

    async def both() -> None:
        telling = asyncio.create_task(announce())
        await server.serve(sockets=[listener])
        telling.cancel()

    asyncio.run(both())


def _warm() -> None:
    """Load what the first question needs, so that whoever asks for it need not wait for imports."""
    from backflip.seeds import Seeds
    from backflip.web.render import markdown

    Seeds(0).permutation(2, "warm")
    markdown("warm")
