"""What the Runs page talks to: what is there and nothing else, new rows once, wishes that runs obey, questions asked once."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi.testclient import TestClient

from backflip.records import Query
from backflip.runs import Run, alarms, control
from backflip.runs.catalogue import samples as samples_of
from backflip.store import Store
from backflip.store.accounts import Accounts
from backflip.store.projects import Project
from backflip.web import overview as overviews
from backflip.web import pairs, stream
from backflip.web.overview import Overview
from backflip.web.pages import strings
from backflip.web.server import Studio
from tests.web.conftest import Served
from tests.web.run_folders import PROMPTS, living, row, texts, wait_for, write_run

As = Callable[..., TestClient]
T = TypeVar("T")


def get(client: TestClient, path: str, status: int = 200, **params: Any) -> Any:
    said = client.get(f"/api/v1{path}", params=params)
    assert said.status_code == status, said.text
    return said.json()


def post(client: TestClient, path: str, body: Any, status: int = 200) -> Any:
    said = client.post(f"/api/v1{path}", json=body)
    assert said.status_code == status, said.text
    return said.json()


def soon(studio: Studio) -> None:
    """Have the next look at the runs be a fresh one."""
    studio.overview._until = 0.0


# ------------------------------------------------------------------------------------------------------------- looking


def test_cards_say_what_runs_are(studio: Studio, owner: TestClient) -> None:
    assert get(owner, "/runs")["runs"] == []
    write_run(studio.runs / "loop", steps=2, kind="rounds", finished=False)
    write_run(studio.runs / "loop" / "round1" / "ppo", steps=12, settings={"train": {"steps": 20}}, finished=False)
    write_run(studio.runs / "done")
    (studio.runs / "elsewhere").symlink_to(studio.runs / "done")
    (studio.runs / "no run").mkdir()
    soon(studio)
    said = get(owner, "/runs")
    assert abs(said["now"] - time.time()) < 60
    done, loop, stage = said["runs"]
    assert [card["id"] for card in said["runs"]] == ["done", "loop", "loop/round1/ppo"]
    assert (done["state"], done["kind"], done["step"], done["steps"], done["parent"]) == ("finished", "ppo", 40, 40, None)
    assert done["reward"] == pytest.approx(row(40)["objective/scores"])
    assert done["steps_per_second"] == pytest.approx(0.5)
    assert done["silent_after"] is None
    assert "kl/seq_nats" in done["metrics"]
    assert (stage["parent"], stage["steps"], stage["state"]) == ("loop", 20, "stopped")
    assert loop["last_write"] >= stage["last_write"]


def test_one_run_with_its_settings_alarms_and_metrics(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "gamed", steps=60, settings={"steps": 60, "learning_rate": 1e-5, "deep": {"kl_target": 6.0}})
    said = get(owner, "/runs/gamed/card")
    assert said["card"]["id"] == "gamed"
    assert said["settings"] == {"steps": 60, "learning_rate": 1e-5, "deep": {"kl_target": 6.0}}
    assert {*row(1), "timings/rollout", "timings/update", "timings/total", "wall"} == set(said["metrics"])
    gamed = next(alarm for alarm in said["alarms"] if alarm["kind"] == "overoptimised")
    assert gamed["level"] == "error"
    assert gamed["evidence"]["objective/gold"]["high"] < 0 < gamed["evidence"]["objective/scores"]["low"]
    assert "lost" in gamed["sentence"]
    assert [alarm["level"] for alarm in said["alarms"]] == sorted(
        (a["level"] for a in said["alarms"]), key=["error", "warn"].index
    )


def test_what_a_monitor_found_and_that_nobody_may_have_looked(studio: Studio, owner: TestClient) -> None:
    folder = write_run(studio.runs / "ppo", steps=2)
    assert get(owner, "/runs/ppo/guard") == {
        "watched": False, "decision": "go", "best_step": 0, "looks": 0, "findings": [], "lines": {}, "features": [],
        "suspects": [],
    }  # fmt: skip
    finding = {
        "kind": "length", "step": 4, "act": "warn", "sentence": "longer\u202e", "evidence": {"length": {"now": 9.5}},
        "back_to": None,
    }  # fmt: skip
    suspects = [
        {"step": 4, "prompt": "p", "completion": f"c{i}", "before": "b", "suspicion": i, "proxy": 2.0, "quality": None}
        for i in range(9)
    ]
    looks = [{"step": 0.0, "guard/kl_seq_nats": 0.0}, {"step": 4.0, "guard/kl_seq_nats": math.nan, "guard/evidence": 1.5}]
    features = [{"feature": "words", "before": 1.0, "now": 2.0, "proxy": 0.5, "judges": None}]
    report = {
        "decision": "pause",
        "best_step": 4,
        "looks": looks,
        "findings": [finding],
        "features": features,
        "suspects": suspects,
    }
    (folder / "guard.json").write_text(json.dumps(report))
    said = get(owner, "/runs/ppo/guard")
    assert (said["watched"], said["decision"], said["best_step"], said["looks"]) == (True, "pause", 4, 2)
    assert "\u202e" not in said["findings"][0]["sentence"]
    assert said["findings"][0]["evidence"] == {"length": "now 9.5"}
    assert said["lines"]["guard/kl_seq_nats"] == {"x": [0.0, 4.0], "y": [0.0, None], "wrong": []}
    assert said["lines"]["guard/evidence"]["y"] == [None, 1.5]
    assert said["features"] == features
    assert [row["text"] for row in said["suspects"]] == ["c8", "c7", "c6", "c5", "c4", "c3"]
    (folder / "guard.json").write_text(
        json.dumps({**report, "findings": [finding, {**finding, "kind": "falling", "act": "stop"}]})
    )
    assert [one["kind"] for one in get(owner, "/runs/ppo/guard")["findings"]] == ["length", "falling"], "as they begin"
    (folder / "guard.json").write_text(json.dumps({"steps": [0], "findings": []}))
    assert get(owner, "/runs/ppo/guard")["looks"] == 0, "a guard that is no monitor"
    get(owner, "/runs/absent/guard", 404)


def test_what_is_not_finite_is_said_in_json_that_browsers_read(studio: Studio, owner: TestClient) -> None:
    folder = write_run(studio.runs / "nan", steps=3, finished=False)
    (folder / "run.json").write_text('{"kind": "ppo", "format": 1, "settings": {"a": NaN, "b": [Infinity, 1]}}')
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "objective/scores": NaN, "huge": 1e400}\n{"step": 5, "objective/scores": 2.5}\n')
    told = owner.get("/api/v1/runs/nan/card").text
    assert "NaN" not in told
    said = json.loads(told, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said["settings"] == {"a": "nan", "b": ["inf", 1]}
    assert [alarm["kind"] for alarm in said["alarms"]] == ["not-finite"]
    assert set(said["alarms"][0]["evidence"]) == {"objective/scores", "huge"}
    line = get(owner, "/runs/nan/series", names="objective/scores")["lines"]["objective/scores"]
    assert (line["x"], line["wrong"]) == ([1, 2, 3, 4, 5], [4])
    assert line["y"][3:] == [None, 2.5]


def test_series_over_steps_seconds_and_labels(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "a/b", steps=50, make=lambda step: row(step) | {"labels": 100.0 + step // 10})
    said = get(owner, "/runs/a/b/series", names=["kl/seq_nats", "timings/total", "wall", "nothing"])
    assert (said["run"], said["x"]) == ("a/b", "step")
    lines = said["lines"]
    assert lines["kl/seq_nats"]["x"] == list(range(1, 51))
    assert lines["kl/seq_nats"]["y"] == pytest.approx([row(step)["kl/seq_nats"] for step in range(1, 51)], rel=1e-5)
    assert set(lines["timings/total"]["y"]) == {2.0}
    assert lines["wall"]["y"][-1] == 100.0
    assert lines["nothing"] == {"x": [], "y": [], "wrong": []}
    over = get(owner, "/runs/a/b/series", names="kl/seq_nats", x="wall")["lines"]["kl/seq_nats"]
    assert over["x"] == [2.0 * step for step in range(1, 51)]
    assert over["y"] == lines["kl/seq_nats"]["y"]
    over = get(owner, "/runs/a/b/series", names="kl/seq_nats", x="labels")["lines"]["kl/seq_nats"]
    assert sorted(set(over["x"])) == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    everything = get(owner, "/runs/a/b/series")["lines"]
    assert set(everything) == set(get(owner, "/runs/a/b/card")["metrics"])
    write_run(studio.runs / "plain", steps=3, seconds=False)
    assert get(owner, "/runs/plain/series", names="grad_norm", x="wall")["lines"]["grad_norm"]["x"] == []


def test_long_series_are_thinned_and_lose_no_spike(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "long", steps=5000, make=lambda step: {"x": 9.0 if step == 3210 else math.sin(step)}, sample_every=0)
    for points in (2000, 100):
        line = get(owner, "/runs/long/series", names="x", points=points)["lines"]["x"]
        assert len(line["x"]) == len(line["y"]) <= points
        assert (line["x"][0], line["x"][-1], max(line["y"])) == (1, 5000, 9.0)
    for wrong in ({"points": 2001}, {"points": 1}, {"x": "time"}, {"names": "n" * 201}):
        get(owner, "/runs/long/series", 422, **wrong)


def test_logs_that_grow_or_go_back_are_seen_at_once(studio: Studio, owner: TestClient) -> None:
    folder = write_run(studio.runs / "r", steps=10, finished=False)

    def steps() -> list[int]:
        found: list[int] = get(owner, "/runs/r/series", names="grad_norm")["lines"]["grad_norm"]["x"]
        return found

    assert steps() == list(range(1, 11))
    with Run.open(folder, kind="ppo", settings={"steps": 10}, quiet=True) as run:
        run.log(11, {"grad_norm": 7.0, "late": 1.0})
        assert steps() == list(range(1, 12))
        assert "late" in get(owner, "/runs/r/card")["metrics"]
        run.rewind(4)
        assert steps() == [1, 2, 3, 4]
        assert "late" not in get(owner, "/runs/r/card")["metrics"]
        run.log(5, {"grad_norm": 1.0})
        assert steps() == [1, 2, 3, 4, 5]
    (folder / "metrics.jsonl").unlink()
    assert steps() == []


def test_samples_stand_beside_what_was_written_first(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "r", steps=30)
    last = get(owner, "/runs/r/samples")
    assert (last["step"], last["steps"], last["total"]) == (30, [1, 10, 20, 30], 4)
    first = last["rows"][0]
    assert (first["now"]["step"], first["before"]["step"], first["prompt"]) == (30, 1, PROMPTS[0])
    assert first["now"]["scores"] == {"proxy": 3.0, "gold": 0.0}
    assert [sample["askable"] for sample in last["rows"]] == [True, True, True, False], "the last says the same again"
    assert last["rows"][1]["now"]["finished"] is False
    assert get(owner, "/runs/r/samples", step=25)["step"] == 20
    assert [sample["before"] for sample in get(owner, "/runs/r/samples", step=1)["rows"]] == [None] * 4
    get(owner, "/runs/r/samples", 422, step=-1)
    with Run.open(studio.runs / "wild", kind="ppo", settings={}, quiet=True) as run:
        run.log(1, {"a": 1.0})
        run.samples(1, [{"prompt": [{"role": "user", "content": "x"}], "completion": "a\u202eb"}])
    [sample] = get(owner, "/runs/wild/samples")["rows"]
    assert "\u202e" not in sample["now"]["text"]
    assert not sample["askable"]


def test_a_run_that_falls_silent(studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(studio.runs / "r", steps=10, finished=False)
    with Run.open(folder, kind="ppo", settings={"steps": 10}, quiet=True):
        said = get(owner, "/runs/r/card")
        assert (said["card"]["state"], said["card"]["silent_after"]) == ("running", 60.0)
        assert "silent" not in {alarm["kind"] for alarm in said["alarms"]}
        monkeypatch.setattr(studio.overview, "clock", lambda: time.time() + 100)
        assert "silent" in {alarm["kind"] for alarm in get(owner, "/runs/r/card")["alarms"]}


# --------------------------------------------------------------------------------------------------- which runs, for whom


def test_the_folder_itself_may_be_a_run_and_verbs_may_be_names(tmp_path: Path) -> None:
    write_run(tmp_path / "shown", steps=2, kind="rounds")
    write_run(tmp_path / "shown" / "card", steps=3)
    write_run(tmp_path / "shown" / "card" / "series", steps=4)
    with Store(tmp_path / "f.db") as store:
        studio = Studio(store, tmp_path / "shown")
        link = studio.begin()
        from backflip.web.server import application

        with TestClient(application(studio), base_url="http://127.0.0.1") as client:
            client.post("/api/v1/session", json={"link": link})
            root = get(client, "/runs/.root/card")["card"]
            assert (root["id"], root["name"], root["step"]) == (".", "shown", 2)
            assert get(client, "/runs/card/card")["card"]["step"] == 3
            assert get(client, "/runs/card/series/card")["card"]["step"] == 4
            assert get(client, "/runs/card/series/series")["run"] == "card/series"
            assert get(client, "/runs/card/series")["run"] == "card"


ATTACKS = (
    "../secret", "..%2fsecret", "%2e%2e/secret", "ok/../../secret", "/etc", "//etc", "%2fetc%2fpasswd", "ok%00", "link",
    "ok/link", "~", ".hidden", "ok\\..\\..\\secret", "ok/", "OK", "ok%2f%2e", "%252e%252e/secret", "checkpoints", "ok\n",
)  # fmt: skip


@pytest.mark.parametrize("id", ATTACKS)
@pytest.mark.parametrize("what", ["card", "series", "samples", "control", "label", "stream"])
def test_an_id_is_compared_and_never_becomes_a_path(studio: Studio, owner: TestClient, id: str, what: str) -> None:
    for name in ("ok", "ok/inner", ".hidden", "checkpoints"):
        write_run(studio.runs / name, steps=1)
    secret = write_run(studio.runs.parent / "secret", steps=1, finished=False)
    (studio.runs / "link").symlink_to(secret)
    (studio.runs / "ok" / "link").symlink_to(secret)
    address = f"/api/v1/runs/{id.replace(chr(10), '%0a')}/{what}"
    bodies = {"control": {"wish": "pause"}, "label": {"project": "main", "n": 1}}
    with Run.open(secret, kind="ppo", settings={"steps": 1}, quiet=True):
        said = owner.post(address, json=bodies[what]) if what in bodies else owner.get(address)
        assert said.status_code in (404, 405), said.text
        assert not (secret / "control.json").exists()
    assert studio.store.queries() == []


ROUTES = (
    ("GET", "/runs", None, "read"), ("GET", "/runs/r/card", None, "read"), ("GET", "/runs/r/series", None, "read"),
    ("GET", "/runs/r/samples", None, "read"), ("GET", "/runs/r/guard", None, "read"),
    ("GET", "/runs/stream", None, "read"), ("GET", "/runs/r/stream", None, "read"),
    ("POST", "/runs/r/control", {"wish": "resume"}, "run"), ("POST", "/runs/r/label", {"project": "main", "n": 1}, "run"),
)  # fmt: skip


@pytest.mark.parametrize("role", [None, "annotator", "viewer", "adjudicator", "admin", "owner"])
def test_who_may_look_and_who_may_act(studio: Studio, as_role: As, role: str | None) -> None:
    write_run(studio.runs / "r", steps=12)
    studio.closing.set()  # so that streams end
    may = {None: set(), "annotator": set(), "viewer": {"read"}, "adjudicator": {"read"}}.get(role, {"read", "run"})
    client = as_role(role)
    for method, path, body, permission in ROUTES:
        said = client.request(method, f"/api/v1{path}", json=body)
        assert said.status_code == (200 if permission in may else 401 if role is None else 403), (method, path)


def test_a_token_does_what_its_scopes_say(studio: Studio, as_role: As) -> None:
    write_run(studio.runs / "r", steps=12)
    studio.closing.set()
    for scopes in (["label"], ["read"], ["run"], ["read", "run"]):
        token = studio.accounts.issue("token", "owner", by="owner", seconds=60, body={"scopes": scopes})
        client = as_role(None)
        client.headers["authorization"] = f"Bearer {token}"
        for method, path, body, permission in ROUTES:
            said = client.request(method, f"/api/v1{path}", json=body)
            assert said.status_code == (200 if permission in scopes else 403), (scopes, path)


# -------------------------------------------------------------------------------------------------------------- following


def parse(text: str) -> Iterator[tuple[str, str, Any]]:
    """(event, id, data) of each whole event in a stream's text."""
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(\w+): (.*)$", block, re.MULTILINE))
        if "data" in fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])


