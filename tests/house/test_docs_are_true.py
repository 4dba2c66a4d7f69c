"""docs/ppo.md, docs/dpo.md and docs/metrics.md against the code: settings, defaults, metrics and tests, and none missing."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from backflip.algorithms import GRPO, RLOO
from backflip.config import leaves
from backflip.records import Comparison
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import SFT, Direct, Online, Optim, Reward, Watch

REPOSITORY = Path(__file__).resolve().parents[2]
PPO_PAGE = (REPOSITORY / "docs" / "ppo.md").read_text(encoding="utf-8")
DPO_PAGE = (REPOSITORY / "docs" / "dpo.md").read_text(encoding="utf-8")
METRICS_PAGE = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
DETAILS_TEST = REPOSITORY / "tests" / "train" / "test_details.py"


def section(page: str, title: str) -> str:
    """The text under the second-level heading that starts with `title`."""
    [found] = re.findall(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, headings and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if "`" in row[0] or row[0].isdigit()]


def names(text: str) -> list[str]:
    """The name in backticks that starts each row."""
    return [row[0].strip("`") for row in rows(text)]


def plain(value: Any) -> Any:
    """A default as the page's reader has it."""
    return list(value) if isinstance(value, tuple) else None if value == "none" else value


def read(text: str) -> Any:
    """A default as the page has it."""
    return None if text == "none" else yaml.safe_load(text)


DEFAULTS = {leaf.dotted: plain(leaf.default) for leaf in leaves(Online)}
DEFAULTS |= {f"reward.{leaf.dotted}": plain(leaf.default) for leaf in leaves(Reward)}


@pytest.mark.parametrize(("page", "settings"), [(PPO_PAGE, Online), (DPO_PAGE, Direct)], ids=["ppo", "dpo"])
def test_every_setting_is_explained_with_its_default(page: str, settings: type) -> None:
    table = {row[0].strip("`"): row for row in rows(section(page, "Every setting"))}
    defaults = {leaf.dotted: plain(leaf.default) for leaf in leaves(settings)}
    assert list(table) == list(defaults)
    for name, row in table.items():
        assert read(row[1]) == defaults[name], name
        assert row[2].endswith("."), f"{name} has no sentence"


def test_every_detail_names_settings_with_their_defaults_and_a_test_that_is_there() -> None:
    details = rows(section(PPO_PAGE, "The 21 details"))
    assert [int(row[0]) for row in details] == list(range(1, 22))
    tree = ast.parse(DETAILS_TEST.read_text(encoding="utf-8"))
    listed = {
        call.args[0].value: ast.unparse(call.args[1])
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Detail" and isinstance(call.args[0], ast.Constant)
    }
    for number, _, settings, _, test in details:
        assert listed[int(number)] == test.strip("`")
        pairs = re.findall(r"`([\w.]+)` = ([^,`]+?)(?=, `|$)", settings)
        assert settings.count("`") == 2 * len(pairs)
        for name, value in pairs:
            assert read(value) == DEFAULTS[name], f"detail {number}: {name}"


