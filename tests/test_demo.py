"""The main job at its smallest: every stage, every figure of its result, and going on after a stop."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backflip.demo import demo
from backflip.errors import ConfigError
from backflip.job_settings import HUMAN_DEMO, DemoJob
from backflip.runs.report import read_report
from backflip.store import Store
from backflip.store.projects import Projects

FIGURES = {
    "seconds", "peak_rss_mb", "rounds", "final", "comparisons", "rm_accuracy", "gold", "proxy", "win_rate_vs_sft", "kl_seq_nats",
    "kl_target_nats", "unfinished_share", "ratings", "seed",
}  # fmt: skip


def smallest(folder: Path) -> DemoJob:
    whole = DemoJob(output=str(folder), documents=120, demonstrations=40)
    loop = dataclasses.replace(
        whole.loop,
        comparisons=12,
        arena_prompts=8,
        reward=dataclasses.replace(whole.loop.reward, normalization_samples=8, epochs=1.0),
        ppo=dataclasses.replace(whole.loop.ppo, steps=2, batch_size=8),
    )
    return dataclasses.replace(whole, loop=loop)


def result_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return values


def test_the_demo_leaves_its_figures_a_report_and_the_feedback(tmp_path: Path) -> None:
    page = demo(smallest(tmp_path / "demo"), quiet=True)
    result = result_of(tmp_path / "demo")
    assert set(result) == FIGURES
    assert list(result["gold"]) == list(result["proxy"]) == ["base", "sft", "round1", "round2"]
    assert {"mean", "low", "high"} <= set(result["win_rate_vs_sft"])
    assert {rating["policy"] for rating in result["ratings"]} == {"sft", "round1", "round2"}
    assert result["kl_target_nats"] == 2 * DemoJob().loop.kl_budget
    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "src=" not in text
    report = read_report(tmp_path / "demo" / "report.json")
    assert [column.policy for column in report.samples[0].columns] == ["sft", "round2"]
    assert {"gold", "proxy"} == set(report.samples[0].columns[0].rewards)
    assert {"Gold reward", "Proxy reward", "Entropy", "Length"} <= {chart.title for chart in report.charts}


def test_a_demo_that_dies_between_stages_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo(smallest(tmp_path / "whole"), quiet=True)

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("backflip.rounds.loop.improve", die)
        with pytest.raises(KeyboardInterrupt):
            demo(smallest(tmp_path / "cut"), quiet=True)
    demo(smallest(tmp_path / "cut"), quiet=True)
    whole, cut = result_of(tmp_path / "whole"), result_of(tmp_path / "cut")
    machine = {"seconds", "peak_rss_mb"}
    assert {k: v for k, v in whole.items() if k not in machine} == {k: v for k, v in cut.items() if k not in machine}
    for name in ("round1/ppo/metrics.jsonl", "round2/ppo/metrics.jsonl", "arena/round2.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    settings = smallest(tmp_path / "demo")
    demo(settings, quiet=True)
    with pytest.raises(ConfigError, match=r"noise: 0\.1 → 0\.2"):
        demo(dataclasses.replace(settings, noise=0.2), quiet=True)


def test_a_person_teaches_the_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    whole = smallest(folder)
    settings = dataclasses.replace(whole, human=True, answers=10, loop=dataclasses.replace(whole.loop, rounds=1))
    done = threading.Event()

    def person() -> None:
        while not (folder / "feedback.db").exists():
            time.sleep(0.1)
        with Store(folder / "feedback.db") as store:
            while not done.wait(0.1):
                for purpose in ("train", "arena"):
                    while (claim := store.claim("me", purpose=purpose)) is not None:
                        a, b = claim.view.handles
                        store.answer(claim.view.id, "me", [[a], [b]], key=claim.view.id)

    thread = threading.Thread(target=person)
    thread.start()
    try:
        report = demo(settings, quiet=True, browser=False)
    finally:
        done.set()
        thread.join()
    result = result_of(folder)
    assert set(result) == FIGURES - {"rm_accuracy", "gold"} | {"reward_model"}
    assert report.exists()
    assert result["comparisons"] >= 10
    with Store(folder / "feedback.db", read_only=True) as store:
        assert {verdict.annotator for verdict in store.verdicts()} <= {"me", "same-text"}
        assert {project.id for project in Projects(store).all()} == {"reviews", "arena"}
    assert "of your answers" in report.read_text()


def test_the_demo_with_a_person_is_short() -> None:
    assert HUMAN_DEMO.human
    assert HUMAN_DEMO.loop.rounds == 1
    assert HUMAN_DEMO.loop.comparisons >= HUMAN_DEMO.answers