def in_its_own_loop(play: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine returns, run in a thread of its own: a browser that other tests left open has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(play())).result()


class Listener:
    """Whoever listens to some runs, for as long as the block lasts; what came so far is in `events`."""

    def __init__(self, overview: Overview, ids: list[str], after: str = "", cards: bool = False) -> None:
        self.overview, self.cards = overview, cards
        self.runs = stream.follow([(id, overview.root / id) for id in ids], after)
        self.closing, self.may, self.events = threading.Event(), True, list[tuple[str, str, Any]]()
        self.text = ""

    async def __aenter__(self) -> Listener:
        self.task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.closing.set()
        await asyncio.wait_for(self.task, 10)

    async def _listen(self) -> None:
        say = (lambda cards: [{"id": card.id, "step": card.step} for card in cards]) if self.cards else None
        told: AsyncIterator[str] = stream.events(
            self.overview, self.runs, say=say, allowed=lambda: self.may, closing=self.closing
        )
        async for text in told:
            self.text += text
            self.events += parse(text)

    def of(self, kind: str) -> list[Any]:
        return [data for event, _, data in self.events if event == kind]

    @property
    def steps(self) -> list[int]:
        return [row["step"] for data in self.of("rows") if data["log"] == "metrics" for row in data["rows"]]

    @property
    def last_id(self) -> str:
        return next(id for event, id, _ in reversed(self.events) if event == "rows")

    async def until(self, what: Callable[[], Any]) -> None:
        end = time.monotonic() + 15
        while not what():
            assert time.monotonic() < end, f"it did not come about in time: {self.events[-3:]}"
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TICK_S", 0.01)


