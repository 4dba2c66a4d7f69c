"""The rules that are compared: each reads the looks of a run in order, never gold, and says where it stops and what it keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backflip.lab.guard_settings import ASKING, Settings
from backflip.monitor import Monitor
from backflip.monitor.asking import Ask
from backflip.monitor.signals import Floats, quality, scale_of
from backflip.runs.watching import Look
from backflip.settings import Watch


class Stop(NamedTuple):
    """The look after which a rule stops, None where it lets the run end; and the one whose policy it keeps."""

    at: int | None
    keeps: int


Rule = Callable[[Sequence[Look]], Stop]


def nothing(looks: Sequence[Look]) -> Stop:
    """No guard: the last policy."""
    return Stop(None, len(looks) - 1)


def by_kl(budget: float) -> Rule:
    """Stop at the first look whose mean KL is above the budget and keep the one before it."""

    def rule(looks: Sequence[Look]) -> Stop:
        for i, look in enumerate(looks):
            if float(np.mean(look.kl)) > budget:
                return Stop(i, max(0, i - 1))
        return nothing(looks)

    return rule


def patient(opinion: Callable[[Sequence[Look], int], float], patience: int) -> Rule:
    """Stop when an opinion of the looks has not risen for so many of them, and keep the best."""

    def rule(looks: Sequence[Look]) -> Stop:
        best, where = -np.inf, 0
        for i in range(len(looks)):
            value = opinion(looks, i)
            if value > best:
                best, where = value, i
            elif i - where >= patience:
                return Stop(i, where)
        return nothing(looks)

    return rule


def proxy_opinion(looks: Sequence[Look], i: int) -> float:
    """The mean of what is optimised."""
    return float(np.mean(looks[i].proxy))


def ensemble_opinion(penalty: float) -> Callable[[Sequence[Look], int], float]:
    """Mean less `penalty` standard deviations of proxy and judges of labels, in the scales of the first look (Coste et al.)."""

    def opinion(looks: Sequence[Look], i: int) -> float:
        models: list[Floats] = [scale_of(looks[0].proxy).of(looks[i].proxy)]
        models += [scale_of(looks[0].judges[name]).of(scores) for name, scores in looks[i].judges.items() if "judge" in name]
        return float(quality(models, penalty).mean())

    return opinion


def monitor(settings: Watch, judges: Sequence[str] | None = None, ask: Ask | None = None) -> Rule:
    """What a monitor would have done, with all judges or with some of them, or with somebody to `ask` at each look."""

    def rule(looks: Sequence[Look]) -> Stop:
        watcher, steps = Monitor(settings, ask), [look.step for look in looks]
        for i, look in enumerate(looks):
            chosen = look.judges if judges is None else {name: look.judges[name] for name in judges}
            ruling = watcher.look(dataclasses.replace(look, judges=chosen))
            if ruling.act == "stop":
                return Stop(i, steps.index(ruling.best))
        return nothing(looks)

    return rule


def alarms(settings: Settings, looks: Sequence[Look]) -> dict[str, int]:
    """The look at which each alarm of the monitor with taught judges was first raised, where nobody stops the run."""
    watcher = Monitor(dataclasses.replace(settings.watch, pause=False))
    first: dict[str, int] = {}
    for i, look in enumerate(looks):
        taught = {name: scores for name, scores in look.judges.items() if name.startswith("taught")}
        for finding in watcher.look(dataclasses.replace(look, judges=taught)).findings:
            first.setdefault(finding.kind, i)
    return first


def rules(settings: Settings, ask: Ask) -> dict[str, Rule]:
    """Every rule by name, as they stand in the table; `ask` puts fresh questions to people."""

    def named(kind: str) -> list[str]:
        return [f"{kind} {k}" for k in range(settings.judges)]

    watch = dataclasses.replace(settings.watch, pause=False)
    return {
        "no guard": nothing,
        "fixed KL stop": by_kl(settings.kl_stop),
        "proxy-only patience": patient(proxy_opinion, settings.patience),
        "ensemble penalty": patient(ensemble_opinion(settings.penalty), settings.patience),
        "monitor, one judge": monitor(watch, ["judge 0"]),
        "monitor, judges of labels alone": monitor(watch, named("judge")),
        "monitor": monitor(watch, named("taught")),
        ASKING: monitor(dataclasses.replace(watch, questions=settings.questions), named("taught"), ask),
    }  # fmt: skip
