"""The client against a studio that is served, and against servers that behave badly."""

from __future__ import annotations

import doctest
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

import backflip as bf
from backflip import client as module
from backflip.client import Client
from backflip.errors import BusyError, DataError, FullDiskError, StorageError, UserError
from backflip.records import Message, Prompt, Query
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Projects
from tests.web.conftest import Served, pairs

TOKEN = "bf_0123456789abcdef_" + "x" * 43
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


def token(served: Served, *scopes: str, name: str = "owner") -> str:
    with Store(served.path) as store:
        accounts = Accounts(store)
        if accounts.person(name) is None:
            accounts.add(name, "annotator", by="test")
        return accounts.issue("token", name, by="test", seconds=600, body={"scopes": list(scopes)})


@pytest.fixture
def client(served: Served) -> Client:
    return bf.Client(served.address, token(served, "label", "read", "run", "admin"), patience=5)


def test_the_example_in_the_docstring_is_true(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO", served.address)
    monkeypatch.setenv("TOKEN", token(served, "label", "read", "run"))
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 3


def test_questions_go_in_once_whatever_form_they_have(client: Client, served: Served) -> None:
    chat = Query(Prompt((Message("user", "Hi"),), {"topic": "x"}), ("a", "b", "c"), policies=("p", "q", "r"))
    rows = [
        {"prompt": [{"role": "user", "content": "Ho"}], "completions": ["a", "b"]},
        {"prompt": "x", "completions": ["1", "2"]},
    ]
    assert client.push("main", iter([chat, *rows])) == 3
    assert client.push("main", [chat, *rows]) == 0
    assert client.push("main", []) == 0
    with Store(served.path, read_only=True) as store:
        assert store.queries()[0] == chat


def test_many_questions_go_in_parts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    once = Client._once
    monkeypatch.setattr(Client, "_once", lambda self, *a: sizes.append(len(json.loads(a[2])["queries"])) or once(self, *a))
    assert client.push("main", (query for query in pairs(500))) == 500
    assert sizes == [200, 200, 100]
    sizes.clear()
    large = ({"prompt": f"{i}", "completions": ["x" * 150_000, "y" * 150_000]} for i in range(20))
    assert client.push("main", large) == 20
    assert sizes == [13, 7]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x"},
        {"prompt": "x", "completions": ["a", "b"], "prompts": 1},
        {"prompt": "x", "completions": [float("nan")]},
        {"prompt": "x", "completions": {1, 2}},
        {"prompt": "x", "completions": ["only one"]},
        {"prompt": "x", "completions": ["a", "b"], "form": "clip"},
    ],
)
def test_what_is_no_question_is_refused_with_its_number(client: Client, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"question 1|queries.0.completions"):
        client.push("main", [row])


def test_a_bot_claims_answers_and_reads_back(client: Client, served: Served) -> None:
    client.push("main", pairs(5))
    bot = bf.Client(served.address, token(served, "label", name="bot"), patience=5)
    assert [project["id"] for project in bot.projects()] == ["main"]
    first = bot.claim("main", 3)
    assert [question.view for question in bot.claim("main", 3)] == [question.view for question in first], "what it holds first"
    assert set(bot.heartbeat(question.view for question in first)) == {question.view for question in first}
    for question in first:
        good = next(handle for handle, text in question.texts.items() if "A" in text.split()[1])
        bad = next(handle for handle in question.texts if handle != good)
        assert bot.answer(question.view, [[good], [bad]], strength=3, key=f"key-{question.view[:20]}") == "stored"
        assert bot.answer(question.view, [[good], [bad]], strength=3, key=f"key-{question.view[:20]}") == "repeated"
        assert bot.answer(question.view, [[good], [bad]]) == "surplus"
    (fourth,) = bot.claim("main")
    bot.release([fourth.view])
    assert bot.heartbeat([fourth.view]) == {}
    (again,) = bot.claim("main")
    assert bot.answer(again.view, code="broken") == "stored"
    with pytest.raises(DataError, match="no handle"):
        bot.answer(again.view, [["strange"], ["other"]])
    read = client.comparisons("main")
    found = list(read)
    assert [comparison.chosen for comparison in found] == ["Answer A0", "Answer A1", "Answer A2"]
    assert found[0].left_policy == "zebra-one"
    verdicts = list(client.verdicts("main"))
    assert [verdict.choice for verdict in verdicts] == ["left", "left", "left", "skip"]
    assert (verdicts[0].strength, verdicts[3].code) == (3, "broken")
    with pytest.raises(UserError, match="permission to read"):
        list(bot.verdicts("main"))


