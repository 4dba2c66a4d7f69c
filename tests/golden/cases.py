"""From the name of a case to the function of `backflip.maths` it is about, and the comparison.

The numbers in a name (clip ranges, γ, λ, β, …) are read from it, so any file of this format can be checked. A file
is `{"inputs": {name: list}, "cases": {case: {output: value} or list}}`; text inside a case is a note, or names an
input to use in place of the usual one. `grad` is with respect to the case's first input, `grad_<input>` to that one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from backflip.maths import advantages, kl, policy_losses, preference, returns, tensors

TOLERANCE = 1e-9
# Files print 12 significant digits, so a number above 200 may be off by more than the tolerance in print alone.
PRINTED = 5e-12
NUMBER = r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"


class GoldenFileError(Exception):
    """The file is missing or is not of the golden format."""


@dataclass
class Outcome:
    """One case: its largest absolute error, and why it failed (empty: it passed)."""

    name: str
    error: float
    problem: str = ""


class Inputs:
    """The tensors of a file in float64, by name; each access within one case gives the same leaf."""

    def __init__(self, raw: dict[str, Any], case: Any) -> None:
        self._raw = {**raw, **(case if isinstance(case, dict) else {})}
        self._leaves: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._leaves:
            value = self._raw.get(name)
            if isinstance(value, str):
                return self[value]
            if value is None:
                raise ValueError(f"the file has no input {name!r}")
            if name == "index":
                names = {group: place for place, group in enumerate(dict.fromkeys(value))}
                self._leaves[name] = torch.tensor([names[group] for group in value])
            else:
                self._leaves[name] = torch.tensor(value, dtype=torch.float64).requires_grad_(name != "mask")
        return self._leaves[name]

    def named(self, role: str, otherwise: str) -> Tensor:
        """The input that the case names for `role`, or the usual one."""
        return self[role if isinstance(self._raw.get(role), str) else otherwise]


@dataclass
class Result:
    """What a function gave: outputs by name, and the input that a plain `grad` is taken to."""

    outputs: dict[str, Tensor]
    first: Tensor | None = None


def _gae(x: Inputs, kind: str, reward: str, gamma: str, lam: str) -> Result:
    rewards = x["token_reward"] + x["dense_reward"] if reward == "dense" else x["token_reward"]
    found = returns.gae(rewards, x["value"], x["mask"], gamma=float(gamma), lam=float(lam))
    white = kind == "_whitened"
    shown = tensors.whiten(found.advantages_BT, x["mask"], unbiased=True) if white else found.advantages_BT
    return Result({"advantages": shown, "returns": found.returns_BT})


def _whiten(x: Inputs, keep_mean: str | None) -> Result:
    return Result({"": tensors.whiten(x["dense_reward"], x["mask"], shift_mean=keep_mean is None, unbiased=True)})


def _grouped(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Inputs], Result]:
    return lambda x: Result({"": advantages.per_token(function(x["score"], x["index"]), x["mask"])})


def _reinforce_plus_plus(x: Inputs) -> Result:
    return Result({"": advantages.reinforce_plus_plus(x["token_reward"], x["mask"])})


def _reinforce_plus_plus_baseline(x: Inputs) -> Result:
    return Result({"": advantages.reinforce_plus_plus_baseline(x["score"], x["index"], x["mask"])})


def _remax(x: Inputs) -> Result:
    return Result({"advantages": advantages.remax(x["token_reward"], x["baseline"], x["mask"])})


def _grpo_advantages(x: Inputs) -> Tensor:
    return advantages.per_token(advantages.group_normalized(x["score"], x["index"]), x["mask"])


def _policy(function: Callable[..., policy_losses.PolicyLoss], **names: int) -> Callable[..., Result]:
    """A policy loss whose settings stand in the case's name; `names` says which group of the pattern each one is."""

    def case(x: Inputs, *groups: str) -> Result:
        settings = {name: float(groups[place]) for name, place in names.items()}
        scale = settings.pop("scale", 1.0)
        averaging: Any = groups[-1]
        found = function(
            x["logprob"],
            x["old_logprob"],
            scale * _grpo_advantages(x),
            x["mask"],
            averaging=averaging,
            denominator=tensors.denominator(x["mask"], averaging, norm_length=x["mask"].shape[1]),
            **settings,
        )
        return Result({**found._asdict(), "approx_kl_k3": found.approx_kl}, x["logprob"])

    return case


