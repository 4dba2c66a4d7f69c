"""What a look means: each rule compares it with the first look and the best one, prompt by prompt, and says so with its numbers.

A rule raises nothing that noise explains: what it compares must be beyond its limit by `limits.SIGMAS` standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backflip.maths.sequential import Difference, luck, paired
from backflip.maths.shares import Share, wilson_share
from backflip.monitor import limits
from backflip.monitor.asking import Votes
from backflip.monitor.features import Attribution
from backflip.monitor.seen import Columns
from backflip.runs import limits as page
from backflip.runs.watching import Act, Finding, Look

KINDS: dict[str, tuple[Act, str]] = {
    "falling": ("stop", "The judges' opinion has fallen from its best, beyond noise and by more than is tolerated."),
    "kl-budget": ("stop", "The policy is further from its reference than the budget allows."),
    "losing": ("stop", "People prefer an older policy to this one."),
    "labels": ("pause", "The reward model is no better than a coin on the newest labels."),
    "entropy": ("pause", "The policy hardly varies any more."),
    "unsupported": ("mine", "Since the best look the proxy rose and the judges' opinion did not."),
    "exploited": ("mine", "The proxy pays for features that the judges do not pay for."),
    "disagreement": ("mine", "Reward models disagree about what the policy writes now."),
    "outlying": ("mine", "What the policy writes now is unlike anything it wrote at first."),
    "boilerplate": ("mine", "The policy says the same thing to everybody."),
    "repetition": ("mine", "Texts repeat themselves more than at first."),
    "length": ("warn", "Texts became much longer or shorter."),
    "unfinished": ("warn", "More texts than at first have no end."),
    "language": ("warn", "Texts are in another script than at first."),
}
"""Every alarm: what it asks for and what it says."""


@dataclass(frozen=True)
class Situation:
    """What the rules look at: this look, the first and the best as columns, single numbers, and what features were paid for."""

    look: Look
    now: Columns
    first: Columns
    best: Columns
    best_step: int
    figures: Mapping[str, float]
    first_figures: Mapping[str, float]
    attributions: Sequence[Attribution]
    evidence: float
    threshold: float
    tolerance: float
    kl_stop: float | None
    far: float
    heard: Votes | None = None

    def since(self, name: str, then: Columns) -> Difference:
        """How a column differs from an earlier look's, prompt by prompt."""
        return paired(self.now[name], then[name])


def shortfall(now: Columns, best: Columns, first: Columns, tolerance: float, looks: int) -> float:
    """By how many standard errors the judges' opinion is below the best look's by more than is tolerated; negative above it.

        z = (mean(best − now) − tolerance·(mean best − mean first)) / SE(best − now) − √(ln looks)

    Losing a little of what was gained is no harm, and the best of many looks was a lucky one (`maths.sequential.luck`): otherwise
    a policy that stands still would seem to fall.
    """
    lost = paired(best["quality"], now["quality"])
    gained = max(0.0, float(best["quality"].mean() - first["quality"].mean()))
    return Difference(lost.mean - tolerance * gained, lost.error).z - luck(looks)


def found(s: Situation) -> Iterator[Finding]:
    """Every alarm of a look."""
    for rule in _RULES:
        yield from rule(s)


def _finding(s: Situation, kind: str, sentence: str, evidence: Mapping[str, Any]) -> Finding:
    act = KINDS[kind][0]
    return Finding(kind, s.look.step, act, sentence, evidence, s.best_step if act == "stop" else None)


def _of(difference: Difference) -> dict[str, float]:
    return {"change": difference.mean, "standard error": difference.error}


def _falling(s: Situation) -> Iterator[Finding]:
    if s.heard is None and "quality" in s.now and s.evidence > s.threshold:
        lost, proxy = s.since("quality", s.best), s.since("proxy", s.best)
        yield _finding(
            s, "falling",
            f"since step {s.best_step} the judges' opinion fell by {-lost.mean:.2f} ± {lost.error:.2f} standard deviations and "
            f"the proxy changed by {proxy.mean:+.2f}",
            {"quality": _of(lost), "proxy": _of(proxy), "evidence": s.evidence, "threshold": s.threshold},
        )  # fmt: skip


def _outvoted(s: Situation) -> Iterator[Finding]:
    if s.heard is not None and s.evidence > s.threshold:
        wins = s.heard.wins
        assert wins.value is not None, "there is no evidence without answers"
        yield _finding(
            s, "losing",
            f"for several looks the policy of step {s.best_step} was preferred; of {wins.n} fresh questions this one won "
            f"{wins.value:.0%}",
            {"wins": _share(wins), "evidence": s.evidence, "threshold": s.threshold},
        )  # fmt: skip


def _kl_budget(s: Situation) -> Iterator[Finding]:
    if s.kl_stop is None:
        return
    zeros = s.now["kl"] * 0.0
    kl = paired(s.now["kl"], zeros)
    if kl.mean - limits.SIGMAS * kl.error > s.kl_stop:
        yield _finding(
            s, "kl-budget", f"the policy is {kl.mean:.1f} nats a sequence from its reference; the budget is {s.kl_stop:g}",
            {"kl": {"mean": kl.mean, "standard error": kl.error}, "budget": s.kl_stop},
        )  # fmt: skip


def _unsupported(s: Situation) -> Iterator[Finding]:
    if "quality" not in s.now or s.look.step == s.best_step:
        return
    proxy, judged = s.since("proxy", s.best), s.since("quality", s.best)
    if proxy.z > limits.SIGMAS and judged.mean + limits.SIGMAS * judged.error < proxy.mean:
        yield _finding(
            s, "unsupported",
            f"since step {s.best_step} the proxy rose by {proxy.mean:.2f} standard deviations and the judges' opinion by "
            f"{judged.mean:.2f}",
            {"proxy": _of(proxy), "quality": _of(judged)},
        )  # fmt: skip


