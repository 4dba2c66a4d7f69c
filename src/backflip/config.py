"""Typed run settings: frozen dataclasses ⇄ YAML ⇄ command-line flags.

A settings class is a keyword-only dataclass whose fields are made by `setting`, each with its sentence of help and
its bounds. The same class reads a YAML file, makes the flags, prints `--help`, checks values and names the nearest
field when a key is unknown.

>>> @dataclass(frozen=True, kw_only=True)
... class Toy:
...     lr: float = setting(0.1, "Step size.", above=0)
>>> from_dict(Toy, {"lr": "1e-3"}).lr
0.001
>>> from_dict(Toy, {"l": 1})
Traceback (most recent call last):
    ...
backflip.errors.ConfigError: unknown setting 'l'; did you mean 'lr'?
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from backflip.errors import ConfigError

T = TypeVar("T")
_REQUIRED: Any = dataclasses.MISSING


def setting(
    default: Any = _REQUIRED,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> Any:
    """A field of a settings class: its default, the sentence that explains it, and the bounds it must keep."""
    metadata = {"help": help, "at_least": at_least, "at_most": at_most, "above": above}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nested(cls: type[T], **defaults: Any) -> T:
    """A field that is itself a settings class, with other defaults where given."""
    return dataclasses.field(default_factory=lambda: cls(**defaults))


@dataclass(frozen=True)
class Leaf:
    """One setting as the command line and the documentation see it."""

    path: tuple[str, ...]
    type: Any
    help: str
    default: Any

    @property
    def dotted(self) -> str:
        """Its name in full, as in `ppo.kl_coef`."""
        return ".".join(self.path)


def leaves(cls: type, defaults: Any = None, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of `cls`, nested ones included, in the order written."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], default, (*path, field.name))
        else:
            yield Leaf((*path, field.name), hints[field.name], field.metadata.get("help", ""), default)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def unknown(name: str, known: list[str], what: str = "setting") -> ConfigError:
    """The error for a name nobody knows, with the nearest one that exists."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1], known, n=1, cutoff=0.4
    )
    hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(sorted(known))
    return ConfigError(f"unknown {what} {name!r}; {hint}")


