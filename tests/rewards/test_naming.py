"""Rewards by name, as the command line and YAML give them."""

from __future__ import annotations

import contextlib
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import BackflipError, ConfigError
from backflip.rewards import calls
from backflip.rewards.lengths import Overlong
from backflip.rewards.naming import BUILT_IN, Named, load_function, parse_rewards, parse_spec
from backflip.rewards.spans import Span
from backflip.rewards.weighted import Weighted

FILE = """
from dataclasses import dataclass

def shortness(prompts, completions, **columns):
    return [float(len(text)) for text in completions]

@dataclass
class Limit:
    limit: int
    def __call__(self, prompts, completions, **columns):
        return [float(len(text) > self.limit) for text in completions]

def make(limit=3):
    return Limit(limit)

def fails(limit):
    raise ValueError("no")

def wrong(texts):
    return []

value = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of somebody's rewards."""
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("math", Named("math", "math", None, 1.0)),
        (" format:0.1 ", Named("format", "format", None, 0.1)),
        ("length(limit=5):-1e-2", Named("length", "length", {"limit": 5}, -0.01)),
        ("format(soft=True, tags=('a', 'b')):+.5", Named("format", "format", {"soft": True, "tags": ("a", "b")}, 0.5)),
        ("my_file.py:shortness:-0.01", Named("shortness", "my_file.py:shortness", None, -0.01)),
        ("my_file.py:shortness", Named("shortness", "my_file.py:shortness", None, 1.0)),
        ("a/b c.py:make(limit=40):2", Named("make", "a/b c.py:make", {"limit": 40}, 2.0)),
        ("C:\\x\\mine.py:f:0.5", Named("f", "C:\\x\\mine.py:f", None, 0.5)),
        ("my.package:tone", Named("tone", "my.package:tone", None, 1.0)),
        ("path/to/reward-model:0.5", Named("reward-model", "path/to/reward-model", None, 0.5)),
        ("path/to/reward-model/", Named("reward-model", "path/to/reward-model/", None, 1.0)),
        ("steps@path/to/model:0.5", Named("model", "steps@path/to/model", None, 0.5)),
        ("brief=length(limit=3):0", Named("brief", "length", {"limit": 3}, 0.0)),
        ({"reward": "length", "weight": 2, "limit": 3}, Named("length", "length", {"limit": 3}, 2.0)),
        ({"reward": "math", "name": "right"}, Named("right", "math", None, 1.0)),
    ],
)
def test_what_a_spec_asks_for(spec: Any, named: Named) -> None:
    assert parse_spec(spec) == named


def test_rewards_from_everywhere_make_one(file: Path) -> None:
    asked: list[str] = []

    def load_model(name: str) -> Any:
        asked.append(name)
        return lambda prompts, completions, **columns: [10.0] * len(completions)

    specs = ["number", "format:0.5", f"{file}:shortness:-0.01", f"{file}:make(limit=4)", f"{file}:make:0", "org/model:0.1"]
    specs[4] = f"loose={file}:make(limit=100):0"
    reward = parse_rewards(specs, load_model=load_model)
    assert list(reward.parts) == ["number", "format", "shortness", "make", "loose", "model"]
    assert asked == ["org/model"]
    text = "<think>a</think><answer>5</answer>"
    assert reward(["q"], [text], answer=["5"]) == pytest.approx([1 + 0.5 - 0.01 * len(text) + 1 + 0 + 1])
    folder = file.parent / "model"
    folder.mkdir()
    assert list(parse_rewards(str(folder), load_model=load_model).parts) == ["model"]
    assert asked[-1] == str(folder)


def test_any_reward_can_stand_at_the_ends_of_lines(file: Path) -> None:
    reward = parse_rewards([f"steps@{file}:shortness:0.5", f"late=gains@{file}:shortness"])
    judged = reward.judge(["q"], ["ab\nc"])
    assert list(reward.parts) == ["shortness", "late"]
    assert judged.spans == [(Span(0, 3, 1.5), Span(3, 4, 2.0), Span(0, 3, 3.0), Span(3, 4, 1.0))]
    assert judged.parts == {"shortness": [7.0], "late": [4.0]}
    models = parse_rewards(
        "steps@org/model", load_model=lambda name: lambda prompts, completions, **columns: [1.0] * len(completions)
    )
    assert models.judge(["q"], ["a\nb"]).scores == [2.0]


def test_functions_of_modules_and_of_packages() -> None:
    assert load_function("backflip.rewards.steps:step_ends")("a") == [(0, 1)]
    with pytest.raises(ConfigError, match="the module 'no_such_module' cannot be imported: ModuleNotFoundError"):
        load_function("no_such_module:f")
    with pytest.raises(ConfigError, match=r"backflip.rewards.steps has no function 'step_end'; is 'step_ends' meant\?"):
        load_function("backflip.rewards.steps:step_end")