def test_new_rows_come_once_and_a_cursor_goes_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=3, finished=False)
    overview = Overview(tmp_path)

    async def play() -> None:
        with Run.open(folder, kind="ppo", settings={"steps": 3}, quiet=True) as run:
            async with Listener(overview, ["r"]) as all_of_it:
                await all_of_it.until(lambda: len(all_of_it.of("rows")) == 2)
                assert all_of_it.steps == [1, 2, 3]
                seconds = [data for data in all_of_it.of("rows") if data["log"] == "timings"]
                assert seconds[0]["rows"][0] == {
                    "step": 1, "values": {"timings/rollout": 0.5, "timings/update": 1.5, "timings/total": 2.0},
                }  # fmt: skip
                run.log(4, {"a": 1.0})
                await all_of_it.until(lambda: all_of_it.steps == [1, 2, 3, 4])
                cursor = all_of_it.last_id
            run.log(5, {"a": 1.0})
            async with Listener(overview, ["r"], cursor) as rest:
                await rest.until(lambda: rest.steps)
                run.log(6, {"a": 1.0})
                await rest.until(lambda: rest.steps == [5, 6])
                assert not any(data["reset"] for data in rest.of("rows"))

    in_its_own_loop(play)


def test_lines_and_a_stream_after_them_leave_nothing_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=30, finished=False)
    overview = Overview(tmp_path)
    cursor = overview.lines(folder, ["a"], say=str)[1]

    async def play() -> list[int]:
        with Run.open(folder, kind="ppo", settings={"steps": 30}, quiet=True) as run:
            async with Listener(overview, ["r"], cursor) as rest:
                for step in range(31, 61):
                    run.log(step, {"a": 1.0})
                    await asyncio.sleep(0.002)
                await rest.until(lambda: 60 in rest.steps)
                return rest.steps

    assert in_its_own_loop(play) == list(range(31, 61))


