"""Chat with a policy: which there are, and what one answers. The model runs in a process of its own (`worker.Worker`)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field

from backflip.errors import BusyError, DataError
from backflip.runs.catalogue import folders
from backflip.web import models
from backflip.web.identity import Actor, need, studio
from backflip.web.render import markdown, visible
from backflip.web.worker import COMMAND, Crashed, Worker

router = APIRouter(prefix="/api/v1/chat", tags=["chat"])
Runner = Annotated[Actor, Depends(need("run"))]
IDLE_S = 600.0  # how long a model that nobody talks with stays in memory
REPLY_S = 300.0  # loading a large model included
MOST_WAITING = 8


class Turn(models.Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=20_000)]


class ChatBody(models.Body):
    """A conversation so far, and who is to go on with it. A temperature of 0 takes the likeliest token."""

    policy: Annotated[str, Field(max_length=400)]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=200)]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7


class ReplySay(models.Say):
    """What the policy said, plain and as safe HTML, in how many seconds. `forgotten` of the first messages no longer fitted."""

    text: str
    html: str
    seconds: float
    forgotten: int


class TalkerSay(models.Say):
    """A policy that can be talked with: its id, and the run and generation that it is."""

    id: str
    run: str
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy stands: its id below the runs folder, its run's id, its name there, and its folder."""

    id: str
    run: str
    name: str
    folder: Path


def places(runs: Path) -> list[Place]:
    """Every generation that the runs below a folder have kept. They are found by looking: no name that somebody gives becomes
    a path, and links are not followed."""
    found = []
    for run, folder in folders(runs).items():
        inside = folder / "generations"
        if inside.is_symlink():
            continue
        try:
            with os.scandir(inside) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "." and e.name.isprintable()]
        except OSError:
            continue
        found += [Place(f"{run}/{name}", run, name, inside / name) for name in names]
    return found


class Chat:
    """At most one policy in memory; requests are answered one after the other. Every method may be called from any thread."""

    def __init__(self, runs: Path, *, command: Sequence[str] = COMMAND, idle_s: float = IDLE_S, reply_s: float = REPLY_S) -> None:
        self.runs, self.command, self.idle_s, self.reply_s = runs, command, idle_s, reply_s
        self._lock = threading.RLock()  # what ends at once calls back from within
        self._pool: ThreadPoolExecutor | None = None
        self._worker: Worker | None = None
        self._timer: threading.Timer | None = None
        self._waiting = self._asked = self._era = 0

    async def say(self, policy: str, messages: list[dict[str, str]], **settings: Any) -> dict[str, Any]:
        """What a policy answers. Raises LookupError for one that is not there, BusyError when too many wait, DataError for what
        the policy cannot answer, and Crashed when its process ended."""
        found = next((place for place in await asyncio.to_thread(places, self.runs) if place.id == policy), None)
        if found is None:
            raise LookupError(f"there is no policy {policy[:100]!r} here")
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise BusyError(f"{self._waiting} people are waiting for a policy's answer; try again in a moment")
            self._waiting += 1
            self._asked += 1
            id, era = str(self._asked), self._era
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "chat")
            work = self._pool.submit(self._answer, found.folder, {"id": id, "messages": messages, **settings}, era)
            work.add_done_callback(lambda _done: self._left())
        try:
            answer = await asyncio.shield(asyncio.wrap_future(work))
        except asyncio.CancelledError:
            if work.cancelled():
                raise Crashed("the studio is stopping") from None
            raise
        if "error" in answer:
            raise DataError(str(answer["error"]))
        return answer

    def close(self) -> None:
        """End the process, if there is one, and everything that waits for it; asked again, another one starts."""
        with self._lock:
            pool, worker, self._pool, self._worker = self._pool, self._worker, None, None
            self._era += 1
            self._put_off()
        if worker is not None:
            worker.kill()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        if worker is not None:
            worker.stop()

    def _left(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _answer(self, folder: Path, request: dict[str, Any], era: int) -> dict[str, Any]:
        worker = self._ready(folder, era)
        try:
            return worker.ask(request, seconds=self.reply_s)
        except Crashed:
            self._end(worker)
            raise
        finally:
            with self._lock:
                if self._worker is worker:
                    self._timer = threading.Timer(self.idle_s, self._end_idle, (worker,))
                    self._timer.daemon = True
                    self._timer.start()

    def _ready(self, folder: Path, era: int) -> Worker:
        """The process of a policy, started if need be; the one of another policy is ended first."""
        with self._lock:
            self._put_off()
            old = self._worker
        if old is not None and (old.policy != folder or not old.alive):
            self._end(old)
        with self._lock:
            if self._era != era:
                raise Crashed("the studio is stopping")
            if self._worker is None:
                self._worker = Worker(folder, self.command)
            return self._worker

    def _end_idle(self, worker: Worker) -> None:
        with self._lock:
            if self._timer is None or self._worker is not worker:  # put off while this was about to begin
                return
            self._timer = self._worker = None
        worker.stop()

    def _end(self, worker: Worker) -> None:
        with self._lock:
            if self._worker is worker:
                self._worker = None
        worker.stop()

    def _put_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@router.get("/policies", summary="Whom one can talk with")
def policies(request: Request, actor: Runner) -> list[TalkerSay]:
    """Every generation in the studio's runs, those of a run in the order they were made."""
    from backflip.arena.order import generation_order

    found = places(studio(request).runs)
    order = generation_order(place.name for place in found)
    found.sort(key=lambda place: (place.run, order.index(place.name)))
    return [TalkerSay(id=place.id, run=place.run, name=place.name) for place in found]


@router.post("", summary="What a policy answers")
async def say(request: Request, actor: Runner, body: ChatBody) -> ReplySay:
    """The next turn of a conversation. It takes as long as the model takes; the first one also loads it.

    404: there is no such policy. 422: it cannot answer this. 502: its process ended. 503: too many are waiting.
    """
    messages = [turn.model_dump() for turn in body.messages]
    try:
        answer = await studio(request).chat.say(
            body.policy, messages, max_new_tokens=body.max_new_tokens, temperature=body.temperature
        )
    except LookupError as problem:
        raise HTTPException(404, str(problem.args[0])) from problem
    except Crashed as problem:
        raise HTTPException(502, str(problem)) from problem
    text = str(answer["text"])
    return ReplySay(text=visible(text), html=markdown(text), seconds=answer["seconds"], forgotten=answer["forgotten"])
