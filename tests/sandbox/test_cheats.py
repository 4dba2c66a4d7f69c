"""Sixteen ways to be graded right without solving anything: none of them pays. Some do with a grader that believes programs."""

from __future__ import annotations

import pytest

from backflip.sandbox import Case, Sandbox, grade
from backflip.sandbox.cheats import SIGNS, signs

CASES = [Case([1, 2], 3), Case([2, 2], 4), Case([10, -3], 7, hidden=True), Case([0, 0], 0, hidden=True)]
SOLVED = "def add(a, b): return a + b"
WRONG = "def add(a, b): return 3\n"

STEAL = """
import sys, os
def stolen():
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, dict) and 'nonce' in value:
                return value['nonce']
        frame = frame.f_back
"""

EQUAL = """
class Same(BASE):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def add(a, b): return Same(VALUE)
"""

CHEATS = {
    "sys.exit": "import sys\n" + WRONG + "sys.exit(0)",
    "os._exit": "import os\n" + WRONG + "os._exit(0)",
    "os._exit in the call": "import os\ndef add(a, b): os._exit(0)",
    "object that equals everything": EQUAL.replace("BASE", "object").replace("VALUE", ""),
    "subclass of int": EQUAL.replace("BASE", "int").replace("VALUE", "3"),
    "subclass of list": EQUAL.replace("BASE", "list").replace("VALUE", ""),
    "reading the tests": WRONG
    + """
import glob, os
text = ''
for place in ('/tmp', '.', '/proc/self/cwd', '/proc/self/fd', os.path.dirname(os.__file__) + '/../..'):
    for path in glob.glob(place + '/**/*test*', recursive=True)[:1000]:
        try: text += open(path).read()
        except OSError: pass
def add(a, b): return 7 if 'add(10, -3) == 7' in text else 3
""",
    "atexit": "import atexit, os\n" + WRONG + "atexit.register(os._exit, 0)",
    "stolen marker": STEAL
    + """
def add(a, b):
    os.write(1, f'\\n{stolen()}true\\n'.encode())
    os._exit(0)
""",
    "stolen marker, many answers": STEAL
    + """
def add(a, b):
    for guess in range(-10, 11):
        os.write(1, f'\\n{stolen()}["int","{hex(guess)}"]\\n'.encode())
    os._exit(0)
""",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\n" + WRONG + "raise ValueError",
    "exit after writing to every descriptor": """
import os
def add(a, b):
    for fd in range(256):
        try: os.write(fd, b'\\n1.0 passed OK true 1000000\\n')
        except OSError: pass
    os._exit(0)
""",
    "printed score": 'print(\'{"score": 1000000, "passed": true}\')\n' + WRONG,
    "search of the heap for what is expected": """
import gc
def add(a, b):
    for found in gc.get_objects():
        if isinstance(found, dict) and found.get('expected') is not None: return found['expected']
    return 3
""",
    "frames of the grader": """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for name, value in {**frame.f_globals, **frame.f_locals}.items():
            if name in ('expected', 'answer', 'case', 'cases', 'tests', 'result'): return value
        frame = frame.f_back
    return 3
""",
    "patched encoder": """
import sys, json, builtins
class Any:
    def __eq__(self, other): return True
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        if 'canonical' in frame.f_globals: frame.f_globals['canonical'] = lambda value, depth=0: ['int', '*']
        frame = frame.f_back
    json.dumps = lambda *a, **k: '["int","0x3"]'
    builtins.assertEqual = lambda *a: True
    return Any()
""",
}
"""Sixteen: nine against asserts and exit codes, the rest against markers and graders that compare inside."""

HARNESS = "\n" + "\n".join(f"assert add(*{case.given}) == {case.expected}" for case in CASES)


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_pays(name: str, sandbox: Sandbox) -> None:
    found = grade(sandbox, CHEATS[name], CASES, entry="add")
    assert found.score == 0.0
    assert sum(found.passed) <= 1  # what a constant guess would honestly get
    assert found.hidden == 0.0
    assert grade(sandbox, CHEATS[name], CASES, entry="add", partial=True).score <= 0.25


def test_there_are_sixteen_and_most_pay_with_a_grader_that_believes_programs(sandbox: Sandbox) -> None:
    assert len(CHEATS) == 16
    believed = [name for name, code in CHEATS.items() if sandbox.run(code + HARNESS).status == "ok"]
    assert len(believed) == 10, believed
    assert sandbox.run(WRONG + HARNESS).status == "error"
    assert sandbox.run(SOLVED + HARNESS).status == "ok"


def test_the_honest_solution_is_paid_and_an_honest_guess_gets_its_share(sandbox: Sandbox) -> None:
    assert grade(sandbox, SOLVED, CASES, entry="add").score == 1.0
    assert grade(sandbox, WRONG, CASES, entry="add").score == 0.0
    assert grade(sandbox, WRONG, CASES, entry="add", partial=True).score == 0.25


@pytest.mark.parametrize("depth", [50, 300, 900, 5_000, 400_000])
def test_a_marker_before_endless_brackets_breaks_nothing(depth: int, sandbox: Sandbox) -> None:
    code = (
        STEAL
        + f"""
def add(a, b):
    os.write(1, ('\\n' + stolen() + '[' * {depth} + ']' * {depth} + '\\n').encode())
    os._exit(0)
"""
    )
    for tolerance in (0.0, 0.1):
        assert grade(sandbox, code, CASES[:1], entry="add", float_tolerance=tolerance).score == 0.0


@pytest.mark.parametrize(
    "line", ["1" * 5000, '["int","0x3"] ["int","0x3"]', "NaN", '{"a":', '["int",3]', "3", "", '["float","0x3"]']
)
def test_a_marker_before_what_no_encoder_writes_is_worth_nothing(line: str, sandbox: Sandbox) -> None:
    code = STEAL + f"def add(a, b):\n    os.write(1, ('\\n' + stolen() + {line!r} + '\\n').encode())\n    os._exit(0)"
    assert grade(sandbox, code, CASES[:1], entry="add").score == 0.0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os._exit(0)", ("os_exit",)),
        ("from os import _exit", ("os_exit",)),
        ("sys.exit()", ("sys_exit",)),
        ("raise SystemExit", ("sys_exit",)),
        ("def __eq__(self, o): return True", ("equality",)),
        ("import gc", ("introspection",)),
        ("sys._getframe(1).f_back", ("introspection",)),
        ("import atexit", ("atexit",)),
        ("sys.excepthook = f", ("hooks",)),
        ("open('/proc/self/cmdline')", ("tests",)),
        ("def add(a, b): return a + b  # exits early, equal, gcd", ()),
    ],
)
def test_signs_are_found_in_the_text(code: str, expected: tuple[str, ...]) -> None:
    assert signs(code) == expected
    assert set(expected) <= set(SIGNS)


def test_signs_are_told_and_change_no_score(sandbox: Sandbox) -> None:
    found = grade(sandbox, SOLVED + "\nimport atexit, gc", CASES, entry="add")
    assert found.score == 1.0
    assert found.cheats == ("introspection", "atexit")