def _reinforce(x: Inputs, averaging: Any) -> Result:
    total = tensors.denominator(x["mask"], averaging, norm_length=x["mask"].shape[1])
    found = policy_losses.reinforce(x["logprob"], _grpo_advantages(x), x["mask"], averaging=averaging, denominator=total)
    return Result(found._asdict(), x["logprob"])


def _value(x: Inputs, clip: str, averaging: Any) -> Result:
    found = policy_losses.value_loss(
        x["new_value"],
        x["value"],
        x["value"] + _grpo_advantages(x),
        x["mask"],
        clip=None if clip == "none" else float(clip),
        averaging=averaging,
        denominator=tensors.denominator(x["mask"], averaging, norm_length=x["mask"].shape[1]),
    )
    return Result(found._asdict(), x["new_value"])


def _kl(x: Inputs, kind: Any) -> Result:
    return Result({"": kl.kl_penalty(x["logprob"], x["ref_logprob"], kind)}, x["logprob"])


def _direct(x: Inputs, kind: str, smoothing: str | None, beta: str) -> Result:
    logps = [x[name] for name in ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")]
    if kind == "cdpo":
        found = preference.cdpo(*logps, beta=float(beta), label_smoothing=float(smoothing or 0.0))
    else:
        found = {"dpo": preference.dpo, "ipo": preference.ipo}[kind](*logps, beta=float(beta))
    outputs = {"chosen_rewards": found.chosen_rewards_N, "rejected_rewards": found.rejected_rewards_N}
    return Result({"loss": found.loss, "accuracy": found.accuracy, **outputs}, logps[0])


def _bradley_terry(x: Inputs, margin: str | None) -> Result:
    chosen, rejected = x.named("chosen", "policy_chosen"), x.named("rejected", "policy_rejected")
    found = preference.bradley_terry(chosen, rejected, margin_N=x["margin"] if margin else None)
    return Result({"loss": found.loss, "accuracy": found.accuracy}, chosen)


_MODE = "(" + "|".join(get_args(tensors.Averaging)) + ")"
PATTERNS: list[tuple[str, Callable[..., Result]]] = [
    (rf"gae(_whitened|)/(sparse|dense)/gamma={NUMBER}/lam={NUMBER}", _gae),
    (r"whiten(_keep_mean)?", _whiten),
    (r"advantage/grpo", _grouped(advantages.group_normalized)),
    (r"advantage/dr_grpo", _grouped(advantages.group_centered)),
    (r"advantage/rloo", _grouped(advantages.rloo)),
    (r"advantage/reinforce_plus_plus", _reinforce_plus_plus),
    (r"advantage/reinforce_plus_plus_baseline", _reinforce_plus_plus_baseline),
    (r"advantage/remax", _remax),
    (rf"policy_loss/ppo_clip/clip{NUMBER}/{_MODE}", _policy(policy_losses.ppo_clip, clip_low=0, clip_high=0)),
    (
        rf"policy_loss/ppo_clip/clip_higher_{NUMBER}_{NUMBER}/{_MODE}",
        _policy(policy_losses.ppo_clip, clip_low=0, clip_high=1),
    ),
    (rf"policy_loss/ppo_dual_clip_{NUMBER}/{_MODE}", _policy(policy_losses.ppo_clip, dual_clip=0)),
    (
        rf"policy_loss/ppo_dual_clip_{NUMBER}_adv_x{NUMBER}/{_MODE}",
        _policy(policy_losses.ppo_clip, dual_clip=0, scale=1),
    ),
    (rf"policy_loss/cispo_{NUMBER}_{NUMBER}/{_MODE}", _policy(policy_losses.cispo, clip_low=0, clip_high=1)),
    (rf"policy_loss/gspo_{NUMBER}_{NUMBER}/{_MODE}", _policy(policy_losses.gspo, clip_low=0, clip_high=1)),
    (rf"policy_loss/sapo_tau{NUMBER}_{NUMBER}/{_MODE}", _policy(policy_losses.sapo, tau_positive=0, tau_negative=1)),
    (rf"policy_loss/reinforce/{_MODE}", _reinforce),
    (rf"value_loss/clip(none|{NUMBER[1:-1]})/{_MODE}", _value),
    (r"kl/(k1|k2|k3|k3\+|abs)", _kl),
    (rf"preference_loss/(dpo|ipo|cdpo)(?:_ls{NUMBER})?_beta{NUMBER}", _direct),
    (r"reward_loss/bradley_terry(_margin)?", _bradley_terry),
]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and cases of a golden file. Raises GoldenFileError with one sentence."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise GoldenFileError(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise GoldenFileError(f"{path} is not valid JSON: {problem}") from problem
    inputs, cases = (content.get(key) if isinstance(content, dict) else None for key in ("inputs", "cases"))
    if not isinstance(inputs, dict) or not isinstance(cases, dict) or not cases:
        raise GoldenFileError(f"{path} is not a golden file: it needs the objects 'inputs' and 'cases', with a case")
    return inputs, cases


def check_all(inputs: dict[str, Any], cases: dict[str, Any]) -> Iterator[Outcome]:
    """Every case in turn; one that no pattern knows, or that cannot be computed, is a failure and not an exception."""
    for name, expected in cases.items():
        try:
            yield _check(name, Inputs(inputs, expected), expected)
        except (ValueError, TypeError, RuntimeError, IndexError) as problem:
            yield Outcome(name, float("inf"), str(problem).splitlines()[0])


def _check(name: str, x: Inputs, expected: Any) -> Outcome:
    call = _find(name)
    if call is None:
        return Outcome(name, float("inf"), "backflip.maths has no function for it")
    result = call(x)
    wanted = expected if isinstance(expected, dict) else {"": expected}
    numbers = {key: value for key, value in wanted.items() if not isinstance(value, str) and key != "baseline"}
    if not numbers:
        return Outcome(name, float("inf"), "the case expects nothing")
    worst, problems = 0.0, []
    for key, value in numbers.items():
        target = torch.tensor(value, dtype=torch.float64)
        found = _output(result, x, key).detach()
        if found.shape != target.shape:
            return Outcome(name, float("inf"), f"{key} has shape {tuple(found.shape)}, not {tuple(target.shape)}")
        error_of = (found - target).abs()
        error = float(error_of.max())
        worst = max(worst, error) if error == error else float("inf")
        if not bool((error_of <= (PRINTED * target.abs()).clamp(min=TOLERANCE)).all()):
            problems.append(f"{key or 'the value'} is off by {error:.3g}")
    return Outcome(name, worst, "; ".join(problems))


def _find(name: str) -> Callable[[Inputs], Result] | None:
    """The function that the name calls, with the settings in the name filled in."""
    for pattern, function in PATTERNS:
        match = re.fullmatch(pattern, name)
        if match:
            return functools.partial(_call, function, match.groups())
    return None


def _call(function: Callable[..., Result], settings: tuple[str | None, ...], x: Inputs) -> Result:
    return function(x, *settings)


def _output(result: Result, x: Inputs, key: str) -> Tensor:
    if key in result.outputs:
        return result.outputs[key]
    if key == "grad" or key.startswith("grad_"):
        loss = result.outputs.get("loss")
        leaf = result.first if key == "grad" else x[key.removeprefix("grad_")]
        if loss is None or leaf is None:
            raise ValueError(f"there is no loss to take {key!r} of")
        (grad,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
        return torch.zeros_like(leaf) if grad is None else grad
    raise ValueError(f"nothing computes {key!r}")
