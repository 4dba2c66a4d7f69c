"""Every test file collects tests, and every test can fail."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ASSERTING_CALLS = ("assert_", "check_", "raises", "warns", "fail")


def collected(source: str) -> list[ast.FunctionDef]:
    """The test functions pytest would collect from a module, those in Test classes included."""
    tree = ast.parse(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    return [
        node
        for body in (tree.body, *(cls.body for cls in classes))
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]


def can_fail(test: ast.FunctionDef) -> bool:
    """Whether a test asserts something that is not a constant, itself or through an asserting helper.

    A hypothesis test counts as it is: that no input makes the code raise is what it checks.
    """
    if any("given" in ast.unparse(decorator) for decorator in test.decorator_list):
        return True
    for node in ast.walk(test):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rsplit(".", 1)[-1]
            if name.startswith(ASSERTING_CALLS):
                return True
    return False


def test_every_test_file_collects_tests_that_assert() -> None:
    problems = []
    for path in sorted(TESTS.rglob("test_*.py")):
        tests = collected(path.read_text(encoding="utf-8"))
        where = path.relative_to(TESTS)
        problems += [] if tests else [f"{where}: collects no test"]
        problems += [f"{where}:{test.lineno}: {test.name} cannot fail" for test in tests if not can_fail(test)]
    assert not problems, "\n".join(problems)


def test_no_test_hides_where_pytest_does_not_look() -> None:
    hidden = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if not path.name.startswith("test_") and path.name != "conftest.py" and collected(path.read_text(encoding="utf-8"))
    ]
    assert hidden == []


def test_file_names_are_unique() -> None:
    # pytest imports test files of folders without __init__.py by their bare name, so two of one name collide.
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_tests_that_cannot_fail_are_noticed() -> None:
    source = """
def test_runs_only(): compute()
def test_constant(): assert True
def test_asserts(): assert compute() == 1
def test_raises():
    with pytest.raises(ValueError): compute()
def test_helper(): torch.testing.assert_close(a, b)
@given(st.text())
def test_property(text): compute(text)
def helper(): assert 1 == 2
class TestGroup:
    def test_inside(self): compute()
"""
    tests = collected(source)
    assert len(tests) == 7
    assert {test.name for test in tests if not can_fail(test)} == {"test_runs_only", "test_constant", "test_inside"}
    assert collected("def check(): assert x\n") == []