def test_every_name_in_backticks_is_a_setting_a_metric_or_stands_in_the_source() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "src").rglob("*.py"))
    known = (
        set(DEFAULTS)
        | {leaf.dotted for leaf in leaves(Direct)}
        | {f"watch.{leaf.dotted}" for leaf in leaves(Watch)}
        | set(re.findall(r"[\w/]+", source + DETAILS_TEST.read_text(encoding="utf-8")))
    )
    for page in (PPO_PAGE, DPO_PAGE, METRICS_PAGE):
        for name in re.findall(r"`([a-z_]+(?:[./][a-z_]+)*)`", page):
            assert name in known or (REPOSITORY / name).exists() or (REPOSITORY / "src/backflip" / name).exists() or (
                name.endswith(".jsonl") and name in source
            ), name  # fmt: skip


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What tiny runs of the four loops write, by section of docs/metrics.md."""
    from tests.tiny_models import PROMPTS, TEXTS, small_ppo, tiny, vowels

    from backflip.envs.guessing import GuessingGame, games
    from backflip.monitor import Monitor
    from backflip.rewards.learned import RewardModel
    from backflip.rewards.weighted import Weighted
    from backflip.train.direct import direct
    from backflip.train.guarding import Watching
    from backflip.train.online import improve
    from backflip.train.reward import fit_reward
    from backflip.train.sft import encode_texts, sft

    folder = tmp_path_factory.mktemp("docs")
    policy = tiny()
    settings = small_ppo(steps=1)
    with Run.open(folder / "ppo", kind="ppo", settings=settings, quiet=True) as run:
        improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), gold=vowels, sentinel=vowels)
    grouped = dataclasses.replace(
        settings, num_generations=2, ppo_epochs=1, advantage_estimator="grpo", critic="none", whiten_rewards=False,
        kl_in="loss", kl_estimator="k3",
    )  # fmt: skip
    with Run.open(folder / "grpo", kind="grpo", settings=grouped, quiet=True) as run:
        improve(policy, PROMPTS, vowels, grouped, run, seeds=Seeds(0))
    trust = dataclasses.replace(settings, policy_loss="trpo")
    with Run.open(folder / "trpo", kind="trpo", settings=trust, quiet=True) as run:
        improve(policy, PROMPTS, vowels, trust, run, seeds=Seeds(0))
    mixed = dataclasses.replace(grouped, max_draws=2, ptx_coef=1.0)
    tune = SFT(max_length=32, log_every=1, max_steps=1)
    with Run.open(folder / "mixed", kind="ptx", settings=mixed, quiet=True) as run:
        texts = encode_texts(policy, TEXTS, tune)
        improve(policy, PROMPTS, Weighted({"NAME": (vowels, 1.0)}), mixed, run, seeds=Seeds(0), pretraining=texts)
    masked = dataclasses.replace(grouped, mask_top_p=0.9)
    with Run.open(folder / "masked", kind="nlpo", settings=masked, quiet=True) as run:
        improve(
            policy, games(4, Seeds(0), high=3), None, masked, run, seeds=Seeds(0), environment=lambda: GuessingGame(guesses=1)
        )
    remax = dataclasses.replace(grouped, advantage_estimator="remax")
    with Run.open(folder / "remax", kind="remax", settings=remax, quiet=True) as run:
        improve(policy, PROMPTS, vowels, remax, run, seeds=Seeds(0))
    with Run.open(folder / "watched", kind="ppo", settings=settings, quiet=True) as run:
        judges = {"model": RewardModel.from_policy(policy, seeds=Seeds(0))}
        guard = Monitor(Watch(every=1, questions=2), lambda queries: [1.0] * len(queries))
        watching = Watching(guard=guard, prompts=PROMPTS, every=1, judges=judges)
        improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), watching=watching)
    fit = Reward(batch_size=2, max_length=32, log_every=1, optim=Optim(learning_rate=1e-4))
    comparisons = [Comparison(p, "a", "b", p_left=1.0) for p in PROMPTS]
    with Run.open(folder / "reward", kind="reward", settings=fit, quiet=True) as run:
        fit_reward(RewardModel.from_policy(policy, seeds=Seeds(0)), comparisons, fit, run, seeds=Seeds(0))
    prefer = Direct(batch_size=2, max_length=32, log_every=1, sample_prompts=0)
    with Run.open(folder / "dpo", kind="dpo", settings=prefer, quiet=True) as run:
        direct(tiny(), comparisons, prefer, run, seeds=Seeds(0))
    with Run.open(folder / "sft", kind="sft", settings=tune, quiet=True) as run:
        sft(policy, encode_texts(policy, TEXTS, tune), tune, run, seeds=Seeds(0))
    files = {
        "PPO": [folder / name / "metrics.jsonl" for name in ("ppo", "grpo", "trpo", "mixed", "masked", "remax")],
        "Reward model": [folder / "reward" / "metrics.jsonl"],
        "Direct preferences": [folder / "dpo" / "metrics.jsonl"],
        "Fine-tuning": [folder / "sft" / "metrics.jsonl"],
        "Timings of PPO": [folder / "ppo" / "timings.jsonl"],
    }
    found = {title: {name for path in paths for name in read_lines(path)[0]} - {"step"} for title, paths in files.items()}
    watched = {name for name in read_lines(folder / "watched" / "metrics.jsonl")[0] if name.startswith("guard/")}
    return found | {"Watching": watched}


@pytest.mark.parametrize("title", ["PPO", "Watching", "Reward model", "Direct preferences", "Fine-tuning", "Timings of PPO"])
def test_every_metric_is_explained_and_every_explained_metric_is_logged(title: str, logged: dict[str, set[str]]) -> None:
    explained = names(section(METRICS_PAGE, title))
    assert len(explained) == len(set(explained))
    assert set(explained) == logged[title]
    assert all(row[-1].endswith(".") for row in rows(section(METRICS_PAGE, title)))


def test_a_false_page_is_noticed() -> None:
    page = "## A\n\n| x | y |\n|---|---|\n| `one` | 1.0e-05 |\n| `two` | [0.9, 0.999] |\n\n## B\n\n| `three` | none |\n"
    assert names(section(page, "A")) == ["one", "two"]
    assert [read(row[1]) for row in rows(section(page, "A"))] == [1e-5, [0.9, 0.999]]
    assert rows(section(page, "B")) == [["`three`", "none"]]
    assert read("none") is None
    with pytest.raises(ValueError, match="unpack"):
        section(page, "C")


def test_the_presets_are_told_as_they_are() -> None:
    page = (REPOSITORY / "docs" / "grpo.md").read_text(encoding="utf-8")
    table = {row[0].strip("`"): row[1:] for row in rows(section(page, "The presets"))}
    differing = {}
    for i, preset in enumerate((GRPO, RLOO)):
        found = {leaf.dotted: plain(leaf.default) for leaf in leaves(Online, preset)}
        differing |= {name: None for name, value in found.items() if value != DEFAULTS[name]}
        assert {name: read(cells[i]) for name, cells in table.items()} == {name: found[name] for name in table}
    assert {name: read(cells[2]) for name, cells in table.items()} == {name: DEFAULTS[name] for name in table}
    assert set(table) == set(differing)
