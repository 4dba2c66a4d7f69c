"""Progress: a bar on a terminal, a few plain lines in a file, nothing when quiet."""

from __future__ import annotations

import io

import pytest

from backflip.runs import progress as module
from backflip.runs.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def walk(stream: io.StringIO, total: int, done: int = 0, quiet: bool = False) -> str:
    with progress(total, "ppo [x]", done=done, quiet=quiet, stream=stream) as bar:
        for step in range(done, total):
            bar.advance(**{"objective/kl": step / 3})
    return stream.getvalue()


def test_a_file_gets_a_line_at_every_tenth() -> None:
    lines = walk(io.StringIO(), 200).splitlines()
    assert len(lines) == 10
    assert lines[0] == "ppo [x] 20/200  kl 6.333"
    assert lines[-1] == "ppo [x] 200/200  kl 66.33"


def test_a_resumed_run_counts_on() -> None:
    assert walk(io.StringIO(), 100, done=95).splitlines() == ["ppo [x] 100/100  kl 33"]


def test_a_slow_run_speaks_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    stream = io.StringIO()
    bar = module._Lines(1000, "ppo", 0, stream, clock=lambda: now[0])
    for second in range(1, 70):
        now[0] = float(second)
        bar.advance()
    assert stream.getvalue().splitlines() == ["ppo 30/1000", "ppo 60/1000"]


def test_a_terminal_gets_a_bar_with_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = walk(Terminal(), 3)
    assert "ppo [x]" in shown
    assert "3/3" in shown
    assert "kl 0.6667" in shown


def test_quiet_is_silent() -> None:
    assert walk(io.StringIO(), 20, quiet=True) == walk(Terminal(), 20, quiet=True) == ""