def test_a_rewind_is_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=6, finished=False)

    async def play() -> None:
        async with Listener(Overview(tmp_path), ["r"]) as listener:
            await listener.until(lambda: len(listener.of("rows")) == 2)
            with Run.open(folder, kind="ppo", settings={"steps": 6}, quiet=True) as run:
                run.rewind(2)
                run.log(3, {"a": 0.5})
                await listener.until(lambda: any(d["reset"] and d["log"] == "metrics" for d in listener.of("rows")))
                await listener.until(lambda: listener.steps[-1] == 3)
                at = next(i for i, d in enumerate(listener.of("rows")) if d["reset"] and d["log"] == "metrics")
                assert [r["step"] for d in listener.of("rows")[at:] if d["log"] == "metrics" for r in d["rows"]] == [1, 2, 3]
                assert any(d["reset"] and d["log"] == "timings" for d in listener.of("rows"))

    in_its_own_loop(play)


@pytest.mark.parametrize("after", ["nonsense", "5-0000000000000000~", "~7-zz", "|||", "9" * 500])
def test_a_cursor_nobody_gave_starts_over(tmp_path: Path, after: str) -> None:
    write_run(tmp_path / "r", steps=3)

    async def play() -> None:
        async with Listener(Overview(tmp_path), ["r"], after) as listener:
            await listener.until(lambda: len(listener.steps) == 3)
            assert listener.steps == [1, 2, 3]

    in_its_own_loop(play)


