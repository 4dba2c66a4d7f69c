"""`backflip arena`, with two tiny fakes where models would be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from backflip.cli import arena
from backflip.cli.parser import Parser
from backflip.errors import ConfigError, StorageError, UserError
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.seeds import Seeds
from backflip.store import Store


def command(*argv: object) -> int:
    parser = Parser("backflip arena", arena.HELP)
    arena.add_arguments(parser)
    return arena.run(parser.read([str(word) for word in argv]))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Policies that write their own name, and a list of (name, sampling settings) as they are used."""
    used: list[tuple[str, object]] = []

    def load_policy(path: str, *, name: str) -> str:
        return name

    def generate_samples(policy: str, prompts: list[Prompt], *, n: int, seeds: Seeds, settings: object) -> list[list[Sample]]:
        used.append((policy, settings))
        return [[Sample(p, "same" if p.text == "p0" else f"{policy}: {p.text}", policy=policy)] * n for p in prompts]

    for room, function in (("policies", load_policy), ("rollout", generate_samples)):
        module = ModuleType(f"backflip.{room}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, f"backflip.{room}", module)
    return used


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(5)))
    return path


def test_adds_blind_matches_then_shows_standings(
    models: list[tuple[str, object]], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_path = tmp_path / "feedback.db"
    given = ("--policies", "runs/sft", "better=runs/ppo", "--prompts", prompts, "--temperature", "0.5")
    assert command(store_path, *given) == 0
    said = capsys.readouterr().out
    assert "4 blind matches in the store; 1 more had identical texts" in said
    assert [(name, s.temperature, s.max_new_tokens) for name, s in models] == [("sft", 0.5, 128), ("better", 0.5, 128)]
    with Store(store_path) as store:
        for query in store.unanswered("ann", "arena"):
            side = "left" if query.policies[0] == "better" else "right"
            store.add_verdicts([Verdict(query.id, "ann", side)])
    assert command(store_path, "--anchor", "sft", "--resamples", 50) == 0
    said = capsys.readouterr().out
    assert [word in said for word in ("Ratings", "better", "1000", "90% [", "n=5")] == [True] * 5
    assert said.index("better") < said.index("sft")


def test_ask_opens_the_labeler_first(
    models: list[tuple[str, object]], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    label = ModuleType("backflip.cli.label")
    label.HELP = "Answer."  # type: ignore[attr-defined]
    label.add_arguments = lambda parser: parser.add_argument("store")  # type: ignore[attr-defined]
    label.run = lambda args: asked.append(args.store) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "backflip.cli.label", label)
    store_path = tmp_path / "feedback.db"
    assert command(store_path, "--policies", "a", "b", "--prompts", prompts, "--ask") == 3
    assert asked == [str(store_path)]


def test_standings_survive_markup_in_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "feedback.db") as store:
        query = Query(Prompt("p"), ("x", "y"), policies=("[red]", "b"), purpose="arena")
        store.add_queries([query])
        store.add_verdicts([Verdict(query.id, "ann", "left")])
    assert command(tmp_path / "feedback.db") == 0
    said = capsys.readouterr().out
    assert "[red]" in said
    assert "undefeated" in said


def test_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path / "feedback.db").close()
    assert command(tmp_path / "feedback.db") == 0
    assert capsys.readouterr().out == "note: no matches yet\n"


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    store = tmp_path / "feedback.db"
    with pytest.raises(StorageError):
        command(tmp_path / "absent.db")
    with pytest.raises(UserError, match="go together"):
        command(store, "--policies", "a", "b")
    with pytest.raises(UserError, match="at least 1"):
        command(store, "--resamples", 0)
    with pytest.raises(ConfigError, match="did you mean '--anchor'"):
        command(store, "--ancor", "a")


def test_names_of_policies() -> None:
    assert arena.policy_names(["runs/sft", "runs/ppo/"]) == {"sft": "runs/sft", "ppo": "runs/ppo/"}
    assert list(arena.policy_names(["one/policy", "two/policy", "base=hub/x=y"])) == [
        "one/policy",
        "two/policy",
        "base",
    ]
    assert arena.policy_names(["runs/lr=1/a", "b"]) == {"a": "runs/lr=1/a", "b": "b"}
    with pytest.raises(UserError, match="at least two"):
        arena.policy_names(["runs/sft"])
    with pytest.raises(UserError, match="two policies are called 'x'"):
        arena.policy_names(["x=a", "x=b"])
    with pytest.raises(UserError, match="two policies are called"):
        arena.policy_names(["runs/a", "runs/a"])
