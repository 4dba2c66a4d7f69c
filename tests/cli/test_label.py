"""`backflip label` as a person and a script meet it: over a real terminal, and over a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import backflip
from backflip.records import Prompt, Query
from backflip.store import Store

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
termios = pytest.importorskip("termios", reason="this system has no terminal modes")

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(backflip.__file__).parents[1]),
    "TERM": "xterm",
    "COLUMNS": "90",
    "LINES": "30",
}
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from backflip.cli.main import main; sys.exit(main(sys.argv[1:]))",
    "label",
]


def fill(path: Path, n: int) -> list[Query]:
    queries = [Query(Prompt(f"question {i}"), (f"first {i}", f"second {i}")) for i in range(n)]
    with Store(path) as store:
        store.add_queries(queries)
    return queries


def label(*args: object, lines: str = "") -> subprocess.CompletedProcess[str]:
    """The command with its input from a pipe."""
    return subprocess.run([*COMMAND, *map(str, args)], input=lines, capture_output=True, text=True, timeout=30, env=ENVIRONMENT)


class Terminal:
    """The command on a pseudo-terminal of its own."""

    def __init__(self, *args: object) -> None:
        self.fd, self._other = pty.openpty()
        self.modes = termios.tcgetattr(self._other)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            stdin=self._other,
            stdout=self._other,
            stderr=self._other,
            env=ENVIRONMENT,
            start_new_session=True,
            # Whoever started the tests in the background has them ignore Ctrl-C, and an ignored signal is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read the screen until `text` has appeared since the last time."""
        deadline = time.monotonic() + 20
        os.set_blocking(self.fd, False)
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} never appeared in {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.01)
        self.seen = self.seen.split(text, 1)[1]

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self.fd, keys)

    def end(self) -> int:
        """The exit code; checks that the terminal is as it was."""
        code = self.process.wait(timeout=20)
        assert termios.tcgetattr(self._other) == self.modes
        os.close(self.fd)
        os.close(self._other)
        return code


def verdicts(path: Path) -> list[tuple[str, str]]:
    with Store(path, read_only=True) as store:
        return [(v.query_id, v.choice) for v in store.verdicts()]


def test_arrow_keys_on_a_real_terminal(tmp_path: Path) -> None:
    """Each key is stored by the time the next question is on the screen; undo asks the last one again."""
    path = tmp_path / "feedback.db"
    queries = fill(path, 4)
    screen = Terminal(path, "--annotator", "ann")
    keys = [b"\x1b[D", b"\x1bOC", b"\x1b[B"]
    for number, key in enumerate(keys, 1):
        screen.wait_for(f"{number} of 4")
        screen.wait_for("q quit")
        assert len(verdicts(path)) == number - 1
        screen.press(key)
    screen.wait_for("4 of 4")
    screen.press(b"\x7f")
    screen.wait_for("3 of 4 · taken back")
    screen.wait_for("question 2")
    assert [q for q, _ in verdicts(path)] == [q.id for q in queries[:2]]
    screen.press(b"s")
    screen.wait_for("4 of 4")
    screen.press(b"q")
    screen.wait_for("3 of 4 answered by ann")
    assert screen.end() == 0
    stored = verdicts(path)
    assert [q for q, _ in stored] == [q.id for q in queries[:3]]
    assert stored[0][1] in ("left", "right")
    assert stored[2][1] == "skip"


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "stopped; every answer so far is saved"), (signal.SIGTERM, 130, "stopped; every answer")],
)
def test_a_signal_restores_the_terminal_and_keeps_the_answers(tmp_path: Path, number: int, code: int, message: str) -> None:
    path = tmp_path / "feedback.db"
    fill(path, 3)
    screen = Terminal(path)
    screen.wait_for("1 of 3")
    screen.press(b"t")
    screen.wait_for("2 of 3")
    screen.wait_for("q quit")
    screen.process.send_signal(number)
    screen.wait_for(message)
    assert screen.end() == code
    assert [choice for _, choice in verdicts(path)] == ["tie"]


def test_lines_from_a_pipe_and_going_on_later(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    queries = fill(path, 5)
    first = label(path, "--annotator", "ann", lines="l\nr\nu\nt\n")
    assert (first.returncode, first.stderr) == (0, "")
    assert "2 of 5 answered by ann" in first.stdout
    second = label(path, "--annotator", "ann", lines="s\nq\n")
    assert "3 of 5" in second.stdout
    assert "2 of 5 ─" not in second.stdout
    assert [q for q, _ in verdicts(path)] == [q.id for q in queries[:3]]
    assert [choice for _, choice in verdicts(path)][1:] == ["tie", "skip"]


def test_questions_from_a_file_make_the_store(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b"], "policies": ["secret1", "secret2"]} for i in range(2)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = label(tmp_path / "new.db", "--queries", tmp_path / "q.jsonl", lines="t\nt\n")
    assert done.returncode == 0
    assert "secret" not in done.stdout
    assert [choice for _, choice in verdicts(tmp_path / "new.db")] == ["tie", "tie"]
    again = label(tmp_path / "new.db", "--queries", tmp_path / "q.jsonl")
    assert "2 of 2 answered" in again.stdout


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    fill(tmp_path / "empty.db", 0)
    fill(tmp_path / "full.db", 1)
    cases = [
        ((tmp_path / "gone.db",), "", "there is no store at"),
        ((tmp_path / "empty.db",), "", "holds no questions yet; give some with --queries FILE"),
        ((tmp_path / "full.db", "--queries", tmp_path / "gone.jsonl"), "", "there is no file"),
        ((tmp_path / "full.db",), "what?\n", "standard input, line 1: 'what?' is no answer"),
        (("mysql://host/db",), "", "only a file path, sqlite:///path and postgresql://… work"),
    ]
    for args, lines, message in cases:
        done = label(*args, lines=lines)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.startswith("backflip: ")
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "gone.db").exists()