def test_several_runs_by_one_stream_with_cards_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "FRESH_S", 0.0)
    first, second = (write_run(tmp_path / name, steps=3, finished=False) for name in ("a", "b"))
    overview = Overview(tmp_path)

    async def play() -> None:
        async with Listener(overview, ["a", "b"], cards=True) as listener:
            await listener.until(lambda: listener.of("runs") and len(listener.of("rows")) == 4)
            assert [card["id"] for card in listener.of("runs")[0]["runs"]] == ["a", "b"]
            with Run.open(second, kind="ppo", settings={"steps": 3}, quiet=True) as run:
                run.log(4, {"a": 1.0})
                run.samples(4, texts(4))
                await listener.until(lambda: listener.of("samples") == [{"run": "b"}])
                await listener.until(lambda: len(listener.of("runs")) > 1)
            assert {card["id"] for said in listener.of("runs")[1:] for card in said["runs"]} == {"b"}, "only what changed"
            assert listener.last_id.count("|") == 1
            cursor = listener.last_id
        async with Listener(overview, ["a", "b"], cursor) as rest:
            await asyncio.sleep(0.1)
            assert rest.of("rows") == []
        for path in sorted(first.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        first.rmdir()
        async with Listener(overview, ["a", "b"], cursor, cards=True) as rest:
            await rest.until(lambda: rest.of("runs") and [c["id"] for c in rest.of("runs")[0]["runs"]] == ["b"])
            assert all(data["reset"] and not data["rows"] for data in rest.of("rows"))

    in_its_own_loop(play)


def test_a_large_log_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST", 2000)
    write_run(tmp_path / "r", steps=200)

    async def play() -> None:
        async with Listener(Overview(tmp_path), ["r"]) as listener:
            await listener.until(lambda: len(listener.steps) == 200)
            assert listener.steps == list(range(1, 201))
            assert len(listener.of("rows")) > 20

    in_its_own_loop(play)


def test_a_stream_ends_for_whoever_may_no_longer_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BEAT_S", 0.02)
    write_run(tmp_path / "r", steps=1)

    async def play() -> None:
        async with Listener(Overview(tmp_path), ["r"]) as listener:
            await listener.until(lambda: len(listener.of("beat")) > 2)
            assert ": still here" in listener.text
            listener.may = False
            await asyncio.wait_for(listener.task, 5)

    in_its_own_loop(play)


def test_a_served_stream_is_live_goes_on_and_lets_the_server_stop(served: Served) -> None:
    folder = write_run(served.runs / "deep/r", steps=2, finished=False)
    with httpx.Client(base_url=served.address, timeout=10) as client:
        client.post("/api/v1/session", json={"link": served.link.split("#")[1]})

        def listen(path: str, headers: dict[str, str], enough: Callable[[list[Any]], bool]) -> list[Any]:
            found: list[Any] = []
            text = ""
            with client.stream("GET", path, headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["cache-control"] == "no-store"
                for part in answer.iter_text():
                    text += part
                    found = list(parse(text))
                    if enough(found):
                        break
            return found

        with Run.open(folder, kind="ppo", settings={"steps": 2}, quiet=True) as run:
            written: list[float] = []

            def write() -> None:
                written.append(time.time())
                run.log(3, {"a": 1.0})

            timer = threading.Timer(0.5, write)
            timer.start()
            last = {"step": 3, "values": {"a": 1.0}}
            first = listen("/api/v1/runs/deep/r/stream", {}, lambda f: any(last in d["rows"] for e, _, d in f if e == "rows"))
            assert time.time() - written[0] < 1.5
            timer.join()
            cursor = [id for event, id, _ in first if event == "rows"][-1]
            run.log(4, {"a": 2.0})
            rest = listen("/api/v1/runs/deep/r/stream", {"last-event-id": cursor}, lambda f: any(e == "rows" for e, _, d in f))
            assert [r["step"] for e, _, d in rest if e == "rows" for r in d["rows"]] == [4]
            both = listen("/api/v1/runs/stream?run=deep/r&run=gone", {}, lambda f: {"runs", "rows"} <= {e for e, _, _ in f})
            assert next(d for e, _, d in both if e == "runs")["runs"][0]["id"] == "deep/r"

            held = client.stream("GET", "/api/v1/runs/deep/r/stream")
            with held as answer:
                lines = answer.iter_text()
                next(lines)
                began = time.monotonic()
                served.stop()
                for _ in lines:
                    pass
                assert time.monotonic() - began < 4, "a stream keeps the server from stopping"


def test_nobody_opens_streams_without_end(studio: Studio, owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from backflip.web import runs

    write_run(studio.runs / "r", steps=1)
    monkeypatch.setitem(runs._open, "owner", runs.STREAMS)
    said = owner.get("/api/v1/runs/r/stream")
    assert (said.status_code, said.headers["retry-after"]) == (429, "5")
    monkeypatch.setitem(runs._open, "owner", 0)
    studio.closing.set()
    assert owner.get("/api/v1/runs/r/stream").status_code == 200
    assert runs._open["owner"] == 0
    get(owner, "/runs/stream", 422, run=["x"] * 51)


# ------------------------------------------------------------------------------------------------------------- controlling


def test_a_real_run_obeys(studio: Studio, owner: TestClient) -> None:
    with living(studio.runs / "live") as run:
        wait_for(lambda: run.step > 2)

        def card() -> Any:
            return get(owner, "/runs/live/card")["card"]

        assert card()["state"] == "running"
        asked = post(owner, "/runs/live/control", {"wish": "pause"})
        assert (asked["wish"], asked["wished_by"]) == ("pause", "owner")
        wait_for(lambda: card()["state"] == "paused")
        step = run.step
        time.sleep(0.3)
        assert run.step == step
        resumed = post(owner, "/runs/live/control", {"wish": "resume"})
        assert resumed["wish"] is None
        wait_for(lambda: run.step > step)
        post(owner, "/runs/live/control", {"wish": "stop"})
        run.thread.join(15)
        assert re.match(r"stopped at step \d+ because owner asked", run.ended_by or "")
        assert (card()["state"], card()["wish"]) == ("stopped", None)
        said = post(owner, "/runs/live/control", {"wish": "stop"}, 409)
        assert said["detail"] == "run live is not running, so it cannot be asked to stop"


@pytest.mark.parametrize(
    "body", [{}, {"wish": "go"}, {"wish": None}, {"wish": "stop", "by": "ann"}, [], "pause", {"wish": ["stop"]}]
)
def test_wrong_wishes_are_refused(studio: Studio, owner: TestClient, body: Any) -> None:
    folder = write_run(studio.runs / "r", steps=1, finished=False)
    with Run.open(folder, kind="ppo", settings={"steps": 1}, quiet=True):
        post(owner, "/runs/r/control", body, 422)
        assert control.standing(folder) is None


# --------------------------------------------------------------------------------------------------------------- labelling


def test_samples_become_questions_and_sent_again_nothing_is_asked_twice(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "a/r", steps=30)
    studio.save_project(Project(id="look", purpose="looking"), by="test")
    body = {"project": "look", "step": 30, "rows": [0, 1, 3, 0]}
    assert post(owner, "/runs/a/r/label", body) == {"new": 2, "known": 0, "same": 1, "alone": 0}
    assert post(owner, "/runs/a/r/label", body) == {"new": 0, "known": 2, "same": 1, "alone": 0}
    assert post(owner, "/runs/a/r/label", {"project": "look", "n": 4}) == {"new": 1, "known": 2, "same": 1, "alone": 0}
    asked = studio.store.queries()
    assert {query.purpose for query in asked} == {"looking"}
    assert {frozenset(query.policies) for query in asked} == {frozenset({"a/r@1", "a/r@30"})}
    for query in asked:
        early = query.policies.index("a/r@1")
        assert query.completions[early].count("good ") == 1
        assert query.completions[1 - early].count("good ") == 30
    shown = post(owner, "/projects/look/claims", {"n": 9})["items"]
    assert {item["prompt_raw"] for item in shown} == set(PROMPTS[:3])
    assert "a/r@" not in json.dumps(shown)
    assert post(owner, "/runs/a/r/label", {"project": "look", "step": 1, "n": 4}) == {"new": 0, "known": 0, "same": 0, "alone": 4}


def test_sides_are_drawn_at_random_and_always_the_same(tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(400)]
    with Run.open(tmp_path, kind="ppo", settings={}, quiet=True) as run:
        run.samples(1, texts(1, prompts))
        run.samples(9, [each | {"completion": f"{each['completion']}!"} for each in texts(9, prompts)])
    rows = samples_of(tmp_path).rows
    made = pairs.questions(rows, name="r", purpose="train").queries
    assert made == pairs.questions(rows[::-1], name="r", purpose="train").queries[::-1]
    early_left = sum(query.policies[0] == "r@1" for query in made)
    assert len(made) == 400
    assert abs(early_left - 200) < 50, "five standard deviations"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overoptimised", "high proxy, low gold"), ("length", "long"), ("repetition", "again and again"),
        ("entropy", "again and again"), ("unfinished", "open"), ("reward-outliers", "far"), ("kl-budget", "far"),
    ],
)  # fmt: skip
def test_the_most_suspicious_come_first(tmp_path: Path, kind: str, expected: str) -> None:
    plain = {"finished": True, "proxy": 1.0, "gold": 1.0}
    odd: dict[str, dict[str, Any]] = {
        "high proxy, low gold": plain | {"completion": "words of a fair length", "proxy": 1.5, "gold": -9.0},
        "long": plain | {"completion": " ".join(f"word{i}" for i in range(99))},
        "again and again": plain | {"completion": "so it is " * 4},
        "open": plain | {"completion": "an open end and", "finished": False},
        "far": plain | {"completion": "a very good score", "proxy": 40.0, "gold": 50.0},
    }
    ordinary = {f"plain {i}": plain | {"completion": f"a usual answer no {i}", "proxy": 1.0 + i / 100} for i in range(9)}
    now = {**ordinary, **odd}
    with Run.open(tmp_path, kind="ppo", settings={}, quiet=True) as run:
        run.samples(1, [{"prompt": name, "completion": "the first answer", "proxy": 1.0} for name in now])
        run.samples(5, [{"prompt": name, **each} for name, each in now.items()])
        run.samples(6, [{"prompt": "never seen", "completion": "x " * 500, "proxy": 99.0, "finished": False}])
    found = pairs.suspicious(tmp_path, kind, 3)
    assert len(found) == 3
    assert found[0].now["prompt"] == expected
    assert pairs.suspicious(tmp_path, kind, 50, step=1) == []
    assert len(pairs.suspicious(tmp_path, kind, 50)) == len(now)


def test_the_suspicious_are_sent_once(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "r", steps=60)
    body = {"project": "main", "n": 12, "alarm": "overoptimised"}
    assert post(owner, "/runs/r/label", body)["new"] == 12
    assert post(owner, "/runs/r/label", body) == {"new": 0, "known": 12, "same": 0, "alone": 0}
    assert {query.purpose for query in studio.store.queries()} == {"train"}


def test_only_open_projects_take_questions(studio: Studio, owner: TestClient) -> None:
    write_run(studio.runs / "r", steps=12)
    post(owner, "/runs/r/label", {"project": "nobody's", "n": 1}, 404)
    studio.save_project(Project(id="main", purpose="train", open=False), by="test")
    post(owner, "/runs/r/label", {"project": "main", "n": 1}, 409)
    assert studio.store.queries() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"n": 1, "rows": [0], "step": 10}, {"rows": [0]}, {"rows": [9], "step": 10}, {"rows": [0], "step": 11}, {"n": 0},
        {"n": 65}, {"n": True}, {"n": "3"}, {"rows": [-1], "step": 10}, {"rows": [0], "step": 10, "alarm": "length"},
        {"n": 1, "alarm": "boredom"}, {"n": 1, "step": -1}, {"n": 1, "purpose": "train"}, {"rows": list(range(65)), "step": 10},
        {"n": 1, "project": 3},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_orders_are_refused(studio: Studio, owner: TestClient, wrong: dict[str, Any]) -> None:
    write_run(studio.runs / "r", steps=12)
    post(owner, "/runs/r/label", {"project": "main"} | wrong, 422)
    assert studio.store.queries() == []


