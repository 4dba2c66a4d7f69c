"""The studio from any program: ask questions, answer them, and read what was answered.

>>> import os; from backflip import Client
>>> client = Client(os.environ["STUDIO"], os.environ["TOKEN"])  # a token of the People page
>>> client.push("main", [{"prompt": "Say hi", "completions": ["hi", "no"]}])
1
>>> (question,) = client.claim("main")
>>> good = next(handle for handle, text in question.texts.items() if text == "hi")
>>> client.answer(question.view, [[good], [handle for handle in question.texts if handle != good]])
'stored'
>>> [comparison.chosen for comparison in client.comparisons("main")]
['hi']

Needs nothing but Python. What is sent again after a lost connection is stored once: questions by what they say, answers by
their key.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from backflip.errors import BusyError, DataError, FullDiskError, StorageError, UserError
from backflip.records import Comparison, Message, Query, Verdict

T = TypeVar("T")

MOST_AT_ONCE, MOST_BYTES = 200, 4 * 2**20  # of the questions in one request: writing it keeps those who label waiting
LONGEST_WAIT = 30.0
AGAIN = (429, 502, 503, 504)
_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d{1,5})?(?:/[\w./~-]*)?")
_TOKEN = re.compile(r"bf_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TYPES = {".webm": "video/webm", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question as whoever answers sees it, leased to them until `until` (seconds since 1970, by the server's clock).

    `texts` holds, by handle, what is to be judged, in the order in which it is shown: a text, the id of a clip (`form` "clip"),
    or a board's JSON. Who wrote what is not said.
    """

    view: str
    prompt: str
    texts: Mapping[str, str]
    form: str = "text"
    until: float = 0.0


class Rows(Iterator[T], Generic[T]):
    """Rows of a project in the order they were given, fetched part by part; it ends with what there is when it gets there.

    `cursor` is what to give as `since` the next time, perhaps in another process; note it down when the row at hand is dealt
    with. It moves with the last row of each part: whoever stops in the middle of one gets that part again from its beginning, and
    nothing is ever left out. At the end it stands behind everything, and reading on from there repeats nothing.
    """

    def __init__(self, fetch: Callable[[int], tuple[list[T], int, bool]], since: int) -> None:
        self.cursor = since
        self._fetch, self._ahead = fetch, since
        self._part: list[T] = []
        self._more = True

    def __next__(self) -> T:
        """The next row."""
        while not self._part:
            self.cursor = self._ahead
            if not self._more:
                raise StopIteration
            rows, self._ahead, self._more = self._fetch(self.cursor)
            self._part = rows[::-1]
        row = self._part.pop()
        if not self._part:
            self.cursor = self._ahead
        return row


