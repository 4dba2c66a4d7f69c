"""The whole loop in ten lines of Python: ask, fit_reward, improve, rate; sft before them, and dpo in place of two of them.

Every function that trains leaves the policy it was given as it was, works in a run folder (a temporary one unless
`output` names it), and goes on where it was when the same call is made again after an interruption.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from backflip.algorithms import GRPO, RLOO, algorithm_settings
from backflip.arena import Standings, add_matches, standings
from backflip.config import from_dict, leaves, to_dict, unknown
from backflip.envs.naming import find_environment
from backflip.envs.text import MakeEnvironment
from backflip.errors import ConfigError, UserError
from backflip.feedback.labelers import Labeler, answer_all
from backflip.feedback.queries import pair_queries
from backflip.feedback.readers import read_prompts
from backflip.jobs import Result, kind_of, read_reward_data, read_sft_data, run_dpo, run_online, run_reward, run_sft
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt, Query, content_id
from backflip.rewards.ensemble import Ensemble
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.runs.report import write_report
from backflip.seeds import Seeds
from backflip.settings import SFT, Direct, Online, Reward, Sampling
from backflip.store import Store
from backflip.train.arithmetic import fast_matmul
from backflip.train.comparisons import RewardReport
from backflip.train.sft import encode_demonstrations, encode_texts

T = TypeVar("T")
Prompts = str | Path | Sequence[str | Prompt | Sequence[Mapping[str, str]] | Mapping[str, Any]]
"""Prompts as text, records, lists of messages or rows with a `prompt`; or the file they stand in."""
ANSWERS = Sampling(temperature=1.0, max_new_tokens=64)


@dataclass(frozen=True)
class Trained:
    """What `sft`, `improve` and `dpo` give back: the trained policy, the run's last figures, and the run's folder."""

    policy: LanguagePolicy
    metrics: Mapping[str, Any]
    folder: Path


class FittedReward(RewardModel):
    """A reward model and how it fared on comparisons it had not seen."""

    report: RewardReport


class FittedEnsemble(Ensemble):
    """An ensemble of reward models and how it fared on comparisons it had not seen."""

    report: RewardReport


def ask(
    store: Store, policy: LanguagePolicy, prompts: Prompts, n: int = 200, labeler: Labeler | None = None, *,
    seed: int = 0, **sampling: Any,
) -> list[Query]:  # fmt: skip
    """File `n` questions, each a pair of the policy's completions of one prompt, and return them.

    `labeler` (such as an `Oracle`) answers them at once; without one they wait in the store for `backflip label`. A
    pair that came out the same twice is not asked. `sampling` overrides temperature 1 and 64 new tokens.
    """
    given, seeds = as_prompts(prompts), Seeds(seed).child("ask", policy.name)
    order = seeds.permutation(len(given), "prompts")
    chosen = [given[order[i % len(given)]] for i in range(n)]
    samples = generate_samples(policy, chosen, n=2, seeds=seeds, settings=_settings(Sampling, sampling, ANSWERS))
    queries = pair_queries(samples, seeds=seeds)
    store.add_queries(queries)
    if labeler is not None:
        answer_all(store, labeler, queries)
    return queries


def fit_reward(
    policy: LanguagePolicy, comparisons: Sequence[Comparison], output: str | Path | None = None, *, seed: int = 0,
    quiet: bool = False, **settings: Any,
) -> FittedReward | FittedEnsemble:  # fmt: skip
    """A reward model whose body starts as the policy's, fitted to comparisons; `.report` says how good it is.

    `settings` are those of `settings.Reward` by name, such as `epochs=2`; with `members=5` it is an ensemble.
    """
    made, found, seeds = _settings(Reward, settings), list(comparisons), Seeds(seed)
    data = {"policy": policy.name, "comparisons": content_id(*(c.to_json() for c in found))}

    def work(run: Run) -> Result:
        return run_reward(policy, found, made, ANSWERS, run, seeds)

    folder, result = _run("reward", output, data | {"seed": seed, "train": to_dict(made)}, work, quiet)
    cls = FittedReward if made.ensemble.members == 1 else FittedEnsemble
    model = cls.load(folder / "model", device=str(policy.device))
    model.report = RewardReport(**{name: result[name] for name in RewardReport._fields})
    return model


def improve(
    policy: LanguagePolicy, prompts: Prompts, reward: RewardFunction | None, settings: Online | None = None,
    output: str | Path | None = None, *, environment: str | MakeEnvironment | None = None, gold: RewardFunction | None = None,
    sentinel: RewardFunction | None = None, pretraining: Sequence[str] = (), seed: int = 0, quiet: bool = False,
) -> Trained:  # fmt: skip
    """Improve a copy of `policy` against `reward`, any function f(prompts, completions, **columns) → list of floats.

    With an `environment`, its name such as "calculator" or what makes one for an episode, a completion takes several turns and
    earns what the environment pays, and `reward` may be None. `settings` come from `ppo(…)`, `grpo(…)`, `rloo(…)` or
    `algorithm(NAME, …)`; `gold`, where the truth is known, and `sentinel`, a reward model of other comparisons, are measured
    beside the reward, never learned from; `pretraining` are texts that `ptx_coef` mixes in.
    """
    made, given, seeds = settings or Online(), as_prompts(prompts), Seeds(seed)
    kind = kind_of(made)
    better = _copy(policy, f"{policy.name}+{kind}")
    data = {"policy": policy.name, "prompts": content_id(*(p.id for p in given))}
    if environment is not None:
        data["environment"] = environment if isinstance(environment, str) else getattr(environment, "__name__", "environment")
    make = find_environment(environment) if isinstance(environment, str) else environment
    examples = encode_texts(better, pretraining, SFT()) if pretraining else []

    def work(run: Run) -> Result:
        return run_online(
            better, given, reward, made, run, seeds, gold, pretraining=examples, environment=make, sentinel=sentinel
        )

    return _trained(kind, better, output, data | {"seed": seed, "train": to_dict(made)}, work, quiet)


def dpo(
    policy: LanguagePolicy, comparisons: str | Path | Store | Sequence[Comparison], output: str | Path | None = None, *,
    seed: int = 0, quiet: bool = False, **settings: Any,
) -> Trained:  # fmt: skip
    """Improve a copy of `policy` on comparisons directly: no reward model, no sampling (Rafailov et al. 2023).

    `comparisons` may be a store, or the file they stand in. `settings` are those of `settings.Direct` by name, such as
    `beta=0.5` or `loss="ipo"`. `.metrics` say how often the policy's implicit reward is right on questions kept aside.
    """
    made, found, seeds = _settings(Direct, settings), _comparisons(comparisons), Seeds(seed)
    better = _copy(policy, f"{policy.name}+dpo")
    data = {"policy": policy.name, "comparisons": content_id(*(c.to_json() for c in found))}

    def work(run: Run) -> Result:
        return run_dpo(better, found, made, run, seeds)

    return _trained("dpo", better, output, data | {"seed": seed, "train": to_dict(made)}, work, quiet)


def sft(
    policy: LanguagePolicy, data: str | Path | Sequence[tuple[Any, str] | str], output: str | Path | None = None, *,
    seed: int = 0, quiet: bool = False, **settings: Any,
) -> Trained:  # fmt: skip
    """Fine-tune a copy of `policy` on (prompt, completion) pairs, or go on pretraining it on plain texts.

    `data` may be the file they stand in. `settings` are those of `settings.SFT` by name, such as `learning_rate=1e-4`.
    """
    made, seeds = _settings(SFT, settings), Seeds(seed)
    texts, rows = _sft_rows(data)
    better = _copy(policy, f"{policy.name}+sft")
    examples = encode_texts(better, texts, made) if texts else encode_demonstrations(better, rows, made)
    digest = content_id(texts, *([prompt.id, completion] for prompt, completion in rows))

    def work(run: Run) -> Result:
        return run_sft(better, examples, made, run, seeds)

    named = {"policy": policy.name, "data": digest, "seed": seed, "train": to_dict(made)}
    return _trained("sft", better, output, named, work, quiet)


def ppo(**overrides: Any) -> Online:
    """Settings for `improve`: those of `settings.Online` by name, nested ones too.

    >>> ppo(kl_target=6.0, max_new_tokens=48).sampling.max_new_tokens
    48

    Raises ConfigError for a name nobody knows, with the nearest one, and for a value out of range.
    """
    return _settings(Online, overrides)


def grpo(**overrides: Any) -> Online:
    """Settings for `improve` that make it GRPO (`algorithms.GRPO`), changed by name as in `ppo`."""
    return _settings(Online, overrides, GRPO)


def rloo(**overrides: Any) -> Online:
    """Settings for `improve` that make it RLOO (`algorithms.RLOO`), changed by name as in `ppo`."""
    return _settings(Online, overrides, RLOO)


def algorithm(name: str, **overrides: Any) -> Online:
    """Settings for `improve` with the numbers of an algorithm (`algorithms.ALGORITHMS`), changed by name as in `ppo`.

    >>> algorithm("dapo", max_new_tokens=64, overlong_buffer=16).cliprange_high
    0.28

    Raises ConfigError for a name nobody knows, with the nearest one.
    """
    return _settings(Online, overrides, algorithm_settings(name))


def rate(
    policies: Sequence[LanguagePolicy], store: Store, prompts: Prompts | None = None, labeler: Labeler | None = None, *,
    anchor: str | None = None, seed: int = 0, **sampling: Any,
) -> Standings:  # fmt: skip
    """Ratings with intervals of everybody who ever played in `store`; print them to see a table.

    With `prompts` the `policies` first answer each of them once, and every pair of answers becomes a blind match, which
    `labeler` judges at once or people do later with `backflip label`. `anchor` names the policy that stands at 1000.
    """
    seeds = Seeds(seed)
    names = [policy.name for policy in policies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two policies are called {twice[0]!r}; give one another name: load_policy(…, name=…)")
    if prompts is not None:
        given, settings = as_prompts(prompts), _settings(Sampling, sampling, ANSWERS)
        written = {
            policy.name: [
                group[0]
                for group in generate_samples(policy, given, n=1, seeds=seeds.child("arena", policy.name), settings=settings)
            ]
            for policy in policies
        }
        matches = add_matches(store, written, seeds=seeds.child("arena"))
        if labeler is not None:
            answer_all(store, labeler, matches.queries)
    return standings(store, seeds=seeds, anchor=anchor)


def as_prompts(prompts: Prompts) -> list[Prompt]:
    """Prompts as records, whatever form they come in. Raises UserError when there are none."""
    if isinstance(prompts, str | Path):
        return read_prompts(prompts)
    made = [_prompt(given) for given in prompts]
    if not made:
        raise UserError("there are no prompts; give at least one")
    return made


def _prompt(given: Any) -> Prompt:
    if isinstance(given, Prompt):
        return given
    columns: dict[str, Any] = {}
    if isinstance(given, Mapping) and "prompt" in given:
        columns = {name: value for name, value in given.items() if name != "prompt"}
        given = given["prompt"]
    try:
        return Prompt(given if isinstance(given, str) else tuple(given), columns)
    except TypeError as problem:
        raise UserError(
            f"a prompt is text, a Prompt, a list of messages or a row with 'prompt', not {str(given)[:60]!r}"
        ) from problem


def _comparisons(given: str | Path | Store | Sequence[Comparison]) -> list[Comparison]:
    if isinstance(given, Store):
        return given.comparisons()
    return read_reward_data(str(given)) if isinstance(given, str | Path) else list(given)


def _sft_rows(data: Any) -> tuple[list[str], list[tuple[Prompt, str]]]:
    """Raw texts or demonstrations; one of the two lists is empty."""
    if isinstance(data, str | Path):
        return read_sft_data(str(data))
    rows = list(data)
    if all(isinstance(row, str) for row in rows):
        return rows, []
    if any(isinstance(row, str) for row in rows):
        raise UserError("the data mixes plain texts and (prompt, completion) pairs; give one kind")
    return [], [(_prompt(prompt), completion) for prompt, completion in rows]


def _settings(cls: type[T], overrides: Mapping[str, Any], base: T | None = None) -> T:
    """`cls` with settings changed by name, those of its parts included. Raises ConfigError."""
    paths = {leaf.path[-1]: leaf.path for leaf in leaves(cls)}
    several = [leaf.path for leaf in leaves(cls) if paths[leaf.path[-1]] != leaf.path]
    parts = {path[0] for path in paths.values() if len(path) > 1}
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name in parts:
            values.setdefault(name, {}).update(to_dict(value) if is_dataclass(value) else value)
            continue
        if name not in paths:
            raise unknown(name, [*paths, *parts])
        if twin := next((path for path in several if path[-1] == name), None):
            raise ConfigError(
                f"there are two settings called {name!r}, of {'.'.join(twin[:-1])} and of {'.'.join(paths[name][:-1])}; "
                f"write {twin[-2]}={{{name!r}: …}}"
            )
        place = values
        for part in paths[name][:-1]:
            place = place.setdefault(part, {})
        place[name] = value
    return from_dict(cls, values, base=base)


def _run(
    kind: str, output: str | Path | None, settings: Mapping[str, Any], work: Callable[[Run], Result], quiet: bool
) -> tuple[Path, Result]:
    """Do the work in its run folder unless it is done; the folder and the result."""
    folder = Path(tempfile.mkdtemp(prefix=f"backflip-{kind}-") if output is None else output)
    with Run.open(folder, kind=kind, settings=settings, quiet=quiet) as run:
        if not run.finished:
            with fast_matmul(run):
                run.finish(work(run))
        if not (folder / "report.html").exists():
            write_report(folder)
        return folder, run.result


def _trained(
    kind: str, policy: LanguagePolicy, output: str | Path | None, settings: Mapping[str, Any],
    work: Callable[[Run], Result], quiet: bool,
) -> Trained:  # fmt: skip
    """Do the work on `policy`; where it was done before, take up what it left in `output`."""
    done = output is not None and (Path(output) / "result.json").exists()
    folder, result = _run(kind, output, settings, work, quiet)
    if done:
        policy = load_policy(folder / "model", name=policy.name, device=str(policy.device))
    return Trained(policy, result, folder)


def _copy(policy: LanguagePolicy, name: str) -> LanguagePolicy:
    return LanguagePolicy(copy.deepcopy(policy.model), policy.tokenizer, name=name)