# ------------------------------------------------------------------------------------------------------------ what it costs


def test_a_look_reads_only_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "FRESH_S", 0.0)
    for name in ("a", "b", "c", "loop", "loop/ppo", "x", "y", "z"):
        write_run(tmp_path / name, steps=2, finished=False)
    overview = Overview(tmp_path)
    first = overview.cards()
    read: list[str] = []

    def looked(root: Path, id: str) -> Any:
        read.append(id)
        return overviews_lookup(root, id)

    overviews_lookup = overviews.lookup
    monkeypatch.setattr(overviews, "lookup", looked)
    monkeypatch.setattr(overviews, "find", lambda root: pytest.fail("everything was read again"))
    overview._until = 0.0
    assert overview.cards() is first
    assert read == []
    with Run.open(tmp_path / "loop/ppo", kind="ppo", settings={"steps": 2}, quiet=True) as run:
        run.log(3, {"objective/scores": 8.0})
        overview._until = 0.0
        cards = {card.id: card for card in overview.cards()}
        assert sorted(read) == ["loop", "loop/ppo"]
        assert (cards["loop/ppo"].reward, cards["loop/ppo"].state) == (8.0, "running")
        assert cards["loop"].last_write == cards["loop/ppo"].last_write
    overview._until = 0.0
    assert {card.id: card.state for card in overview.cards()}["loop/ppo"] == "stopped"


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "MOST_BYTES", 20_000)
    monkeypatch.setattr(overviews, "MOST_SAID", 2000)
    overview = Overview(tmp_path)
    for i in range(6):
        folder = write_run(tmp_path / f"run {i}", steps=60)
        said, _ = overview.lines(folder, None, say=lambda line: "x" * 300)
        assert set(said.values()) == {"x" * 300}
    assert sum(log.bytes for log in overview._logs._known.values()) <= 20_000
    assert sum(map(len, overview._said._known.values())) == overview._said._size <= 2000
    again, _ = overview.lines(tmp_path / "run 0", ["grad_norm"], say=lambda line: str(len(line.steps)))
    assert again == {"grad_norm": "60"}


