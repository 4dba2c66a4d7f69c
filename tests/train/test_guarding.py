"""What a run shows a guard, and what it does when the guard speaks: goes on, waits, or ends as the best policy."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.resume.compare import differences, snapshot
from tests.tiny_models import PROMPTS, nothing, small_ppo, tiny, vowels, weights

from backflip.errors import ConfigError, Interrupted
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Prompt
from backflip.rewards.learned import RewardModel
from backflip.runs import Run, control
from backflip.runs.report import write_report
from backflip.runs.watching import Finding, Look, Ruling
from backflip.seeds import Seeds
from backflip.train.guarding import DIMENSIONS, Watching
from backflip.train.online import improve

torch.set_num_threads(1)
FRESH = [Prompt("the dog"), Prompt("a mat"), Prompt("truly no")]


class Script:
    """A guard that answers as it was told to, by step."""

    def __init__(self, acts: Mapping[int, str] | None = None, best: Mapping[int, int] | None = None) -> None:
        self.acts, self.best, self.looks = acts or {}, best or {}, []  # type: ignore[var-annotated]
        self.yardsticks: list[Look] = []
        self.ruling = Ruling("go", 0)

    def measure_by(self, look: Look) -> None:
        self.yardsticks.append(look)

    def look(self, look: Look) -> Ruling:
        self.looks.append(look)
        act = "stop" if self.ruling.act == "stop" else self.acts.get(look.step, "go")
        found = [Finding("falling", look.step, "stop", "it fell", {"by": 1.0}, 0)] if act == "stop" else []
        best = self.best.get(look.step, self.ruling.best)
        self.ruling = Ruling(act, best, found, {"guard/proxy": sum(look.proxy)})  # type: ignore[arg-type]
        return self.ruling

    def state(self) -> dict[str, Any]:
        return {"steps": [look.step for look in self.looks], "act": self.ruling.act, "best": self.ruling.best}

    def take_up(self, state: Mapping[str, Any]) -> None:
        self.ruling = Ruling(state["act"], state["best"])

    def report(self) -> dict[str, Any]:
        return {"findings": [f.to_json() for f in self.ruling.findings]}


def run_of(folder: Path, guard: Script, policy: LanguagePolicy | None = None, **changes: Any) -> LanguagePolicy:
    """A small PPO run that `guard` watches every second step."""
    judges = changes.pop("judges", {"nobody": nothing})
    every, prompts, reference = changes.pop("every", 2), changes.pop("prompts", FRESH), changes.pop("reference", None)
    settings = small_ppo(**({"steps": 6, "save_every": 3, "learning_rate": 0.01} | changes))
    policy = policy or tiny()
    watching = Watching(guard=guard, prompts=prompts, every=every, judges=judges, by_reference=reference is not None)
    with Run.open(folder, kind="ppo", settings=settings, quiet=True) as run:
        result = improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), watching=watching, reference=reference)
        run.finish(result | {"watch": watching.outcome()})
    return policy


def test_a_guard_is_shown_the_same_prompts_and_what_can_be_known_of_them(tmp_path: Path) -> None:
    guard = Script()
    run_of(tmp_path / "run", guard)
    assert [look.step for look in guard.looks] == [0, 2, 4, 6]
    for look in guard.looks:
        assert look.prompts == [p.plain for p in FRESH]
        assert look.proxy == pytest.approx(vowels(list(look.prompts), list(look.completions)))
        assert look.judges == {"nobody": [0.0, 0.0, 0.0]}
        assert len(look.kl) == len(look.lengths) == len(look.finished) == 3
        assert 0 < look.entropy < 6
        assert look.vectors is None
    assert guard.looks[0].kl == pytest.approx([0.0] * 3, abs=1e-5), "the policy as it comes is its own reference"
    assert max(abs(kl) for kl in guard.looks[-1].kl) > 0.01
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines if "guard/proxy" in row] == [2, 4, 6]


def test_a_run_can_be_measured_by_what_its_reference_writes(tmp_path: Path) -> None:
    moved = run_of(tmp_path / "before", Script())
    begun, alone = Script(), Script()
    run_of(tmp_path / "on", begun, moved.frozen_copy(), reference=tiny().frozen_copy(), steps=2)
    run_of(tmp_path / "fresh", alone, steps=2)
    [yardstick] = begun.yardsticks
    assert yardstick == alone.looks[0], "what the reference writes, as if it were looked at first"
    assert alone.yardsticks == []
    assert yardstick.kl == [0.0] * 3
    assert [look.step for look in begun.looks] == [0, 2]
    assert max(abs(kl) for kl in begun.looks[0].kl) > 0.01, "the policy as it comes has left its reference already"


def test_a_run_may_be_stopped_before_its_first_step(tmp_path: Path) -> None:
    for _ in range(2):  # and be told again
        policy = run_of(tmp_path / "run", Script({0: "stop"}, {0: 0}))
    assert all(torch.equal(a, b) for a, b in zip(weights(policy.model).values(), weights(tiny().model).values(), strict=True))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["watch"]["rolled_back_to"] == 0
    assert result["kl_coef"] == small_ppo().kl_coef
    assert write_report(tmp_path / "run").exists()


def test_watching_changes_no_number_of_the_run(tmp_path: Path) -> None:
    watched = run_of(tmp_path / "watched", Script())
    settings, alone = small_ppo(steps=6, save_every=3, learning_rate=0.01), tiny()
    with Run.open(tmp_path / "alone", kind="ppo", settings=settings, quiet=True) as run:
        improve(alone, PROMPTS, vowels, settings, run, seeds=Seeds(0))
    assert all(torch.equal(a, b) for a, b in zip(weights(watched.model).values(), weights(alone.model).values(), strict=True))
    plain, seen = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("alone", "watched"))
    for one, other in zip(plain, seen, strict=True):
        row = json.loads(other)
        row.pop("guard/proxy", None)
        assert row == json.loads(one)


def test_the_random_numbers_are_the_same_at_every_look(tmp_path: Path) -> None:
    guard = Script()
    run_of(tmp_path / "run", guard, learning_rate=0.0)
    assert all(look.completions == guard.looks[0].completions for look in guard.looks)


def test_a_stop_ends_the_run_as_the_best_policy(tmp_path: Path) -> None:
    reference = run_of(tmp_path / "shorter", Script(), steps=2, save_every=2, lr_schedule="constant")
    policy = run_of(tmp_path / "run", Script({4: "stop"}, {2: 2}), lr_schedule="constant")
    assert all(torch.equal(a, b) for a, b in zip(weights(policy.model).values(), weights(reference.model).values(), strict=True))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["watch"]["stopped"] is True
    assert result["watch"]["rolled_back_to"] == 2
    assert result["watch"]["findings"][0]["sentence"] == "it fell"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 4, "nothing is learned after the stop"
    kept = sorted(path.name for path in (tmp_path / "run" / "best").iterdir())
    assert kept == ["step-00000002"]
    same = load_policy(tmp_path / "run" / "best" / "step-00000002" / "policy")
    assert all(torch.equal(a, b) for a, b in zip(weights(same.model).values(), weights(policy.model).values(), strict=True))


def test_without_a_better_look_a_stop_goes_back_to_the_beginning(tmp_path: Path) -> None:
    policy = run_of(tmp_path / "run", Script({2: "stop"}))
    assert all(torch.equal(a, b) for a, b in zip(weights(policy.model).values(), weights(tiny().model).values(), strict=True))


def test_a_run_that_was_stopped_and_then_killed_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path / "whole", Script({4: "stop"}, {2: 2}))

    def killed(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("backflip.train.guarding.Watcher.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path / "cut", Script({4: "stop"}, {2: 2}))
    policy, whole = run_of(tmp_path / "cut", Script()), load_policy(tmp_path / "whole" / "best" / "step-00000002" / "policy")
    assert all(torch.equal(a, b) for a, b in zip(weights(policy.model).values(), weights(whole.model).values(), strict=True))
    found = differences(snapshot(tmp_path / "whole"), snapshot(tmp_path / "cut"))
    assert [name for name in found if "guard.json" not in name and "result.json: watch" not in name] == []


def test_a_missing_best_policy_is_said(tmp_path: Path) -> None:
    class Wrong(Script):
        def look(self, look: Look) -> Ruling:
            ruling = super().look(look)
            self.ruling = ruling._replace(best=1) if ruling.act == "stop" else ruling
            return self.ruling

    with pytest.raises(ConfigError, match="the policy of step 1, to go back to, is not in"):
        run_of(tmp_path / "run", Wrong({2: "stop"}))


def test_a_pause_holds_the_run_until_somebody_resumes_it(tmp_path: Path) -> None:
    folder, waited = tmp_path / "run", []

    def person() -> None:
        for _ in range(600):
            wish = control.standing(folder)
            if wish is not None and (folder / ".paused").exists():
                waited.append(wish.by)
                control.resume(folder)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=person)
    thread.start()
    guard = Script({2: "pause"})
    policy = run_of(folder, guard)
    thread.join()
    assert waited == ["the monitor"]
    assert [look.step for look in guard.looks] == [0, 2, 4, 6]
    alone = run_of(tmp_path / "alone", Script())
    assert all(torch.equal(a, b) for a, b in zip(weights(policy.model).values(), weights(alone.model).values(), strict=True))


def test_vectors_come_from_a_judge_that_is_a_model_and_are_few(tmp_path: Path) -> None:
    judge = RewardModel.from_policy(tiny(1), seeds=Seeds(1))
    guard = Script()
    run_of(tmp_path / "run", guard, judges={"rule": nothing, "model": judge}, steps=2)
    vectors = torch.tensor([look.vectors for look in guard.looks], dtype=torch.float64)
    assert vectors.shape == (2, 3, min(32, DIMENSIONS))
    direct = judge.hidden(FRESH, guard.looks[0].completions)
    assert torch.allclose(vectors[0], direct.double(), atol=1e-5)
    scored = judge.gain * judge.model.score(direct).squeeze(-1) + judge.bias
    assert scored.tolist() == pytest.approx(guard.looks[0].judges["model"], abs=1e-5)


def test_wide_vectors_are_projected_and_keep_their_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, guard = RewardModel.from_policy(tiny(1), seeds=Seeds(1)), Script()
    monkeypatch.setattr("backflip.train.guarding.DIMENSIONS", 24)
    run_of(tmp_path / "run", guard, judges={"model": judge}, steps=2, prompts=[*PROMPTS, *FRESH])
    shown = torch.tensor(guard.looks[0].vectors, dtype=torch.float64)
    direct = judge.hidden([*PROMPTS, *FRESH], guard.looks[0].completions).double()
    assert shown.shape == (7, 24)
    ratio = torch.cdist(shown, shown).triu(1).sum() / torch.cdist(direct, direct).triu(1).sum()
    assert 0.7 < float(ratio) < 1.3


def test_there_must_be_something_to_look_at(tmp_path: Path) -> None:
    for wrong in ({"every": 0}, {"prompts": []}):
        with pytest.raises(ConfigError, match="give both"):
            run_of(tmp_path / str(len(wrong)) / next(iter(wrong)), Script(), **wrong)


def test_a_run_that_goes_on_shows_its_guard_no_look_twice(tmp_path: Path) -> None:
    guard = Script()

    class Impatient(Script):
        def look(self, look: Look) -> Ruling:
            ruling = super().look(look)
            if look.step == 4:
                raise Interrupted("now")
            return ruling

    with pytest.raises(Interrupted):
        run_of(tmp_path / "run", Impatient())
    run_of(tmp_path / "run", guard)
    assert [look.step for look in guard.looks] == [4, 6], "the checkpoint of step 3 holds the looks before"
    assert dataclasses.asdict(guard.looks[0])["step"] == 4
