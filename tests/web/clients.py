"""Programs that label, for tests and benchmarks: each a person with a token, a keep-alive connection and an outbox."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.records import Prompt, Query
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Project, Projects

REPOSITORY = Path(__file__).resolve().parents[2]


def prepare(path: Path, *, queries: int, people: int, overlap: int = 1) -> list[str]:
    """A store with questions and people who label; the token of each."""
    with Store(path) as store:
        Projects(store).save(Project(id="main", purpose="train", overlap=overlap), by="bench")
        store.add_queries(Query(Prompt(f"Question {i}"), (f"one answer {i}", f"another answer {i}")) for i in range(queries))
        accounts = Accounts(store)
        accounts.add("owner", "owner", by="bench")
        tokens = []
        for i in range(people):
            name = f"person {i}"
            accounts.add(name, "annotator", by="bench")
            tokens.append(accounts.issue("token", name, by="bench", seconds=86400, body={"scopes": ["label"]}))
    return tokens


class Server:
    """`backflip studio` as a process on a port that stays the same when it is started again. `link` signs its owner in, once."""

    def __init__(self, path: Path, *, env: dict[str, str] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._path, self._env, self.link = path, env, ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "backflip", "studio", str(self._path), "--port", str(self.port), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self._path.parent, env=self._env)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "signin#" in line:
                self.link = line.strip()
                return
        raise AssertionError("the studio ended before it answered")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Person:
    """Claims questions and answers them. What was not acknowledged is sent again with the same key, as the page does."""

    def __init__(self, port: int, token: str, *, batch: int = 1) -> None:
        self._port, self._headers, self._batch = (
            port,
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            batch,
        )
        self._connection: http.client.HTTPConnection | None = None
        self.items: list[dict[str, Any]] = []
        self.outbox: list[dict[str, Any]] = []
        self.acknowledged: list[str] = []
        self.ms: list[float] = []
        self.failures = 0

    def call(self, path: str, body: object) -> tuple[int, Any]:
        """Status and JSON of a POST; 0 where the server could not be reached."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
                self._connection.connect()
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.request("POST", f"/api/v1{path}", json.dumps(body), self._headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            return 0, None

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def fill(self, n: int) -> bool:
        """Claim questions where there are none left; False where that failed or there are none."""
        if not self.items:
            status, said = self.call("/projects/main/claims", {"n": n, "counts": False})
            if status != 200:
                self.failures += 1
                return False
            self.items = said["items"]
        return bool(self.items)

    def step(self, claims: int = 20) -> bool:
        """Answer as many questions as go into one request; False where there is nothing to do or the server is away."""
        if not self.outbox:
            if not self.fill(claims):
                return False
            for item in self.items[: self._batch]:
                groups = [[slot["handle"]] for slot in item["slots"]]
                self.outbox.append({"kind": "answer", "key": uuid.uuid4().hex, "view": item["view"], "groups": groups})
            del self.items[: self._batch]
        began = time.perf_counter()
        status, said = self.call("/events", {"events": self.outbox})
        if status != 200:
            self.failures += 1
            return False
        self.ms.append(1000 * (time.perf_counter() - began))
        refused = [outcome for outcome in said["outcomes"] if outcome["status"] == "refused"]
        assert not refused, refused
        self.acknowledged += [event["key"] for event in self.outbox]
        self.outbox = []
        return True


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of measurements."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