def test_alarms_are_taken_anew_when_the_log_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "SPARED", 0.0)
    folder = write_run(tmp_path / "r", steps=3, finished=False)
    overview = Overview(tmp_path)

    def kinds() -> set[str]:
        card = overview.card("r")
        assert card is not None
        return {alarm.kind for alarm in overview.alarms(card)}

    assert kinds() == set()
    with Run.open(folder, kind="ppo", settings={"steps": 3}, quiet=True) as run:
        for step in range(4, 70):
            run.log(step, row(step))
        assert "overoptimised" in kinds()


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_every_alarm_and_state_has_its_words(language: str) -> None:
    said = strings(language)
    for kind in alarms.KINDS:
        assert said[f"runs.alarm.{kind}"]
        assert any(key.startswith(f"runs.alarm.{kind}.") for key in said)
    for level in ("info", "warn", "error"):
        assert said[f"runs.level.{level}"]
    for state in ("running", "paused", "finished", "stopped"):
        assert said[f"runs.state.{state}"]


def test_every_string_that_the_page_names_is_there() -> None:
    static = Path(overviews.__file__).parent / "static"
    files = [static / "runs.js", static / "lib/chart.js", static / "lib/scale.js", *(static / "runs").glob("*.js")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r'"(runs\.[\w./-]+)"', text))
    assert len(named) > 60
    assert named <= set(strings("en")), sorted(named - set(strings("en")))
    begun = set(re.findall(r"`(runs\.[\w./-]+\.)\$\{", text))
    loose = {key for key in strings("en") if key.startswith("runs.") and key not in named and not key.startswith(tuple(begun))}
    assert loose == set(), "nothing says these"
    charts = set(re.findall(r'chart\("(\w+)"', text))
    assert {f"runs.title.{name}" for name in charts} == {key for key in strings("en") if key.startswith("runs.title.")}


