"""The run folder: made once, resumed exactly, refused when it is another's, stopped without loss."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import backflip
from backflip.config import read_yaml, setting
from backflip.errors import CheckpointError, ConfigError, DataError, Interrupted, NumericsError, StorageError
from backflip.runs import Run, atomic, set_aside

SOURCE = str(Path(backflip.__file__).parents[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    kl_coef: float = setting(0.05, "x")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    learning_rate: float = setting(1e-5, "x")
    targets: tuple[str, ...] = setting(("q", "v"), "x")
    ppo: Inner = setting(Inner, "x")


def opened(folder: Path, **changes: object) -> Run:
    return Run.open(folder, **{"kind": "ppo", "settings": Toy(), "quiet": True, **changes})  # type: ignore[arg-type]


def test_a_new_run_says_what_it_is(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b") as run:
        card = json.loads((run.folder / "run.json").read_text())
        assert (card["kind"], card["version"]) == ("ppo", backflip.__version__)
        assert read_yaml(run.folder / "settings.yaml") == card["settings"] == run.settings
        assert run.settings["ppo"] == {"kl_coef": 0.05}
        assert not run.finished
        assert run.resume() is None


def test_a_run_that_wrote_nothing_takes_new_settings(tmp_path: Path) -> None:
    opened(tmp_path).close()
    corrected = Toy(learning_rate=0.1)
    with opened(tmp_path, kind="sft", settings=corrected) as run:
        assert json.loads((run.folder / "run.json").read_text())["kind"] == "sft"
        assert read_yaml(run.folder / "settings.yaml")["learning_rate"] == 0.1
        run.log(1, {"loss": 1.0})
    opened(tmp_path, kind="sft", settings=corrected).close()
    with pytest.raises(ConfigError, match="other settings"):
        opened(tmp_path, kind="sft", settings=Toy())


def test_the_same_run_opens_again_and_others_do_not(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.log(1, {"loss": 1.0})
    opened(tmp_path, settings=dataclasses.asdict(Toy())).close()
    with pytest.raises(ConfigError, match=r"holds a ppo run, not a sft run"):
        opened(tmp_path, kind="sft")
    with pytest.raises(ConfigError, match=r"other settings \(learning_rate: 1e-05 → 0.1; ppo.kl_coef: 0.05 → 0.2\)"):
        opened(tmp_path, settings=Toy(learning_rate=0.1, ppo=Inner(kl_coef=0.2)))
    opened(tmp_path).close()  # a refusal leaves no lock


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"files that are not a run's \(thesis.tex\)"):
        opened(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_attempt_killed_while_making_the_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.123.tmp").write_text("{")
    opened(tmp_path).close()
    (tmp_path / "settings.yaml").unlink()  # killed between run.json and settings.yaml
    opened(tmp_path).close()
    assert (tmp_path / "settings.yaml").exists()


def test_a_damaged_card_and_a_newer_format_are_named(tmp_path: Path) -> None:
    opened(tmp_path).close()
    card = tmp_path / "run.json"
    text = card.read_text()
    card.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ConfigError, match="format this version does not read"):
        opened(tmp_path)
    card.write_text(text[:20])
    with pytest.raises(DataError, match=r"run.json cannot be read"):
        opened(tmp_path)
    card.write_text("[]")
    with pytest.raises(DataError, match="should hold a JSON object"):
        opened(tmp_path)


def test_unwritable_places_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match=r"run folder .* cannot be made: a file stands where"):
            opened(place)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"run.json cannot be written: the file system is read-only"):
        opened(tmp_path / "new")
    monkeypatch.undo()
    opened(tmp_path / "new").close()


def test_one_process_per_run(tmp_path: Path) -> None:
    holder = textwrap.dedent(f"""
        import sys, time; sys.path.insert(0, {SOURCE!r})
        import os
        from backflip.runs import Run
        run = Run.open({str(tmp_path)!r}, kind="ppo", settings={{}})
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True); time.sleep(30); os._exit(0)
        time.sleep(30)
    """)
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(ConfigError, match="in use by another process"):
            opened(tmp_path, settings={})
        with pytest.raises(ConfigError, match="in use by another process"):
            set_aside(tmp_path)
        process.kill()
        process.wait()
        opened(tmp_path, settings={}).close()  # though a forked worker of the killed process still lives
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_the_lock_holds_within_one_process_too(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ConfigError, match="in use"):
        opened(tmp_path)
    opened(tmp_path).close()


def train(folder: Path, until: int, stop: int | None = None) -> None:
    """A toy run of ten steps with a checkpoint at every third; it falls over after step `stop`."""
    with opened(folder) as run:
        found = run.resume()
        done = int((found.path / "n").read_text()) if found else 0
        for step in range(done + 1, until + 1):
            run.log(step, {"objective/kl": step / 7, "n": step})
            run.samples(step, [{"prompt": "p", "completion": "ü" * step}, {"prompt": "q"}])
            run.time(step, {"sample": 0.5})
            if step % 3 == 0:
                with run.checkpoints.writing(step) as place:
                    (place / "n").write_text(str(step))
            if step == stop:
                raise RuntimeError("power cut")
        run.finish({"n": until})


@pytest.mark.parametrize("stop", range(1, 10))
def test_a_resumed_run_has_the_same_bytes(tmp_path: Path, stop: int) -> None:
    train(tmp_path / "calm", 10)
    with pytest.raises(RuntimeError):
        train(tmp_path / "torn", 10, stop)
    with open(tmp_path / "torn" / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "objec')
    train(tmp_path / "torn", 10)
    for name in ("metrics.jsonl", "samples.jsonl", "timings.jsonl", "result.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_a_step_zero_line_is_not_doubled_without_a_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path) as run:
            assert run.resume() is None
            run.log(0, {"eval/gold": 0.25})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "eval/gold": 0.25}\n'


def test_a_damaged_newest_checkpoint_costs_its_steps_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "calm", 10)
    with pytest.raises(RuntimeError):
        train(tmp_path / "torn", 10, 8)
    (tmp_path / "torn" / "checkpoints" / "step-00000006" / "n").write_text("7")
    with opened(tmp_path / "torn", quiet=False) as run:
        assert run.resume().step == 3  # type: ignore[union-attr]
        assert run.checkpoints.steps() == [3]
    assert "step-6 does not verify (n: sha256 differs); going on from step 3" in capfd.readouterr().err
    train(tmp_path / "torn", 10)
    assert (tmp_path / "torn" / "metrics.jsonl").read_bytes() == (tmp_path / "calm" / "metrics.jsonl").read_bytes()


def test_nothing_is_forgotten_when_no_checkpoint_verifies(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(tmp_path, 10, 4)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "checkpoints" / "step-00000003" / "n").unlink()
    with opened(tmp_path) as run, pytest.raises(CheckpointError, match="restore the folder from a copy, or delete it"):
        run.resume()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_finishing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as run:
        with pytest.raises(NumericsError, match="not finite"):
            run.finish({"gold": float("nan")})

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(atomic.os, "replace", full)
        with pytest.raises(StorageError, match="disk is full"):
            run.finish({"gold": 1.5})
        monkeypatch.undo()
        assert not run.finished
        with pytest.raises(DataError, match=r"result.json cannot be read"):
            _ = run.result
        run.finish({"gold": 1.5})
        assert run.finished
    with opened(tmp_path) as again:
        assert again.finished
        assert again.result == {"gold": 1.5}


def test_setting_aside_finds_a_free_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert set_aside(folder) is None
    for number in (1, 2):
        opened(folder).close()
        assert set_aside(folder) == tmp_path / f"run.{number}"
        assert not folder.exists()
    folder.mkdir()
    (folder / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="is not a run folder and stays"):
        set_aside(folder)
    assert (folder / "thesis.tex").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_and_the_handlers_come_back(tmp_path: Path, number: signal.Signals, code: int) -> None:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    with opened(tmp_path) as run:
        assert not run.stopping
        signal.raise_signal(number)
        assert run.stopping
        signal.raise_signal(signal.SIGTERM)  # schedulers send several: no effect
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match=r"stopped before its first checkpoint; run the same") as caught:
            run.interrupted()
        assert caught.value.exit_code == code
        with run.checkpoints.writing(4) as place:
            (place / "n").write_text("4")
        with pytest.raises(Interrupted, match=r"^stopped at step 4; come back later$"):
            run.interrupted("come back later")
    assert {s: signal.getsignal(s) for s in before} == before


def test_the_person_is_told_that_the_signal_came(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path, quiet=False):
        signal.raise_signal(signal.SIGINT)
    assert "stopping after this step; press Ctrl-C again" in capfd.readouterr().err


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with opened(tmp_path):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_no_torch_is_loaded() -> None:
    imports = "import backflip.runs, backflip.runs.page; print('torch' in sys.modules)"
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); {imports}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
