"""Rewards by name, for the command line and YAML.

    math                            one of `BUILT_IN`, weight 1
    format:0.1                      with a weight
    overlong(max_length=1024, cache=128):0.5                 with options
    shortness.py:shortness:-0.01    a function in a file
    my_package.rewards:tone         a function in a module
    shortness.py:make(limit=40)     a function that makes a reward, called with the options
    runs/reward/model:0.5           a folder or hub name of a learned reward model
    steps@runs/reward/model:0.5     any of these at the end of every line; gains@… what each line adds
    brief=length(limit=200):0.1     under a name of its own
    {reward: overlong, weight: 0.5, max_length: 1024, cache: 128}          the same as a mapping

A plain table and one function: nothing registers itself.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from backflip.errors import BackflipError, ConfigError
from backflip.rewards.calls import AnyReward, check_signature
from backflip.rewards.code import UnitTests
from backflip.rewards.form import TagFormat
from backflip.rewards.language import LanguageConsistency
from backflip.rewards.lengths import LengthPenalty, Overlong, Repetition
from backflip.rewards.maths import MathAnswer, NumberAnswer
from backflip.rewards.steps import Calculations, StepRewards
from backflip.rewards.weighted import Weighted

BUILT_IN: dict[str, Callable[..., AnyReward]] = {
    "math": MathAnswer,
    "number": NumberAnswer,
    "format": TagFormat,
    "language": LanguageConsistency,
    "overlong": Overlong,
    "length": LengthPenalty,
    "repetition": Repetition,
    "calculations": Calculations,
    "code": UnitTests,
}
_WEIGHT = re.compile(r"(?P<rest>.+):(?P<weight>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_NAMED = re.compile(r"(?P<name>[A-Za-z_][\w-]*)=(?P<rest>[^=].*)", re.DOTALL)
_INSIDE = re.compile(r"(?P<how>steps|gains)@(?P<rest>.+)", re.DOTALL)
_OPTIONS = re.compile(r"(?P<rest>[^()]+)\((?P<options>.*)\)", re.DOTALL)

Spec = str | Mapping[str, Any]


class Named(NamedTuple):
    """A reward as it was asked for: its name in the log, what it is, the options (None: no parentheses) and the weight."""

    name: str
    what: str
    options: dict[str, Any] | None
    weight: float


def parse_rewards(specs: Sequence[Spec] | Spec, *, load_model: Callable[[str], AnyReward] | None = None) -> Weighted:
    """The weighted sum of rewards given by name.

    `load_model` reads a learned reward model from a folder or hub name. Two rewards of one name become NAME and NAME_2. Raises
    ConfigError naming the spec: an unknown name (with the nearest one), wrong options, a file or function that is not there.
    """
    several = [specs] if isinstance(specs, str | Mapping) else list(specs)
    if not several:
        raise ConfigError(
            f"no rewards are named; choose among {', '.join(BUILT_IN)}, file.py:function, or a reward model's folder"
        )
    parts: dict[str, tuple[AnyReward, float]] = {}
    for asked in map(parse_spec, several):
        taken = [name for name in parts if re.fullmatch(rf"{re.escape(asked.name)}(_[0-9]+)?", name)]
        name = f"{asked.name}_{len(taken) + 1}" if taken else asked.name
        parts[name] = (find_reward(asked, load_model), asked.weight)
    return Weighted(parts)


def parse_spec(spec: Spec) -> Named:
    """What a spec asks for, nothing looked up yet. Raises ConfigError.

    >>> parse_spec("overlong(max_length=64, cache=8):0.5")
    Named(name='overlong', what='overlong', options={'max_length': 64, 'cache': 8}, weight=0.5)
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    rest, weight, name, options = spec.strip(), 1.0, "", None
    if weighted := _WEIGHT.fullmatch(rest):
        rest, weight = weighted["rest"].strip(), float(weighted["weight"])
    if named := _NAMED.fullmatch(rest):
        name, rest = named["name"], named["rest"].strip()
    if called := _OPTIONS.fullmatch(rest):
        rest, options = called["rest"].strip(), _options(called["options"], spec)
    if not rest:
        raise ConfigError(f"{spec!r} names no reward; write NAME, NAME:WEIGHT or NAME(option=value):WEIGHT")
    return Named(name or _short(rest), rest, options, weight)


def find_reward(asked: Named, load_model: Callable[[str], AnyReward] | None = None) -> AnyReward:
    """The reward that is asked for: a built-in one, a function of a file or module, or a learned model. Raises ConfigError."""
    what = asked.what
    if inside := _INSIDE.fullmatch(what):
        whole = find_reward(asked._replace(what=inside["rest"]), load_model)
        return StepRewards(whole, gain=inside["how"] == "gains")
    if what in BUILT_IN:
        return _make(BUILT_IN[what], asked.options or {}, what)
    if ":" in what:
        function = load_function(what)
        if asked.options is None:
            check_signature(function, what)
            return function  # type: ignore[no-any-return]
        return _make(function, asked.options, what)
    if Path(what).is_dir() or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", what):
        if load_model is None or asked.options:
            raise ConfigError(
                f"{what!r} names a reward model, which " + ("cannot be loaded here" if not asked.options else "takes no options")
            )
        return load_model(what)
    near = difflib.get_close_matches(what, BUILT_IN, n=1, cutoff=0.6)
    hint = f"; is {near[0]!r} meant?" if near else ""
    raise ConfigError(
        f"there is no reward {what!r}{hint} (built in: {', '.join(BUILT_IN)}; or file.py:function, module:function, "
        "or the folder of a reward model)"
    )


def load_function(name: str) -> Any:
    """The function "file.py:function" or "module:function". Raises ConfigError: no such file, module or function, or it fails."""
    where, _, function = name.rpartition(":")
    module = _file(Path(where)) if where.endswith(".py") else _module(where)
    if not hasattr(module, function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(function, own, n=1, cutoff=0.6)
        raise ConfigError(f"{where} has no function {function!r}" + (f"; is {near[0]!r} meant?" if near else ""))
    return getattr(module, function)


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path} to take a reward function from")
    place = str(path.resolve())
    name = f"backflip_reward_{path.stem}_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be run: {type(problem).__name__}: {problem}") from problem
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as problem:
        raise ConfigError(f"the module {name!r} cannot be imported: {type(problem).__name__}: {problem}") from problem


def _make(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> AnyReward:
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as problem:
        known = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ConfigError(f"reward {what!r}: {problem}; its options are {known}") from problem
    try:
        made = factory(**options)
    except BackflipError:
        raise
    except Exception as problem:
        raise ConfigError(f"reward {what!r} cannot be made of {dict(options)}: {type(problem).__name__}: {problem}") from problem
    check_signature(made, what)
    return made  # type: ignore[no-any-return]


def _options(text: str, spec: Spec) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not of the form name=value")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as problem:
        raise ConfigError(f"the options of {spec!r} should read (name=value, …), with text in quotes: {problem}") from problem


def _from_mapping(spec: Mapping[str, Any]) -> Named:
    what, weight = spec.get("reward"), spec.get("weight", 1.0)
    if not isinstance(what, str) or isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"{dict(spec)} should name a reward and may give a weight: {{reward: format, weight: 0.1}}")
    options = {str(name): value for name, value in spec.items() if name not in ("reward", "weight", "name")}
    return Named(str(spec.get("name") or _short(what)), what, options or None, float(weight))


def _short(what: str) -> str:
    """The name in the log: the function's, or the last part of a path."""
    what = what.removeprefix("steps@").removeprefix("gains@")
    return what.rpartition(":")[2] if ":" in what else what.rstrip("/").rpartition("/")[2]
