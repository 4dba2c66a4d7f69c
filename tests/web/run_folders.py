"""Run folders for the tests of the Runs page: written as training writes them, and one that lives and obeys."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backflip.errors import Interrupted
from backflip.runs import Run

PROMPTS = ("Name a colour.", "What is the capital of France?", "Write a haiku about rain.", "请介绍北京。")


def row(step: int) -> dict[str, float]:
    """A line of PPO's metrics in which the proxy rises while gold falls."""
    wave = math.sin(step * 1.7) * 0.02
    return {
        "objective/scores": step / 50 + wave, "objective/gold": 1 - step / 60 + wave, "kl/seq_nats": step / 10 + wave,
        "objective/entropy": 2.0 + wave, "rollout/length": 20 + wave, "policy/clipfrac_avg": 0.05, "grad_norm": 0.5,
    }  # fmt: skip


def texts(step: int, prompts: Iterable[str] = PROMPTS) -> list[dict[str, Any]]:
    """What a policy wrote at a step: later longer, and the last prompt always the same."""
    return [
        {
            "prompt": prompt, "completion": "blue" if i == 3 else f"{prompt} {'good ' * step}", "finished": i != 1,
            "proxy": step / 10 + i, "gold": i / 10,
        }
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip


def write_run(
    folder: Path, steps: int = 40, *, kind: str = "ppo", settings: Mapping[str, Any] | None = None, finished: bool = True,
    make: Callable[[int], dict[str, float]] = row, sample_every: int = 10, seconds: bool = True,
) -> Path:  # fmt: skip
    """A run of some steps in `folder`, closed again."""
    with Run.open(folder, kind=kind, settings=settings or {"steps": steps}, quiet=True) as run:
        for step in range(1, steps + 1):
            run.log(step, make(step))
            if seconds:
                run.time(step, {"rollout": 0.5, "update": 1.5})
            if sample_every and (step == 1 or step % sample_every == 0):
                run.samples(step, texts(step))
        if finished:
            run.finish({"score": 1.0})
    return folder


class Living:
    """A run that goes on in a thread until it is asked to stop, a line every `pause` seconds; it saves when it is asked."""

    def __init__(self, folder: Path, *, pause: float = 0.02, steps: int = 100_000) -> None:
        self.folder, self.pause, self.steps = folder, pause, steps
        self.step = 0
        self.ended_by: str | None = None
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self._train)
        self.opened = threading.Event()

    def _train(self) -> None:
        with Run.open(self.folder, kind="ppo", settings={"steps": self.steps}, quiet=True) as run:
            self.opened.set()
            try:
                while not self.leave.is_set():
                    self.step += 1
                    run.log(self.step, row(self.step))
                    run.time(self.step, {"rollout": 0.5, "update": 1.5})
                    if self.step == 1 or self.step % 10 == 0:
                        run.samples(self.step, texts(self.step))
                    if run.asked:
                        with run.checkpoints.writing(self.step) as place:
                            (place / "n").write_text(str(self.step))
                        run.obey(self.step)
                    self.leave.wait(self.pause)
            except Interrupted as stopped:
                self.ended_by = str(stopped)


@contextlib.contextmanager
def living(folder: Path, **changes: Any) -> Iterator[Living]:
    """A living run inside the block."""
    run = Living(folder, **changes)
    run.thread.start()
    try:
        assert run.opened.wait(20)
        yield run
    finally:
        run.leave.set()
        (folder / "control.json").unlink(missing_ok=True)
        run.thread.join(20)
        assert not run.thread.is_alive()


def wait_for(what: Callable[[], Any], seconds: float = 15.0) -> Any:
    """What a function gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
    return found
