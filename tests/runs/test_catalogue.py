"""Cards of run folders: right for every state a run can be in, unmoved by what a folder may hold, and no way out of the root."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.runs import Run, catalogue, control
from backflip.runs.catalogue import Beside, Samples, find, lookup, samples


def make(folder: Path, *, kind: str = "ppo", steps: int = 5, until: int = 3, finish: bool = False, **settings: Any) -> None:
    with Run.open(folder, kind=kind, settings={"train": {"steps": steps}} | settings, quiet=True) as run:
        for step in range(1, until + 1):
            run.log(step, {"objective/scores": step / 4, "kl/seq_nats": step / 10})
            run.time(step, {"rollout": 0.1, "update": 0.1})
            run.samples(step, [{"prompt": "p", "completion": f"text {step}"}])
        if finish:
            run.finish({"gold": 1.0})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make(tmp_path / "one", finish=True)
    make(tmp_path / "loop", kind="rounds", until=0)
    make(tmp_path / "loop" / "base", kind="sft", finish=True)
    make(tmp_path / "loop" / "round1" / "ppo")
    for hidden in ("checkpoints/step-00000001", "model", "generations/sft", ".one.new"):
        (tmp_path / "one" / hidden).mkdir(parents=True)
        (tmp_path / "one" / hidden / "run.json").write_text("{}")
    return tmp_path


def by_id(root: Path, depth: int = 3) -> dict[str, catalogue.RunCard]:
    return {card.id: card for card in find(root, depth)}


def test_all_runs_are_found_with_what_they_are_part_of(tree: Path) -> None:
    cards = by_id(tree)
    assert list(cards) == ["loop", "loop/base", "loop/round1/ppo", "one"]
    assert [card.parent for card in cards.values()] == [None, "loop", "loop", None]
    assert [card.kind for card in cards.values()] == ["rounds", "sft", "ppo", "ppo"]
    assert [card.state for card in cards.values()] == ["stopped", "finished", "stopped", "finished"]
    assert all(card.folder == tree / card.id and card.damaged == "" for card in cards.values())
    assert list(by_id(tree, 2)) == ["loop", "loop/base", "one"]
    assert list(by_id(tree, 0)) == []
    assert find(tree / "nowhere") == find(tree / "one" / "run.json") == []


def test_a_root_that_is_a_run_has_itself(tree: Path) -> None:
    cards = by_id(tree / "loop")
    assert list(cards) == [".", "base", "round1/ppo"]
    assert [card.parent for card in cards.values()] == [None, ".", "."]
    assert lookup(tree / "loop", ".") == cards["."]


def test_a_card_says_how_the_run_stands(tree: Path) -> None:
    card = by_id(tree)["one"]
    assert (card.step, card.steps, card.reward) == (3, 5, 0.75)
    assert card.metrics == {"objective/scores": 0.75, "kl/seq_nats": 0.3}
    assert card.settings == {"train": {"steps": 5}}
    assert card.steps_per_second == pytest.approx(5)
    assert card.interval == pytest.approx(0.2)
    assert card.started is not None
    assert card.last_write is not None
    assert card.started <= card.last_write


def test_without_timings_the_speed_is_that_since_the_beginning(tree: Path) -> None:
    (tree / "one" / "timings.jsonl").unlink()
    os.utime(tree / "one" / "run.json", (1000, 1000))
    os.utime(tree / "one" / "metrics.jsonl", (1006, 1006))
    card = by_id(tree)["one"]
    assert (card.started, card.steps_per_second, card.interval) == (1000, 0.5, 2.0)
    os.utime(tree / "one" / "metrics.jsonl", (999, 999))
    assert by_id(tree)["one"].steps_per_second is None


def test_what_a_stage_writes_its_loop_writes(tree: Path) -> None:
    os.utime(tree / "loop" / "round1" / "ppo" / "metrics.jsonl", (4e9, 4e9))
    cards = by_id(tree)
    assert cards["loop"].last_write == cards["loop/round1/ppo"].last_write == 4e9
    assert lookup(tree, "loop") == cards["loop"]
    assert lookup(tree, "loop/round1/ppo") == cards["loop/round1/ppo"]
    assert cards["loop/base"].last_write != 4e9


def test_running_paused_and_stopped_runs(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", kind="ppo", settings={}, quiet=True) as run:
        assert by_id(tmp_path)["r"].state == "running"
        wish = control.pause(run.folder, by="ann")
        waiting = by_id(tmp_path)["r"]
        assert (waiting.state, waiting.wish) == ("running", wish), "asked, but not paused yet"
        states: list[str] = []

        def look() -> None:
            states.append(by_id(tmp_path)["r"].state)
            control.resume(run.folder)

        timer = threading.Timer(0.2, look)
        timer.start()
        run.obey()
        timer.join()
        assert states == ["paused"]
        assert by_id(tmp_path)["r"].state == "running"
    assert by_id(tmp_path)["r"].state == "stopped"
    (tmp_path / "r" / ".paused").touch()  # killed while it waited
    assert by_id(tmp_path)["r"].state == "stopped"


def damage_cards() -> dict[str, tuple[Callable[[Path], object], str]]:
    """What may befall a run folder, and what its card must say."""

    def write(name: str, content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(content)

    def swap(name: str, instead: Callable[[Path], object]) -> Callable[[Path], object]:
        def act(folder: Path) -> None:
            (folder / name).unlink()
            instead(folder / name)

        return act

    return {
        "empty card": (write("run.json", b""), "run.json cannot be read"),
        "torn card": (write("run.json", b'{"kind": "pp'), "run.json cannot be read"),
        "binary card": (write("run.json", b"\xff\x00\xfe"), "run.json cannot be read"),
        "deep card": (write("run.json", b"[" * 100_000), "run.json cannot be read"),
        "list card": (write("run.json", b"[1]"), "run.json holds no JSON object"),
        "card without settings": (write("run.json", b'{"kind": "ppo", "settings": 3}'), "run.json has no settings"),
        "card that is a folder": (swap("run.json", Path.mkdir), "run.json cannot be read"),
        "card that is a pipe": (swap("run.json", os.mkfifo), "run.json cannot be read"),
        "torn result": (write("result.json", b"{"), "result.json cannot be read"),
        "damaged line": (write("metrics.jsonl", b'{"step": 1}\n{"st\n{"step": 2}\n'), "metrics.jsonl has 1 damaged line near"),
        "zeros": (write("metrics.jsonl", b"\0" * 300 + b"\n\0\n"), "metrics.jsonl has 2 damaged lines near"),
        "metrics that are a folder": (swap("metrics.jsonl", Path.mkdir), ""),
        "odd values": (write("metrics.jsonl", b'{"step": 7, "a": NaN, "b": "x", "c": null, "d": 1e999, "e": true}\n'), ""),
        "torn end": (write("metrics.jsonl", b'{"step": 1}\n{"step": 2, "obj'), ""),
        "odd settings": (write("run.json", b'{"kind": 7, "settings": {"train": [], "steps": "many"}}'), ""),
        "odd timings": (write("timings.jsonl", b'{"step": 1, "rollout": "long"}\n{"step": 2, "rollout": -3}\n'), ""),
        "odd wish": (write("control.json", b"\0"), ""),
    }


@pytest.mark.parametrize("name", damage_cards())
def test_a_damaged_folder_makes_a_card_that_says_so(tmp_path: Path, name: str) -> None:
    make(tmp_path / "bad", finish=name == "torn result")
    make(tmp_path / "good")
    act, said = damage_cards()[name]
    act(tmp_path / "bad")
    cards = by_id(tmp_path)
    assert said in cards["bad"].damaged
    assert bool(said) == bool(cards["bad"].damaged)
    assert cards["good"].damaged == ""
    assert json.dumps([dict(card.metrics) for card in cards.values()], allow_nan=False)


def test_a_folder_that_may_not_be_read_hides_nothing_else(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "loop":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(catalogue.os, "scandir", refuse)
    assert list(by_id(tree)) == ["one"]


OUTSIDE = (
    "",
    "..",
    "../secret",
    "one/../../secret",
    "/etc",
    "one/",
    "./one",
    "loop/round1",
    "link",
    "inner",
    "loop\\base",
    "one\0",
)


@pytest.mark.parametrize("id", OUTSIDE)
def test_an_id_is_looked_up_and_never_a_path(tree: Path, id: str) -> None:
    secret = tree.parent / "secret"
    make(secret)
    (tree / "link").symlink_to(secret)
    (tree / "inner").symlink_to(tree / "one")
    with pytest.raises(DataError, match="there is no run"):
        lookup(tree, id)
    assert lookup(tree, "one").id == "one"
    assert list(by_id(tree)) == ["loop", "loop/base", "loop/round1/ppo", "one"]


def test_links_inside_a_run_are_not_read(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "r")
    make(tmp_path / "secret", until=9)
    for name in ("run.json", "metrics.jsonl", "samples.jsonl"):
        (tmp_path / "runs" / "r" / name).unlink()
        (tmp_path / "runs" / "r" / name).symlink_to(tmp_path / "secret" / name)
    assert find(tmp_path / "runs") == []
    assert samples(tmp_path / "runs" / "r").rows == []


def test_names_that_no_page_can_show_are_passed_over(tmp_path: Path) -> None:
    for name in ("ok ü 训练", "line\nbreak", os.fsdecode(b"\xff\xfe")):
        make(tmp_path / name)
    assert list(by_id(tmp_path)) == ["ok ü 训练"]


def write_samples(folder: Path, *rows: dict[str, Any]) -> None:
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_samples_stand_beside_the_first_ones_for_their_prompts(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    rows = [
        {"step": 1, "prompt": "p", "completion": "a"},
        {"step": 1, "prompt": "p", "completion": "b"},
        {"step": 1, "prompt": chat, "completion": "c"},
        {"step": 10, "prompt": "q", "completion": "d"},
        {"step": 20, "prompt": "p", "completion": "e"},
        {"step": 20, "prompt": "p", "completion": "f"},
        {"step": 20, "prompt": "p", "completion": "g"},
        {"step": 20, "prompt": chat, "completion": "h"},
        {"step": 20, "prompt": "q", "completion": "i"},
    ]
    write_samples(tmp_path, *rows)
    last = samples(tmp_path)
    assert (last.step, last.steps) == (20, [1, 10, 20])
    assert [(pair.now["completion"], pair.before and pair.before["completion"]) for pair in last.rows] == [
        ("e", "a"), ("f", "b"), ("g", None), ("h", "c"), ("i", "d"),
    ]  # fmt: skip
    assert samples(tmp_path, 19) == Samples(10, [1, 10, 20], [Beside(rows[3], None)])
    assert samples(tmp_path, 1) == samples(tmp_path, -5)
    assert [pair.before for pair in samples(tmp_path, 1).rows] == [None] * 3
    assert [pair.before and pair.before["completion"] for pair in samples(tmp_path, beside=2).rows] == [None] * 4 + ["d"]


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    assert samples(tmp_path) == samples(tmp_path, 7) == Samples(None, [], [])
    (tmp_path / "samples.jsonl").write_bytes(b'\0\n{"step": 4, "completion": "x"}\n{"step": 5, "com')
    found = samples(tmp_path)
    assert (found.step, [pair.now["completion"] for pair in found.rows]) == (4, ["x"])
