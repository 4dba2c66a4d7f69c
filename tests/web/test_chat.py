"""Chat with a policy: a process of its own, one at a time, ended when idle and with the studio; what goes wrong is said."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backflip.web import chat
from backflip.web.chat import Chat
from backflip.web.server import Studio

As = Callable[..., TestClient]
FAKE = """
import json, os, signal, sys, time
folder = sys.argv[1]
open(os.path.join(folder, "..", "..", "pids"), "a").write(f"{os.getpid()} {os.path.basename(folder)}\\n")
print("a library says hello", flush=True)
if "broken" in folder:
    sys.exit("backflip: the policy cannot be loaded: no such tensor")
for line in sys.stdin:
    request = json.loads(line)
    text = request["messages"][-1]["content"]
    if text == "die": os.kill(os.getpid(), signal.SIGKILL)
    if text == "leave": print("out of memory", file=sys.stderr); sys.exit(5)
    if text == "sleep": time.sleep(60)
    if text == "slow": time.sleep(0.2)
    answer = {"id": request["id"]}
    if text == "refuse": answer["error"] = "the last message fills the policy's whole context"
    else: answer |= {"text": f"{os.path.basename(folder)}: {text} {request['temperature']}", "seconds": 0.01, "forgotten": 0}
    print(json.dumps({"id": "0", "text": "of somebody else"}), flush=True)
    print(json.dumps(answer), flush=True)
"""


def make_run(runs: Path, id: str, *names: str) -> Path:
    """A run folder with generations that hold nothing."""
    for name in names:
        (runs / id / "generations" / name).mkdir(parents=True)
    (runs / id / "run.json").write_text(json.dumps({"kind": "rounds", "settings": {}}))
    return runs / id


@pytest.fixture
def run(studio: Studio, tmp_path: Path) -> Iterator[Path]:
    """A run with three generations, and a studio whose policies are a script that echoes."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    studio.chat = Chat(studio.runs, command=(sys.executable, str(script), "{policy}"), reply_s=20)
    yield make_run(studio.runs, "loop", "round1", "sft", "broken")
    studio.chat.close()
    assert alive(studio.runs / "loop") == [], "no process outlives the studio"


