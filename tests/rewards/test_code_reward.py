"""The reward of unit-tested code: which text is the program, which cases, and what its figures say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from backflip.errors import DataError, SandboxError
from backflip.rewards.code import UnitTests, program_in
from backflip.sandbox import Limits

ADD = "Let me add.\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
GUESS = "```python\ndef add(a, b):\n    return 3\n```"
CASES = [{"args": [1, 2], "expected": 3}, {"args": [5, -7], "expected": -2, "hidden": True}]


@pytest.fixture(scope="module")
def reward() -> Iterator[UnitTests]:
    try:
        made = UnitTests(workers=2, limits=Limits(cpu_s=2, wall_s=20))
    except SandboxError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def ask(reward: UnitTests, completions: list[str], **columns: list[Any]) -> list[float | None]:
    """Rewards of completions to prompts that do not matter."""
    return reward(["?"] * len(completions), completions, **columns)


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```\nno, better:\n```python\nx = 2\n```\n", "x = 2\n"),
        ("cut off:\n```python\nx = 1\ny =", "x = 1\ny ="),
        ("```python\nx = '```'\n```", "x = '```'\n"),
        ("1.\n   ```python\nx = 1\n   ```", "x = 1\n"),
        ("```python\n```", ""),
        ("`x = 1`", "`x = 1`"),
        ("<think>\n```python\nx = 0\n```\n</think>\n```python\nx = 1\n```", "x = 1\n"),
        ("<think>\n```python\nx = 0\n```\n</think>x = 1", "x = 1"),
        ("<think>\n```python\nx = 0\n```\n", ""),
        ("", ""),
    ],
)
def test_the_program_is_the_last_fenced_block_or_all(completion: str, program: str) -> None:
    assert program_in(completion) == program


def test_only_what_passes_every_case_is_paid(reward: UnitTests) -> None:
    completions = [ADD, GUESS, "I do not know.", "```python\ndef add(a, b):\n    while True: pass\n```"]
    assert ask(reward, completions[:3], cases=[CASES] * 3, entry_point=["add"] * 3) == [1.0, 0.0, 0.0]
    figures = reward.metrics
    assert figures["code/pass"] == pytest.approx(1 / 3)
    assert figures["code/visible"] == pytest.approx(2 / 3)
    assert figures["code/hidden"] == pytest.approx(1 / 3)
    assert figures["code/hack_rate"] == pytest.approx(1 / 3)
    assert figures["code/status/ok"] == pytest.approx(4 / 6)
    assert figures["code/status/error"] == pytest.approx(2 / 6)


def test_rows_may_be_json_and_of_either_kind_or_without_cases(reward: UnitTests) -> None:
    text = json.dumps([{"stdin": "4\n", "stdout": "8\n"}])
    double = "```python\nprint(2 * int(input()))\n```"
    assert ask(reward, [double, ADD, ADD], cases=[text, CASES, None], entry_point=[None, "add", "add"]) == [1.0, 1.0, None]
    assert ask(reward, [double, "print(1)"], cases=[text, text]) == [1.0, 0.0]
    assert ask(reward, []) == []


def test_a_tuple_counts_as_the_list_that_json_made_of_it(reward: UnitTests) -> None:
    cases = [{"args": [], "expected": [1, [2, 3]]}]
    assert ask(
        reward, ["def f(): return 1, (2, 3)", "def f(): return 1, (2, 3.0)"], cases=[cases] * 2, entry_point=["f"] * 2
    ) == [1.0, 0.0]


def test_shares_and_visible_cases_alone_where_told(reward: UnitTests) -> None:
    options: dict[str, Any] = {"sandbox": reward.sandbox, "workers": 2}
    columns = {"cases": [CASES] * 2, "entry_point": ["add"] * 2}
    assert ask(UnitTests(partial=True, **options), [ADD, GUESS], **columns) == [1.0, 0.5]
    hackable = UnitTests(visible_only=True, **options)
    assert ask(hackable, [ADD, GUESS], **columns) == [1.0, 1.0]
    assert hackable.metrics["code/hack_rate"] == 0.5
    assert ask(UnitTests(visible_only=True, partial=True, **options), [ADD, GUESS], **columns) == [1.0, 1.0]
    close = [{"args": [0.1, 0.2], "expected": 0.3}]
    assert ask(UnitTests(float_tolerance=1e-9, **options), [ADD], cases=[close], entry_point=["add"]) == [1.0]
    assert ask(UnitTests(**options), [ADD], cases=[close], entry_point=["add"]) == [0.0]


def test_limits_may_be_a_mapping_and_packages_offered(reward: UnitTests) -> None:
    loop = [{"stdin": "", "stdout": ""}]
    quick = UnitTests(limits={"cpu_s": 0.2}, sandbox=reward.sandbox)
    assert quick.limits == Limits(cpu_s=0.2)
    assert ask(quick, ["while True: pass"], cases=[loop]) == [0.0]
    assert quick.metrics["code/status/timeout"] == 1.0
    with UnitTests(packages=True, limits={"cpu_s": 10, "wall_s": 60}, workers=1) as equipped:
        assert ask(equipped, ["import numpy"], cases=[loop]) == [1.0]
    assert ask(reward, ["import numpy"], cases=[loop]) == [0.0]


def test_running_without_confinement_is_asked_for_and_told(reward: UnitTests) -> None:
    with UnitTests(unsafe=True, workers=1) as unsafe:
        assert ask(unsafe, [ADD], cases=[CASES], entry_point=["add"]) == [1.0]
        assert unsafe.metrics["code/unsafe"] == 1.0
        assert unsafe.sandbox.describe()["driver"] == "unsafe"
    ask(reward, [ADD], cases=[CASES], entry_point=["add"])
    assert reward.metrics["code/unsafe"] == 0.0


def test_cheats_are_counted_and_not_paid(reward: UnitTests) -> None:
    cheat = "import os\ndef add(a, b): os._exit(0)"
    assert ask(reward, [cheat, ADD], cases=[CASES] * 2, entry_point=["add"] * 2) == [0.0, 1.0]
    assert reward.metrics["code/cheat/os_exit"] == 0.5
    assert reward.metrics["code/status/silent"] == 0.5


@pytest.mark.parametrize("cases", ["not json", [{"args": [1]}], [{"stdin": "1"}], [1], 5, [{"args": 1, "expected": 1}], []])
def test_cases_that_cannot_be_read_are_refused(cases: Any, reward: UnitTests) -> None:
    with pytest.raises(DataError, match=r"cases|case"):
        ask(reward, [ADD], cases=[cases], entry_point=["add"])


def test_without_cases_there_is_no_reward(reward: UnitTests) -> None:
    with pytest.raises(DataError, match="needs the column 'cases'"):
        ask(reward, [ADD], answer=["3"])


def test_a_broken_sandbox_is_an_error_and_never_a_reward(reward: UnitTests, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise SandboxError("the sandbox's server died")

    monkeypatch.setattr(reward.sandbox, "run", broken)
    with pytest.raises(SandboxError, match="died"):
        ask(reward, [ADD], cases=[CASES], entry_point=["add"])


def test_somebody_elses_sandbox_is_left_open(reward: UnitTests) -> None:
    with UnitTests(sandbox=reward.sandbox) as other:
        assert other.sandbox is reward.sandbox
    assert ask(reward, [ADD], cases=[CASES], entry_point=["add"]) == [1.0]