def test_the_accounts_of_a_store_decide_about_streams(studio: Studio, as_role: As, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who is let go while they listen hears no more."""
    monkeypatch.setattr(stream, "BEAT_S", 0.0)
    write_run(studio.runs / "r", steps=1)
    viewer = as_role("viewer", "vera")

    def let_go() -> None:
        Accounts(studio.store).change("vera", by="owner", active=False)
        studio.identities.forget()

    timer = threading.Timer(0.3, let_go)
    timer.start()
    said = viewer.get("/api/v1/runs/r/stream")
    timer.join()
    assert said.status_code == 200
    assert any(event == "beat" for event, _, _ in parse(said.text))


def test_questions_are_made_of_text_alone(tmp_path: Path) -> None:
    with Run.open(tmp_path, kind="ppo", settings={}, quiet=True) as run:
        for step in (1, 2):
            run.samples(
                step,
                [{"prompt": [{"role": "user", "content": "x"}], "completion": f"{step}"}, {"prompt": "p", "text": f"{step}"}],
            )
    made = pairs.questions(samples_of(tmp_path).rows, name="r", purpose="train")
    assert (len(made.queries), made.alone) == (1, 1)
    assert isinstance(made.queries[0], Query)
    assert set(made.queries[0].completions) == {"1", "2"}