def test_a_reader_that_stops_anywhere_misses_nothing(client: Client, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client.push("main", pairs(9))
    for question in client.claim("main", 9):
        client.answer(question.view, [list(question.texts)])
    once = Client._once
    monkeypatch.setattr(
        Client, "_once", lambda self, method, path, *a: once(self, method, path + ("&limit=4" if "since" in path else ""), *a)
    )
    whole = list(client.verdicts("main"))
    assert len(whole) == 9
    for stop in range(10):
        rows = client.verdicts("main")
        taken = list(itertools.islice(rows, stop))
        rest = list(client.verdicts("main", since=rows.cursor))
        assert taken == whole[:stop]
        assert rest == whole[stop - stop % 4 if stop < 9 else 9 :], "only the part that was begun comes again"
    rows = client.verdicts("main")
    assert list(rows) == whole
    assert list(rows) == []
    assert list(client.verdicts("main", since=rows.cursor)) == []
    client.push("main", pairs(10))
    (question,) = client.claim("main")
    client.answer(question.view, [list(question.texts)])
    assert len(list(client.verdicts("main", since=rows.cursor))) == 1


def test_waiting_for_answers_tells_how_many_there_are(client: Client) -> None:
    client.push("main", pairs(3))
    questions = client.claim("main", 3)
    told: list[tuple[int, int]] = []

    def work() -> None:
        for question in questions:
            time.sleep(0.1)
            client.answer(question.view, [list(question.texts)])

    worker = threading.Thread(target=work)
    worker.start()
    assert client.wait_for("main", 3, every=0.02, tell=lambda *said: told.append(said)) == 3
    worker.join()
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with pytest.raises(StorageError, match="3 of 4 answers"):
        client.wait_for("main", 4, every=0.02, timeout=0.1)


def test_a_clip_goes_in_as_bytes_or_as_a_file(client: Client, tmp_path: Any) -> None:
    path = tmp_path / "frame.PNG"
    path.write_bytes(PNG)
    ids = [client.upload(path), client.upload(PNG + b"2", "image/png")]
    assert client.push("main", [{"prompt": "", "completions": ids, "form": "clip"}]) == 1
    (question,) = client.claim("main")
    assert (question.form, set(question.texts.values())) == ("clip", set(ids))
    board = json.dumps({"rows": ["x"]})
    client.push("main", [{"prompt": "b", "completions": [board, board.replace("x", "o")], "form": "board"}])
    assert {json.loads(text)["rows"][0] for text in client.claim("main", 2)[1].texts.values()} == {"x", "o"}
    for wrong in (
        lambda: client.upload(PNG),
        lambda: client.upload(b"<svg>", "image/svg+xml"),
        lambda: client.upload(tmp_path / "no.png"),
    ):
        with pytest.raises(UserError):
            wrong()


def test_mistakes_are_one_sentence_and_never_show_the_token(client: Client, served: Served, caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    carried = token(served, "read")
    reader = bf.Client(served.address + "/", carried, patience=1)
    said = []
    for wrong in (
        lambda: reader.progress("absent"), lambda: reader.push("main", pairs(1)), lambda: reader.claim("main"),
        lambda: bf.Client(served.address, TOKEN).projects(), lambda: reader.answer("../x"),
        lambda: reader.progress("../../manage/projects"),
        lambda: bf.Client("http://127.0.0.1:1", carried, patience=0).projects(),
    ):  # fmt: skip
        with pytest.raises((UserError, StorageError)) as caught:
            wrong()
        said.append(f"{caught.value!r} {caught.value.__cause__!r}")
    assert all("\n" not in each for each in said)
    assert [isinstance(each, str) and "says" in each for each in said] == [True] * 6 + [False]
    output = capfd.readouterr()
    everything = " ".join([*said, repr(reader), str(reader), caplog.text, output.out, output.err])
    assert carried[20:] not in everything
    assert TOKEN[20:] not in everything


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8042", "ftp://x", "http://", "http://user:pw@host", "http://h/?a=1", "http://h/#x", "http://a b"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UserError, match="address looks like"):
        bf.Client(url, TOKEN)


@pytest.mark.parametrize("carried", ["", "secret", TOKEN + "\r\nX: 1", TOKEN[:-1]])
def test_a_token_that_is_none_is_not_repeated(carried: str) -> None:
    with pytest.raises(UserError, match="is no token") as caught:
        bf.Client("http://127.0.0.1:8042", carried)
    assert not carried or carried not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- bad servers


class Script(BaseHTTPRequestHandler):
    """Answers as it is told, one after the other; None drops the connection."""

    answers: Iterator[tuple[int, dict[str, str], bytes] | None]
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.headers["Authorization"]))
        answer = next(self.answers)
        if answer is None:
            self.connection.close()
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[Client, list[Any]]]]:
    """A client of a server that gives these answers, and what it was asked."""
    servers = []

    def make(*answers: Any, patience: float = 20.0) -> tuple[Client, list[Any]]:
        handler = type("Handler", (Script,), {"answers": iter(answers), "seen": []})
        server = HTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return Client(f"http://127.0.0.1:{server.server_port}", TOKEN, patience=patience, timeout=2), handler.seen  # type: ignore[attr-defined]

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def said(text: str) -> bytes:
    return json.dumps({"detail": text}).encode()