def from_dict(cls: type[T], values: Mapping[str, Any], *, base: T | None = None, where: str = "") -> T:
    """Build `cls` from nested plain values on top of `base` (default: its defaults); check everything.

    Raises ConfigError naming the setting, the value and what would be right.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the settings'}: expected 'name: value' lines, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    made: dict[str, Any] = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key not in fields:
            raise unknown(where + str(name), [where + k for k in fields])
        if dataclasses.is_dataclass(hints[key]):
            inner = getattr(base, key) if base is not None else _default(fields[key])
            made[key] = from_dict(hints[key], value, base=inner, where=f"{where}{key}.")
        else:
            made[key] = _coerce(value, hints[key], where + key)
            _check_bounds(made[key], fields[key].metadata, where + key)
    missing = [
        where + f.name
        for f in fields.values()
        if f.name not in made and base is None and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"setting {missing[0]!r} has no default; give it as --{_flag(missing[0])} or in the settings file")
    return dataclasses.replace(base, **made) if base is not None else cls(**made)  # type: ignore[type-var]


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as nested plain values, ready for YAML or JSON."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for f in dataclasses.fields(settings)
        for value in [getattr(settings, f.name)]
    }


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it is missing or malformed, with the line."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"settings file {path} cannot be read: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        mark = getattr(problem, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(
            f"settings file {path}{at} is not valid YAML: {getattr(problem, 'problem', None) or problem}"
        ) from problem
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"settings file {path} should hold 'name: value' lines, not a {type(values).__name__}")
    return values


def to_yaml(settings: Any) -> str:
    """Settings as the text of a YAML file that `read_yaml` and `from_dict` turn back into the same settings."""
    import yaml

    return yaml.safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """One line for every setting that differs: `ppo.kl_coef: 0.1 → 0.2`."""
    lines: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{where}{key}.")
        elif a != b:
            lines.append(f"{where}{key}: {a!r} → {b!r}")
    return lines


def add_flags(parser: argparse.ArgumentParser, cls: type, defaults: Any = None) -> None:
    """One flag for every setting of `cls`, and `--config FILE`.

    A flag may be written in full (`--ppo.kl-coef`) or, where only one setting ends in that name, short (`--kl-coef`).
    """
    parser.add_argument("--config", metavar="FILE.yaml", help="Read settings from this file; flags win over it.")
    found = list(leaves(cls, defaults))
    ends = [leaf.path[-1] for leaf in found]
    groups: dict[str, Any] = {}
    for leaf in found:
        section = ".".join(leaf.path[:-1])
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings" if section else "settings")
        names = ["--" + _flag(leaf.dotted)]
        if len(leaf.path) > 1 and ends.count(leaf.path[-1]) == 1:
            names.insert(0, "--" + _flag(leaf.path[-1]))
        names += [n.replace("-", "_").replace("__", "--", 1) for n in names if "-" in n[2:]]
        shown = "" if leaf.default is None else f" [{leaf.default}]"
        groups[section].add_argument(
            *names,
            dest=leaf.dotted,
            default=argparse.SUPPRESS,
            metavar=_type_name(leaf.type),
            help=(leaf.help + shown).replace("%", "%%"),
        )


def from_flags(cls: type[T], args: argparse.Namespace, *, base: T | None = None) -> T:
    """The settings that `base`, then `--config`, then the flags give."""
    values: dict[str, Any] = read_yaml(args.config) if getattr(args, "config", None) else {}
    for leaf in leaves(cls):
        if leaf.dotted in vars(args):
            place = values
            for part in leaf.path[:-1]:
                place = place.setdefault(part, {})
            place[leaf.path[-1]] = vars(args)[leaf.dotted]
    return from_dict(cls, values, base=base)


def _flag(dotted: str) -> str:
    return dotted.replace("_", "-")


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    if isinstance(kind, types.UnionType):
        return _type_name(next(k for k in typing.get_args(kind) if k is not type(None)))
    if typing.get_origin(kind) is tuple:
        return "A,B,…"
    return {int: "N", float: "X", str: "TEXT", bool: "yes|no"}.get(kind, "VALUE")


def _coerce(value: Any, kind: Any, name: str) -> Any:
    """`value` as the declared type; text from flags and YAML's `1e-5` become numbers."""
    if isinstance(kind, types.UnionType):
        options = typing.get_args(kind)
        absent = value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))
        if absent and type(None) in options:
            return None
        for option in options:
            if option is not type(None):
                return _coerce(value, option, name)
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        if value in options:
            return value
        raise ConfigError(f"setting {name!r} is one of {', '.join(map(str, options))}, not {value!r}")
    if typing.get_origin(kind) is tuple:
        parts = (value.split(",") if value else []) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ConfigError(f"setting {name!r} needs a list, not {value!r}")
        return tuple(_coerce(p, typing.get_args(kind)[0], name) for p in parts)
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise ConfigError(f"setting {name!r} needs yes or no, not {value!r}")
    if kind is str:
        if isinstance(value, str):
            return value
        raise ConfigError(f"setting {name!r} needs text, not {value!r}")
    wanted = "a whole number" if kind is int else "a number"
    try:
        number = float(value)
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"setting {name!r} needs {wanted}, not {value!r}") from problem
    if isinstance(value, bool) or not math.isfinite(number) or (kind is int and number != int(number)):
        raise ConfigError(f"setting {name!r} needs {wanted}, not {value!r}")
    return int(number) if kind is int else number


def _check_bounds(value: Any, bounds: Mapping[str, Any], name: str) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        if bounds.get("at_least") is not None and number < bounds["at_least"]:
            raise ConfigError(f"setting {name!r} must be at least {bounds['at_least']}, not {number}")
        if bounds.get("at_most") is not None and number > bounds["at_most"]:
            raise ConfigError(f"setting {name!r} must be at most {bounds['at_most']}, not {number}")
        if bounds.get("above") is not None and number <= bounds["above"]:
            raise ConfigError(f"setting {name!r} must be above {bounds['above']}, not {number}")
