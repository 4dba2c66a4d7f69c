"""No setting stands in the help that nothing reads."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "backflip"
DECLARED = ("settings.py", "job_settings.py")


def fields(source: str) -> set[str]:
    """`Class.field` of every field that `setting` or `nested` makes in a module's classes."""
    return {
        f"{node.name}.{item.target.id}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None
    }


def attributes_read(source: str) -> set[str]:
    """The names after a dot that a module reads (setting one, `x.name = …`, is not reading it)."""
    return {
        node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_setting_is_read_somewhere() -> None:
    read = set().union(
        *(
            attributes_read(path.read_text(encoding="utf-8"))
            for path in PACKAGE.rglob("*.py")
            if path.name not in (*DECLARED, "algorithms.py", "config.py")
        )
    )
    declared = set().union(*(fields((PACKAGE / name).read_text(encoding="utf-8")) for name in DECLARED))
    assert declared, "no settings found"
    unread = sorted(name for name in declared if name.split(".")[1] not in read)
    assert not unread, "\n".join(unread)


def test_an_unread_setting_is_noticed() -> None:
    declared = fields("class Toy:\n    lr: float = setting(0.1)\n    beta: float = setting(0.2)\n    n: Inner = nested(Inner)\n")
    read = attributes_read("def step(s):\n    s.beta = 1\n    return s.lr * s.n.size + beta\n")
    assert declared == {"Toy.lr", "Toy.beta", "Toy.n"}
    assert {name for name in declared if name.split(".")[1] not in read} == {"Toy.beta"}
