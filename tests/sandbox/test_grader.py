"""The grader: what passes, what is told apart, what is refused, and that nothing expected is ever inside."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.sandbox import Case, Limits, Result, Sandbox, grade

SORT = "def solve(xs):\n    return sorted(xs)"
CASES = [Case([[3, 1, 2]], [1, 2, 3]), Case([[]], []), Case([[2, 1]], [1, 2], hidden=True)]


class Recorder:
    """A sandbox that keeps what it was asked to run."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.seen: list[tuple[str, str]] = []

    def run(self, code: str, stdin: str = "", limits: Limits | None = None, **more: str) -> Result:
        """Note and pass on."""
        self.seen.append((code, stdin))
        return self.sandbox.run(code, stdin, limits, **more)


def test_all_cases_must_pass_unless_a_share_is_wanted(sandbox: Sandbox) -> None:
    special = "def solve(xs):\n    return {(3, 1, 2): [1, 2, 3], (): []}.get(tuple(xs), xs)"
    found = grade(sandbox, special, CASES, entry="solve")
    assert found.score == 0.0
    assert found.passed == (True, True, False)
    assert (found.visible, found.hidden) == (1.0, 0.0)
    assert found.statuses == ("ok", "ok", "ok")
    assert grade(sandbox, special, CASES, partial=True, entry="solve").score == pytest.approx(2 / 3)
    assert grade(sandbox, SORT, CASES, entry="solve").score == 1.0


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def solve(xs): 1 / 0", "error"),
        ("def other(xs): return xs", "error"),
        ("def solve(xs:", "error"),
        ("def solve(xs):\n    while True: pass", "timeout"),
        ("def solve(xs):\n    while True: print('x' * 9999)", "output"),
        ("import ctypes\ndef solve(xs): ctypes.string_at(0)", "crash"),
        ("import os\ndef solve(xs): os._exit(0)", "silent"),
        ("def solve(xs): return lambda: 1", "ok"),
        ("def solve(xs):\n    ys = []\n    ys.append(ys)\n    return ys", "error"),
        ("", "error"),
    ],
)
def test_each_way_to_fail_has_its_name(code: str, status: str, sandbox: Sandbox) -> None:
    found = grade(sandbox, code, CASES[:1], entry="solve", limits=Limits(cpu_s=0.3, output_bytes=100_000))
    assert found.statuses == (status,)
    assert found.score == 0.0


def test_what_is_expected_never_goes_in_and_no_case_sees_another(sandbox: Sandbox) -> None:
    recorder: Any = Recorder(sandbox)
    cases = [Case([i], f"expected{i}", hidden=i % 2 == 0) for i in range(4)]
    grade(recorder, "def solve(x): return x", cases, entry="solve")
    assert len(recorder.seen) == 4
    assert not any("expected" in code + stdin for code, stdin in recorder.seen)
    counter = "import builtins\nbuiltins.count = getattr(builtins, 'count', 0) + 1\ndef solve(x): return builtins.count"
    assert grade(sandbox, counter, [Case([0], 1), Case([1], 1)], entry="solve").score == 1.0


def test_the_order_is_shuffled_by_the_seed_and_the_answer_is_not(sandbox: Sandbox) -> None:
    cases = [Case([i], i) for i in range(6)]
    orders, grades = [], []
    for seed in (0, 0, 1):
        recorder: Any = Recorder(sandbox)
        grades.append(grade(recorder, "def solve(x): return min(x, 3)", cases, entry="solve", seed=seed))
        orders.append([stdin for _, stdin in recorder.seen])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert grades[0] == grades[1] == grades[2]
    assert grades[0].passed == (True, True, True, True, False, False)


def test_stopping_early_leaves_the_rest_out(sandbox: Sandbox) -> None:
    found = grade(sandbox, "def solve(x): return None", [Case([i], i) for i in range(5)], entry="solve", stop_early=True)
    assert sorted(found.statuses) == ["ok", "skipped", "skipped", "skipped", "skipped"]
    assert found.score == 0.0


def test_values_keep_their_types(sandbox: Sandbox) -> None:
    arguments = [(1, 2.5), {1: {2}}, b"x", None, True, 10**50]
    assert grade(sandbox, "def solve(*a): return list(a)", [Case(arguments, arguments)], entry="solve").score == 1.0
    for got, wanted in [("1", 1), ("1.0", 1), ("True", 1), ("(1,)", [1]), ("-0.0", 0.0)]:
        assert grade(sandbox, f"def solve(): return {got}", [Case([], wanted)], entry="solve").score == float(got == "1")
    assert grade(sandbox, "def solve(): return (1,)", [Case([], [1])], entry="solve", tuple_is_list=True).score == 1.0
    assert grade(sandbox, "def solve(): return 0.1 + 0.2", [Case([], 0.3)], entry="solve").score == 0.0
    assert grade(sandbox, "def solve(): return 0.1 + 0.2", [Case([], 0.3)], entry="solve", float_tolerance=1e-9).score == 1.0


def test_a_method_of_a_class_can_be_the_entry(sandbox: Sandbox) -> None:
    code = "class Solution:\n    def twoSum(self, a, b):\n        print('noise')\n        return a + b"
    assert grade(sandbox, code, [Case([1, 2], 3)], entry="Solution.twoSum").score == 1.0


def test_a_whole_program_reads_and_writes_text(sandbox: Sandbox) -> None:
    code = "n = int(input())\nfor i in range(n): print(i)"
    cases = [Case("2\n", "0\n1\n"), Case("0", "", hidden=True)]
    assert grade(sandbox, code, cases, entry="").score == 1.0
    found = grade(sandbox, "print('0')", cases, entry="")
    assert (found.visible, found.hidden) == (0.0, 0.0)
    assert grade(sandbox, code + "\n1 / 0", cases, entry="").statuses == ("error", "error")


@pytest.mark.parametrize(
    ("cases", "entry", "message"),
    [
        ([], "f", "without test cases"),
        ([Case("x", "y"), Case([1], "y")], "", "test case 2: a whole program reads and writes text"),
        ([Case("x", 1)], "", "name the function to call as its entry"),
        ([Case(5, 1)], "f", "test case 1: the arguments of f are a list, not int"),
        ([Case([1], object())], "f", "test case 1 cannot be written as JSON: no value of type 'other'"),
        ([Case([object()], 1)], "f", "test case 1 cannot be written as JSON"),
    ],
)
def test_what_cannot_be_graded_is_refused(cases: list[Case], entry: str, message: str, sandbox: Sandbox) -> None:
    with pytest.raises(DataError, match=message):
        grade(sandbox, "def f(x): return x", cases, entry=entry)


def test_a_grade_is_a_plain_record(sandbox: Sandbox) -> None:
    found = dataclasses.asdict(grade(sandbox, SORT, CASES, entry="solve"))
    assert set(found) == {"score", "visible", "hidden", "passed", "statuses", "cheats"}
