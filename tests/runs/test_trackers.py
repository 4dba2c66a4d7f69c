"""Trackers repeat metrics.jsonl: every line once, also over a crash and a resume."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import ConfigError
from backflip.runs import Run, trackers


def go(folder: Path, tracker: str, first: int, last: int, save: int | None = None) -> None:
    with Run.open(folder, kind="ppo", settings={"seed": 1}, quiet=True, trackers=(tracker,)) as run:
        run.resume()
        for step in range(first, last + 1):
            run.log(step, {"kl": step / 2})
            run.log(step, {"eval/gold": step / 4})
            if step == save:
                with run.checkpoints.writing(step) as place:
                    (place / "n").write_text("x")


class FakeService(types.ModuleType):
    """What wandb and trackio look like from here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.starts: list[dict[str, Any]] = []
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> FakeService:
        self.starts.append(options)
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.lines.append((step, metrics))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(params=["wandb", "trackio"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    return fake


EXPECTED = [line for step in range(1, 7) for line in ((step, {"kl": step / 2}), (step, {"eval/gold": step / 4}))]


def test_a_service_gets_every_line_once(tmp_path: Path, service: FakeService) -> None:
    go(tmp_path / "run", service.__name__, 1, 5, save=3)
    go(tmp_path / "run", service.__name__, 4, 6)
    assert service.lines == EXPECTED
    assert service.finished == 2
    first, second = service.starts
    assert first == second, "a resumed run must be the same run to the service"
    assert first["config"] == {"seed": 1}
    assert first["resume"] == "allow"


def test_lines_logged_before_the_tracker_was_asked_for_are_sent_too(tmp_path: Path, service: FakeService) -> None:
    with Run.open(tmp_path, kind="ppo", settings={}, quiet=True) as run:
        run.log(1, {"kl": 0.5})
    with Run.open(tmp_path, kind="ppo", settings={}, quiet=True, trackers=[service.__name__]) as run:
        run.log(2, {"kl": 1.0})
    assert service.lines == [(1, {"kl": 0.5}), (2, {"kl": 1.0})]


def test_a_damaged_count_starts_a_new_complete_run_there(tmp_path: Path, service: FakeService) -> None:
    go(tmp_path, service.__name__, 1, 3, save=3)
    (tmp_path / "trackers.json").write_text("")
    go(tmp_path, service.__name__, 4, 6)
    assert service.lines == EXPECTED[:6] + EXPECTED
    assert service.starts[0] != service.starts[1]


def test_a_missing_package_and_an_unknown_name_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        Run.open(tmp_path, kind="ppo", settings={}, trackers=("wandb",))
    with pytest.raises(ConfigError, match="unknown tracker 'wandbb'; did you mean 'wandb'"):
        Run.open(tmp_path, kind="ppo", settings={}, trackers=("wandbb",))
    Run.open(tmp_path, kind="ppo", settings={}).close()  # neither left the folder locked


def test_a_service_that_fails_at_the_end_does_not_keep_the_folder(tmp_path: Path, service: FakeService) -> None:
    def fail() -> None:
        raise RuntimeError("network")

    service.finish = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="network"):
        go(tmp_path, service.__name__, 1, 1)
    Run.open(tmp_path, kind="ppo", settings={"seed": 1}).close()


def test_tensorboard_reads_every_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        go(tmp_path, "tensorboard", 1, 5, save=3)
        go(tmp_path, "tensorboard", 4, 6)
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["kl", "eval/gold"]
    assert [(e.step, e.value) for e in events.Scalars("kl")] == [(s, s / 2) for s in range(1, 7)]
    assert [e.step for e in events.Scalars("eval/gold")] == list(range(1, 7))


def test_every_known_name_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(trackers.KNOWN) == {"tensorboard", "wandb", "trackio"}
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, FakeService(name))
        with Run.open(tmp_path / name, kind="sft", settings={}, trackers=(name,)) as run:
            run.log(1, {"loss": 1.0})
        assert (tmp_path / name / "trackers.json").exists()