def _exploited(s: Situation) -> Iterator[Finding]:
    if "quality" not in s.now:
        return
    gap = paired(s.now["proxy"] - s.now["quality"], s.first["proxy"] - s.first["quality"])
    worst = [a for a in s.attributions if a.excess > limits.EXCESS]
    if worst and gap.z > limits.SIGMAS:
        names = ", ".join(
            f"{a.feature} ({a.before:.2f} → {a.now:.2f}, proxy {a.proxy:+.2f}, judges {a.judges:+.2f})" for a in worst[:3]
        )
        yield _finding(
            s, "exploited", f"the proxy pays for what the judges do not: {names}",
            {"gap": _of(gap), "features": {a.feature: a.excess for a in worst}},
        )  # fmt: skip


def _disagreement(s: Situation) -> Iterator[Finding]:
    was = float(s.first["disagreement"].mean())
    change = paired(s.now["disagreement"], limits.DISAGREE * s.first["disagreement"])
    if was > 0 and change.z > limits.SIGMAS:
        now = float(s.now["disagreement"].mean())
        yield _finding(
            s, "disagreement", f"reward models differ by {now:.2f} standard deviations about a text; at first it was {was:.2f}",
            {"disagreement": {"now": now, "at first": was}},
        )  # fmt: skip


def _outlying(s: Situation) -> Iterator[Finding]:
    if "distance" not in s.now:
        return
    far = wilson_share(float((s.now["distance"] > s.far).sum()), len(s.now["distance"]))
    if far.low is not None and far.value is not None and far.low > limits.OUTLYING:
        yield _finding(
            s, "outlying", f"{far.value:.0%} of the texts lie further out than 99 % of the first did", {"share": _share(far)}
        )  # fmt: skip


def _boilerplate(s: Situation) -> Iterator[Finding]:
    was, n = s.first_figures["guard/boilerplate"], len(s.look.completions)
    now = wilson_share(s.figures["guard/boilerplate"] * n, n)
    if now.low is not None and now.value is not None and now.low > was + limits.BOILERPLATE:
        yield _finding(
            s, "boilerplate", f"{now.value:.0%} of the texts hold the same four words; at first it was {was:.0%}",
            {"share": _share(now) | {"at first": was}},
        )  # fmt: skip


def _rise(kind: str, column: str, limit: float, what: str) -> Callable[[Situation], Iterator[Finding]]:
    def rule(s: Situation) -> Iterator[Finding]:
        change = s.since(column, s.first)
        if change.mean - limits.SIGMAS * change.error > limit:
            now, was = float(s.now[column].mean()), float(s.first[column].mean())
            yield _finding(s, kind, f"{now:.0%} {what}; at first it was {was:.0%}", {column: _of(change) | {"at first": was}})

    return rule


def _length(s: Situation) -> Iterator[Finding]:
    then = s.first["length"]
    longer = paired(s.now["length"], (1 + page.LENGTH_CHANGE) * then).z > limits.SIGMAS
    shorter = paired(s.now["length"], (1 - page.LENGTH_CHANGE) * then).z < -limits.SIGMAS
    if longer or shorter:
        now, was = float(s.now["length"].mean()), float(then.mean())
        yield _finding(
            s, "length", f"texts are {now:.1f} tokens long and were {was:.1f} at first", {"length": {"now": now, "at first": was}}
        )  # fmt: skip


def _entropy(s: Situation) -> Iterator[Finding]:
    was, now = s.first_figures["guard/entropy"], s.figures["guard/entropy"]
    if was > 0 and now < page.ENTROPY_GONE * was:
        yield _finding(
            s, "entropy", f"the entropy is {now:.3f} nats a token and was {was:.3f}: all its samples are nearly the same",
            {"entropy": {"now": now, "at first": was}},
        )  # fmt: skip


def _language(s: Situation) -> Iterator[Finding]:
    drift = s.figures["guard/language_drift"]
    if drift > limits.DRIFT:
        yield _finding(s, "language", f"{drift:.0%} of the words are in another script than at first", {"drift": drift})


def labels(step: int, right: Share) -> Iterator[Finding]:
    """Whether the reward model is any better than a coin on the newest labels."""
    if right.value is not None and right.low is not None and right.n >= limits.LABELS and right.low <= limits.COIN:
        yield Finding(
            "labels", step, KINDS["labels"][0],
            f"the reward model is right on {right.value:.0%} of the {right.n} newest labels, as a coin could be: fit it to them",
            {"accuracy": _share(right)},
        )  # fmt: skip


def losing(step: int, wins: Share, best: int | None) -> Iterator[Finding]:
    """Whether people prefer the older policy; `best` is the step to go back to, None where it is no step of this run."""
    if wins.value is not None and wins.high is not None and wins.high < limits.COIN:
        yield Finding(
            "losing", step, KINDS["losing"][0],
            f"people prefer the policy of step {step} in {wins.value:.0%} of {wins.n} comparisons with an older one",
            {"wins": _share(wins)}, best,
        )  # fmt: skip


def _share(share: Share) -> dict[str, Any]:
    return {"value": share.value, "low": share.low, "high": share.high, "n": share.n}


_RULES: tuple[Callable[[Situation], Iterator[Finding]], ...] = (
    _falling, _outvoted, _kl_budget, _entropy, _unsupported, _exploited, _disagreement, _outlying, _boilerplate,
    _rise("repetition", "repeated", page.REPEATED_RISE, "of what the texts say repeats itself"),
    _rise("unfinished", "unfinished", page.UNFINISHED_RISE, "of the texts have no end"),
    _length, _language,
)  # fmt: skip