def started(run: Path) -> list[tuple[int, str]]:
    """(process, policy) of every process that was started."""
    path = run / "pids"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def alive(run: Path) -> list[str]:
    """The policies whose process runs."""

    def runs(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    return [name for pid, name in started(run) if runs(pid)]


def body(text: str = "hi", policy: str = "loop/sft", **more: Any) -> dict[str, Any]:
    return {"policy": policy, "messages": [{"role": "user", "content": text}], **more}


def say(client: TestClient, text: str = "hi", policy: str = "loop/sft", **more: Any) -> tuple[int, Any]:
    said = client.post("/api/v1/chat", json=body(text, policy, **more))
    return said.status_code, said.json() if said.status_code == 200 else said.json()["detail"]


@pytest.mark.usefixtures("run")
def test_who_may(as_role: As) -> None:
    for role in ("owner", "admin", "adjudicator", "annotator", "viewer", None):
        client, refused = as_role(role), 401 if role is None else 403
        expected = 200 if role in ("owner", "admin") else refused
        assert client.get("/api/v1/chat/policies").status_code == expected
        assert client.post("/api/v1/chat", json=body()).status_code == expected


def test_policies_are_found_by_looking(studio: Studio, owner: TestClient, tmp_path: Path, run: Path) -> None:
    outside = make_run(tmp_path / "outside", "run", "sft")
    (studio.runs / "link").symlink_to(outside)
    (run / "generations" / "linked").symlink_to(outside / "generations" / "sft")
    (run / "generations" / ".round2.new").mkdir()
    (run / "generations" / "file").write_text("")
    make_run(studio.runs, "deep/one", "sft")
    said = owner.get("/api/v1/chat/policies").json()
    assert said == [
        {"id": "deep/one/sft", "run": "deep/one", "name": "sft"},
        {"id": "loop/sft", "run": "loop", "name": "sft"},
        {"id": "loop/broken", "run": "loop", "name": "broken"},
        {"id": "loop/round1", "run": "loop", "name": "round1"},
    ]
    for policy in ("loop/linked", "link/sft", "loop/../../outside/run/generations/sft", "/etc", "loop/.round2.new", ""):
        status, problem = say(owner, policy=policy)
        assert (status, problem) == (404, f"there is no policy {policy!r} here")
    assert started(run) == []


def test_an_answer_is_text_and_harmless_html(owner: TestClient, run: Path) -> None:
    status, said = say(owner, "**bold** <img src=x onerror=alert(1)> \u202e", temperature=0)
    assert status == 200
    assert said["text"] == "sft: **bold** <img src=x onerror=alert(1)> ⟨U+202E⟩ 0.0"
    assert "<strong>bold</strong>" in said["html"]
    assert "<img" not in said["html"]
    assert (said["seconds"], said["forgotten"]) == (0.01, 0)
    assert len(started(run)) == 1
    say(owner)
    assert len(started(run)) == 1, "the process stays"


def test_one_policy_at_a_time(owner: TestClient, run: Path) -> None:
    assert say(owner)[1]["text"] == "sft: hi 0.7"
    assert say(owner, policy="loop/round1")[1]["text"] == "round1: hi 0.7"
    assert alive(run) == ["round1"]
    assert [name for _, name in started(run)] == ["sft", "round1"]


@pytest.mark.parametrize(
    ("text", "status", "problem"),
    [
        ("refuse", 422, "the last message fills the policy's whole context"),
        ("die", 502, "the policy's process ended (signal SIGKILL)"),
        ("leave", 502, "the policy's process ended (exit code 5): out of memory"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_the_next_one_works(
    owner: TestClient, run: Path, text: str, status: int, problem: str
) -> None:
    assert say(owner)[0] == 200
    assert say(owner, text) == (status, problem)
    assert say(owner)[0] == 200
    assert len(started(run)) == (1 if status == 422 else 2)


@pytest.mark.usefixtures("run")
def test_a_policy_that_cannot_be_loaded_says_why(owner: TestClient) -> None:
    assert say(owner, policy="loop/broken") == (502, "the policy cannot be loaded: no such tensor")


def test_a_command_that_is_not_there(studio: Studio, owner: TestClient, run: Path) -> None:
    studio.chat.command = ("/nowhere/python",)
    assert say(owner) == (502, "the policy's process could not be started: No such file or directory")
    assert started(run) == []


def test_no_answer_in_time_ends_the_process(studio: Studio, owner: TestClient, run: Path) -> None:
    studio.chat.reply_s = 0.5
    status, problem = say(owner, "sleep")
    assert (status, problem) == (502, "the policy gave no answer within 0.5 seconds and was stopped; ask for fewer tokens")
    assert alive(run) == []


def test_an_idle_process_ends(studio: Studio, owner: TestClient, run: Path) -> None:
    studio.chat.idle_s = 0.3
    say(owner)
    until = time.monotonic() + 20
    while alive(run) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(run) == []
    assert say(owner)[0] == 200
    assert len(started(run)) == 2


def test_requests_wait_for_each_other_up_to_a_limit(
    studio: Studio, as_role: As, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "MOST_WAITING", 3)
    clients = [as_role("admin", name=f"admin {i}") for i in range(5)]
    say(clients[0])
    with ThreadPoolExecutor(5) as pool:
        statuses = [status for status, _ in pool.map(lambda client: say(client, "slow"), clients)]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 3
    assert say(clients[0])[0] == 200, "afterwards there is room again"
    assert len(started(run)) == 1


def test_the_studio_stops_without_waiting_for_an_answer(studio: Studio, owner: TestClient, run: Path) -> None:
    found: list[tuple[int, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(say(owner, "sleep"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while not (alive(run) and studio.chat._waiting == 2) and time.monotonic() < until:
        time.sleep(0.02)
    began = time.monotonic()
    studio.chat.close()
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join(10)
    assert [status for status, _ in found] == [502, 502]
    assert "the studio is stopping" in [problem for _, problem in found]
    assert alive(run) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "name": "y"}]},
        {"messages": [{"role": "user", "content": "x" * 20_001}]},
        {"max_new_tokens": 0},
        {"max_new_tokens": "5"},
        {"temperature": -0.1},
        {"user": "somebody"},
    ],
)
def test_what_is_no_conversation_is_refused(owner: TestClient, run: Path, changed: dict[str, Any]) -> None:
    assert owner.post("/api/v1/chat", json=body() | changed).status_code == 422
    assert started(run) == []


@pytest.mark.slow
def test_a_real_policy(studio: Studio, owner: TestClient) -> None:
    from tests.tiny_models import tiny

    folder = make_run(studio.runs, "loop", "sft") / "generations" / "sft"
    folder.rmdir()
    tiny().save(folder)
    status, said = say(owner, "the film", max_new_tokens=6, temperature=0.5)
    assert status == 200, said
    assert said["text"]
    assert say(owner, "word " * 300)[0] == 422
    (folder / "config.json").unlink()
    assert say(owner, "the film", max_new_tokens=6)[0] == 200, "what is loaded is loaded"
    studio.chat.close()
    status, problem = say(owner)
    assert status == 502
    assert str(folder) in problem
    assert "\n" not in problem