def test_one_name_twice_is_told_apart() -> None:
    reward = parse_rewards(["repetition(n=2)", "repetition(n=3)", "repetition", "format"])
    assert list(reward.parts) == ["repetition", "repetition_2", "repetition_3", "format"]


def test_a_single_spec_needs_no_list() -> None:
    for spec in ("overlong(max_length=4, cache=2)", {"reward": "overlong", "max_length": 4, "cache": 2}):
        [(function, weight)] = parse_rewards(spec).parts.values()
        assert isinstance(function, Overlong)
        assert (function.max_length, function.cache, weight) == (4, 2, 1.0)


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"code"}))  # code needs a sandbox and has its own tests
def test_every_built_in_reward_works_by_its_name(name: str) -> None:
    needs = {"overlong": "(max_length=8, cache=2)", "length": "(limit=8)"}
    reward = parse_rewards([name + needs.get(name, ""), "repetition:0"])
    scores = reward(["q"], ["<think>so 2 + 3 = 5 it is</think><answer>5</answer>"], answer=["5"], completion_ids=[[1, 2]])
    assert scores == [{"overlong": 0.0, "length": -0.25, "repetition": 0.0}.get(name, 1.0)]
    calls.check_signature(reward.parts[name][0], name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", r"there is no reward 'maths'; is 'math' meant\? \(built in: math, number"),
        ("nothing like it", "there is no reward 'nothing like it' "),
        ("", "names no reward"),
        (":0.5", "there is no|names no reward|cannot be imported"),
        ("overlong", r"reward 'overlong': missing a required argument: 'max_length'; its options are max_length, cache, unit"),
        ("length(size=3)", r"reward 'length': .*'limit'; its options are limit, unit"),
        (
            "format(softly=True)",
            r"reward 'format': got an unexpected keyword argument 'softly'; its options are tags, soft, opened",
        ),
        ("length(limit=0)", "at least 1, not 0"),
        ("length(3)", r"the options of 'length\(3\)' should read \(name=value"),
        ("length(limit=x)", "should read"),
        ("length(limit=", "there is no reward"),
        ("length(**{'limit': 3})", "should read"),
        ("length(limit='x')", "cannot be made of .*TypeError"),
        ("no/such/file.py:f", "there is no file no/such/file.py to take a reward function from"),
        ("org/model", "'org/model' names a reward model, which cannot be loaded here"),
        ({"weight": 1}, "should name a reward"),
        ({"reward": "math", "weight": "much"}, "should name a reward"),
        ({"reward": "math", "weight": float("nan")}, "is a finite number, not nan"),
    ],
)
def test_mistakes_say_what_to_do(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rewards([spec])


def test_mistakes_in_a_file(file: Path) -> None:
    for spec, message in {
        "shortnes": r"has no function 'shortnes'; is 'shortness' meant\?",
        "zzz": "has no function 'zzz'$",
        "value": "is int, not a function",
        "wrong": r"has the signature \(texts\)",
        "fails(limit=1)": "cannot be made of {'limit': 1}: ValueError: no",
        "shortness(limit=1)": "missing a required argument: 'prompts'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            parse_rewards([f"{file}:{spec}"])
    broken = file.with_name("broken.py")
    broken.write_text("def f(:\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken.py cannot be run: SyntaxError: .*line 1"):
        parse_rewards([f"{broken}:f"])
    broken.write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be run: ModuleNotFoundError"):
        parse_rewards([f"{broken}:f"])


def test_the_page_tells_every_reward_with_its_options() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    table = {row.split("|")[1].strip(" `"): row for row in page.splitlines() if row.startswith("| `")}
    assert set(table) == set(BUILT_IN)
    for name, factory in BUILT_IN.items():
        untold = [option for option in inspect.signature(factory).parameters if f"`{option}" not in table[name]]
        assert untold == ([] if name != "code" else ["sandbox"]), f"{name}: {untold}"
        assert hasattr(factory, "low")
        assert hasattr(factory, "high")


def test_no_rewards_and_options_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rewards are named"):
        parse_rewards([])
    with pytest.raises(ConfigError, match="which takes no options"):
        parse_rewards(["org/model(x=1)"], load_model=lambda name: lambda prompts, completions, **columns: [0.0])


def test_a_file_is_run_once_and_its_rewards_can_be_sent_away(file: Path) -> None:
    one, two = parse_rewards([f"{file}:make(limit=4)", f"{file}:make(limit=5)"]).parts.values()
    assert type(one[0]) is type(two[0])
    assert pickle.loads(pickle.dumps(one[0])) == one[0]
    assert type(one[0]).__module__ in sys.modules
    assert isinstance(parse_rewards(["number"]), Weighted)


@given(st.text(alphabet="math:().=,0.5 /'x-", max_size=20))
def test_no_spec_is_too_strange(spec: str) -> None:
    with contextlib.suppress(BackflipError):
        assert parse_spec(spec).what