class Client:
    """A studio at `url`, spoken to with a `token`, whose scopes say what may be done: push needs run, verdicts read, claim label.

    Where the studio is busy, asks to wait or cannot be reached, a request is tried again for up to `patience` seconds; `timeout`
    is how many seconds one try may take. Every method raises UserError for what was wrong in the request (a token that is not
    valid, an unknown project, a row that cannot be; the message is the studio's sentence) and StorageError where the studio
    could not do it: FullDiskError without room, BusyError after `patience`.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 30.0, patience: float = 60.0) -> None:
        address = _ADDRESS.fullmatch(url)
        if address is None:
            raise UserError("the studio's address looks like http://127.0.0.1:8042")
        if not _TOKEN.fullmatch(token):  # which is not repeated: it may be one after all, with a slip
            raise UserError("this is no token; one looks like bf_…_… and is issued on the studio's People page")
        self.url, self.timeout, self.patience = url.rstrip("/"), timeout, patience
        self._token = token
        proxies = [urllib.request.ProxyHandler({})] if address[1] in _LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    # ------------------------------------------------------------------------------------------------------ questions in

    def projects(self) -> list[dict[str, Any]]:
        """The projects that are open, as whoever labels sees them: id, title, question and so on. Needs the scope label."""
        found: list[dict[str, Any]] = self._call("GET", "/projects")
        return found

    def push(self, project: str, queries: Iterable[Query | Mapping[str, Any]]) -> int:
        """Ask questions; how many of them were new. They may come from a generator, and go out in parts of up to 200.

        Each is a `Query`, whose purpose gives way to the project's, or a row with `prompt` (text or messages), `completions` and,
        if wanted, `policies`, `form` and `columns`. Doing it again asks nothing twice. Raises DataError for what is no question.
        """
        new = 0
        for part in _parts(_question_row(i, query) for i, query in enumerate(queries, 1)):
            new += self._call("POST", f"{_project(project)}/queries", b'{"queries": [' + b", ".join(part) + b"]}")["new"]
        return new

    def upload(self, clip: bytes | str | Path, type: str | None = None) -> str:
        """Keep a clip (WebM) or picture (PNG, JPEG, WebP), a file or its bytes; its id, a completion of queries of form "clip".

        `type` is its content type, such as "video/webm"; that of a file is known by its name.
        """
        content = clip if isinstance(clip, bytes) else _content(Path(clip))
        type = type or (None if isinstance(clip, bytes) else _TYPES.get(Path(clip).suffix.lower()))
        if type is None:
            raise UserError('the type of a clip is not known; say it, such as type="video/webm"')
        id: str = self._call("POST", "/media", content, type=type)["id"]
        return id

    # ----------------------------------------------------------------------------------------------------- verdicts out

    def verdicts(self, project: str, since: int = 0) -> Rows[Verdict]:
        """What was answered after the cursor `since`, oldest first; see `Rows` for how to go on later. Skips are among it.

        An answer that was taken back is left out, but is not announced if it was read before.
        """
        return self._rows(project, "verdicts", since, lambda row: Verdict.from_json({k: v for k, v in row.items() if k != "id"}))

    def comparisons(self, project: str, since: int = 0) -> Rows[Comparison]:
        """What the answers after the cursor `since` say, ready to learn from; see `Rows` and `verdicts`."""
        return self._rows(project, "comparisons", since, Comparison.from_json)

    def progress(self, project: str) -> dict[str, int]:
        """How far a project is: questions, answered, answers, people, golds, repeats."""
        found: dict[str, int] = self._call("GET", f"{_project(project)}/progress")
        return found

    def wait_for(
        self, project: str, n: int, *, every: float = 5.0, timeout: float | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> int:  # fmt: skip
        """Wait until a project has `n` standing answers, skips included, asking every few seconds; how many there are.

        `tell(answers, n)` is called whenever there are more, or fewer, than before. Raises StorageError after `timeout` seconds.
        """
        end, last = None if timeout is None else time.monotonic() + timeout, -1
        while True:
            answers = self.progress(project)["answers"]
            if answers != last and tell is not None:
                tell(answers, n)
            if answers >= n:
                return answers
            if end is not None and time.monotonic() + every > end:
                raise StorageError(f"project {project} has {answers} of {n} answers after {timeout:g} s")
            last = answers
            time.sleep(every)

    def _rows(self, project: str, kind: str, since: int, record: Callable[[dict[str, Any]], T]) -> Rows[T]:
        path = f"{_project(project)}/{kind}"

        def fetch(cursor: int) -> tuple[list[T], int, bool]:
            page = self._call("GET", f"{path}?{urlencode({'since': cursor})}")
            return [record(row) for row in page["rows"]], page["until"], page["more"]

        return Rows(fetch, since)

    # --------------------------------------------------------------------------------------------------- answering bots

    def claim(self, project: str, n: int = 1) -> list[Question]:
        """Up to `n` (≤ 64) questions to answer, leased for three minutes; none where nothing is left. Those held already come
        first, so a program that was stopped goes on where it was."""
        items = self._call("POST", f"{_project(project)}/claims", {"n": n, "counts": False})["items"]
        return [
            Question(
                item["view"],
                item["prompt_raw"],
                {slot["handle"]: _shown(slot) for slot in item["slots"]},
                item["form"],
                item["until"],
            )
            for item in items
        ]

    def answer(
        self, view: str, groups: Sequence[Sequence[str]] = (), *, scores: Mapping[str, float] | None = None, strength: int = 0,
        code: str = "", note: str = "", ms: int = 0, key: str | None = None,
    ) -> str:  # fmt: skip
        """Answer a question: groups of handles from best to worst, equal ones together; none to skip; `scores` to rate instead.

        Returns "stored", "late" (after the lease, counted all the same), "surplus" (answered by you before, not counted) or
        "repeated" (this `key` was stored before). Without a `key` it gets one of its own. Raises DataError for what does not fit.
        """
        event = {
            "kind": "answer", "view": view, "key": key or str(uuid.uuid4()), "groups": [list(group) for group in groups],
            "scores": dict(scores or {}), "strength": strength, "code": code, "note": note, "ms": ms, "t": time.time(),
        }  # fmt: skip
        (outcome,) = self._call("POST", "/events", {"events": [event]})["outcomes"]
        if outcome["status"] == "refused":
            raise DataError(outcome["error"])
        return str(outcome["status"])

    def heartbeat(self, views: Iterable[str]) -> dict[str, float]:
        """Have leases last three minutes from now; until when, by view. One that is missing has run out."""
        found: dict[str, float] = self._call("POST", "/heartbeat", {"views": list(views)})["until"]
        return found

    def release(self, views: Iterable[str]) -> None:
        """Give questions back unanswered."""
        self._call("POST", "/release", {"views": list(views)})

    # ---------------------------------------------------------------------------------------------------------- inside

    def _call(self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, type: str = "application/json") -> Any:
        """What the API answers, tried again while that makes sense. Every request of a client may be sent twice."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        end, tries = time.monotonic() + self.patience, 0
        while True:
            status, said, asked = self._once(method, path, content, type)
            if 200 <= status < 300:
                return _parsed(said, self.url)
            wait = max(asked, min(LONGEST_WAIT, 0.25 * 2**tries) * random.uniform(0.5, 1.0))
            if status not in (0, *AGAIN) or time.monotonic() + wait > end:
                raise _error(status, said, self.url)
            time.sleep(wait)
            tries += 1

    def _once(self, method: str, path: str, content: bytes | None, type: str) -> tuple[int, str, float]:
        """Status (0: no answer), text, and for how many seconds the studio asks to wait."""
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data=content, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        if content is not None:
            request.add_header("Content-Type", type)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return answer.status, answer.read().decode(errors="replace"), 0.0
        except urllib.error.HTTPError as problem:
            with problem:
                after = problem.headers.get("Retry-After", "")
                return problem.code, problem.read().decode(errors="replace"), float(after) if after.isdigit() else 0.0
        except (OSError, HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise UserError(f"{self.url} does not show a certificate that this machine trusts") from problem
            return 0, str(reason), 0.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token is for the studio and for nobody that it may point to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Stay."""


def _parsed(said: str, url: str) -> Any:
    try:
        return json.loads(said)
    except ValueError as problem:
        raise StorageError(f"what answers at {url} is no studio") from problem


def _error(status: int, said: str, url: str) -> UserError | StorageError:
    """The error that an answer means, with the studio's sentence where it has one."""
    if status == 0:
        return StorageError(f"the studio at {url} cannot be reached ({said}); is it running?")
    try:
        detail = json.loads(said)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"status {status}: this is no studio, or something stands in front of it"
    sentence = f"the studio at {url} says: {detail}"
    if status == 507:
        return FullDiskError(sentence)
    if status in AGAIN:
        return BusyError(sentence)
    if status >= 500:
        return StorageError(sentence)
    return DataError(sentence) if status in (409, 413, 422) else UserError(sentence)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from problem


def _project(id: str) -> str:
    return f"/projects/{quote(id, safe='')}"


def _question_row(number: int, given: Query | Mapping[str, Any]) -> bytes:
    """A question as JSON. Raises DataError for one that could not be sent."""
    row: Mapping[str, Any] = given if isinstance(given, Mapping) else _row_of(given)
    unknown = sorted(set(row) - {"prompt", "completions", "policies", "form", "columns"})
    try:
        if unknown or not {"prompt", "completions"} <= set(row):
            raise ValueError(f"unknown {unknown[0]!r}" if unknown else "prompt and completions are needed")
        return json.dumps(dict(row), allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as problem:
        raise DataError(f"question {number} cannot be sent: {problem}") from problem


def _row_of(query: Query) -> dict[str, Any]:
    said = query.prompt.text
    return {
        "prompt": said if isinstance(said, str) else list(said), "completions": list(query.completions),
        "policies": list(query.policies), "form": query.form, "columns": dict(query.prompt.columns),
    }  # fmt: skip


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return value.to_json()
    raise TypeError(f"{type(value).__name__} has no place in a question")


def _parts(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Rows in parts that fit into one request each."""
    part: list[bytes] = []
    size = 0
    for row in rows:
        if part and (len(part) == MOST_AT_ONCE or size + len(row) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield part


def _shown(slot: Mapping[str, Any]) -> str:
    """What stands in one place: a text, a clip's id or a board's JSON."""
    if slot["board"] is not None:
        return json.dumps(slot["board"])
    return str(slot["media"] or slot["raw"])