def test_it_tries_again_where_that_makes_sense(scripted: Any) -> None:
    client, seen = scripted(
        (503, {}, said("busy")), None, (429, {"Retry-After": "1"}, said("slow")), (502, {}, b"<html>"), (200, {}, b"[]")
    )
    start = time.monotonic()
    assert client.projects() == []
    assert len(seen) == 5
    assert time.monotonic() - start > 1.0, "as long as it was asked to wait"


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, UserError, 1), (401, UserError, 1), (403, UserError, 1), (404, UserError, 1), (409, DataError, 1),
        (422, DataError, 1), (500, StorageError, 1), (507, FullDiskError, 1), (429, BusyError, 2), (503, BusyError, 2),
    ],
)  # fmt: skip
def test_every_status_is_an_error_of_ours(scripted: Any, status: int, kind: type[Exception], tries: int) -> None:
    client, seen = scripted(*[(status, {}, said("the reason"))] * 9, patience=0.3)
    with pytest.raises(kind, match="the reason") as caught:
        client.projects()
    assert caught.type is kind
    assert len(seen) >= tries if tries > 1 else len(seen) == 1


def test_it_does_not_wait_longer_than_its_patience(scripted: Any) -> None:
    client, seen = scripted((429, {"Retry-After": "3600"}, said("slow")), patience=1)
    with pytest.raises(BusyError, match="slow"):
        client.projects()
    assert len(seen) == 1


def test_the_token_follows_no_redirect(scripted: Any) -> None:
    _, elsewhere = other = scripted((200, {}, b"[]"))
    client, _ = scripted((302, {"Location": f"{other[0].url}/api/v1/projects"}, b""), patience=0)
    with pytest.raises(UserError, match="no studio"):
        client.projects()
    assert elsewhere == []


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b"[" * 5])
def test_whatever_else_answers_there_is_no_studio(scripted: Any, body: bytes) -> None:
    with pytest.raises(StorageError, match="no studio"):
        scripted((200, {}, body))[0].projects()
    with pytest.raises(UserError, match="no studio"):
        scripted((404, {}, body))[0].projects()


def test_a_body_that_breaks_off_is_asked_for_again(scripted: Any) -> None:
    client, seen = scripted((200, {"Content-Length": "99"}, b"["), (200, {}, b"[]"))
    client.timeout = 0.5
    assert client.projects() == []
    assert len(seen) == 2


def test_golds_stay_apart_for_a_client_too(client: Client, served: Served) -> None:
    with Store(served.path) as store:
        Projects(store).set_golds([(Query(Prompt("g"), ("a", "b"), purpose="train-gold"), "left")], by="test")
    assert client.progress("main") == {"questions": 0, "answered": 0, "answers": 0, "people": 0, "golds": 1, "repeats": 0}
