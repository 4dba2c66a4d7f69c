"""What in a run's numbers a person should look at, each with the sentence and the figures that say why.

Alarms are a function of the rows a loop logs, of its settings and of some samples: the same rows give the same alarms. They
speak of how the run stands at its last row. But for a number that is not finite and a reward that leaps, no alarm rests on a
single point: the whole interval of a mean or a trend must be beyond the limit (see `trends`). Each limit is a name with its
reason in `limits`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from backflip.runs import limits
from backflip.runs.catalogue import RunCard
from backflip.runs.logs import as_number
from backflip.runs.tail import read_all
from backflip.runs.trends import TREND_AT_LEAST, Estimate, mean, spread_of, trend

KINDS = {
    "overoptimised": "The proxy rises while gold or the sentinel, which nobody optimises, is flat or falls.",
    "kl-budget": "The policy is further from its reference than the adaptive controller's target allows.",
    "kl-negative": "The measured KL is below zero beyond noise.",
    "length": "Texts became much longer or shorter.",
    "entropy": "The policy hardly varies any more.",
    "unfinished": "More texts than before have no end.",
    "repetition": "Texts repeat themselves more than before.",
    "equal-groups": "The answers to a prompt mostly score the same, so nothing is learned from them.",
    "clipping": "Many tokens are clipped.",
    "ratio": "Updates move the policy too far from the one that sampled.",
    "value-loss": "The value loss explodes.",
    "reward-outliers": "A few texts have enormous rewards.",
    "not-finite": "A metric is NaN or infinite.",
    "silent": "A running run has logged nothing for long.",
}
"""Every kind of alarm and what it says."""

Level = Literal["info", "warn", "error"]
Action = Literal["none", "pause", "label"]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing to look at: `kind` of `KINDS`, as it stands at `step`, and the `action` a page should offer.

    `evidence` has for each metric the numbers the sentence rests on: `{"kl/seq_nats": {"mean": 9.1, "low": 8.2, …}}`.
    """

    level: Level
    kind: str
    step: int
    sentence: str
    evidence: Mapping[str, Mapping[str, float]]
    action: Action = "none"


def alarms(
    rows: Rows,
    settings: Mapping[str, Any],
    *,
    samples: Rows = (),
    now: float | None = None,
    last_write: float | None = None,
    interval: float | None = None,
) -> list[Alarm]:
    """The alarms of a run, the gravest first.

    `rows` are its metrics, `settings` those of its run.json, `samples` rows of samples.jsonl. Of a running run, and only of
    one, `now` and `last_write` (seconds since 1970) and the usual `interval` between two lines (seconds) tell silence.
    """
    log = _Log(rows, settings, samples)
    found = list(itertools.chain.from_iterable(check(log) for check in _CHECKS)) if rows else []
    if now is not None and last_write is not None and interval is not None:
        found += _silence(log.step, now, last_write, interval)
    return sorted(found, key=lambda alarm: ("error", "warn", "info").index(alarm.level))


def of_run(card: RunCard, *, now: float | None = None) -> list[Alarm]:
    """The alarms of the run of a card, from its files; with `now` also whether it is silent, if it is running."""
    living = card.state == "running"
    return alarms(
        read_all(card.folder / "metrics.jsonl").rows,
        card.settings,
        samples=read_all(card.folder / "samples.jsonl").rows,
        now=now if living else None,
        last_write=card.last_write,
        interval=card.interval,
    )


def _finite(value: object) -> float | None:
    """A finite number, brought to where its square is one; None for anything else."""
    number = as_number(value)
    return None if number is None or not math.isfinite(number) else max(-limits.HUGE, min(limits.HUGE, number))


class _Log:
    """The rows of a run as the checks ask for them."""

    def __init__(self, rows: Rows, settings: Mapping[str, Any], samples: Rows) -> None:
        inner = settings.get("train", settings)
        self.rows, self.samples = rows, samples
        self.settings: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
        self.step = int(rows[-1]["step"]) if rows else 0

    def values(self, name: str) -> list[float]:
        """The finite values of a metric, in order."""
        return [number for row in self.rows if (number := _finite(row.get(name))) is not None]

    def now(self, name: str) -> Estimate | None:
        """The mean of the last rows; None while there are too few."""
        values = self.values(name)
        return mean(values[-limits.RECENT :]) if len(values) >= limits.RECENT else None

    def then_and_now(self, name: str) -> tuple[Estimate, Estimate] | None:
        """The means of the first and of the last rows; None while they are not well apart."""
        values = self.values(name)
        return (mean(values[: limits.RECENT]), mean(values[-limits.RECENT :])) if len(values) >= 3 * limits.RECENT else None


def _overoptimised(log: _Log) -> Iterator[Alarm]:
    """The proxy's trend against gold's and the sentinel's, over the last rows and over the whole run."""
    for watched, name in (("objective/gold", "gold"), ("objective/sentinel", "the sentinel")):
        pairs = [(_finite(row.get("objective/scores")), _finite(row.get(watched))) for row in log.rows]
        both = [(p, w) for p, w in pairs if p is not None and w is not None]
        looks = [_gamed(both[-n:]) for n in (max(limits.TREND, len(both) // 2), len(both))]
        for found in sorted((look for look in looks if look is not None), key=lambda look: not look.falls)[:1]:
            proxy, watch = found.proxy, found.watched
            did = f"lost {-watch.value:.3g}" if found.falls else f"stood still, with {watch.value:+.3g}"
            yield Alarm(
                "error" if found.falls else "warn", "overoptimised", log.step,
                f"over {found.steps} steps the proxy gained {proxy.value:.3g} while {name} {did} "
                f"({watch.low:+.3g} to {watch.high:+.3g})",
                {"objective/scores": proxy.evidence("change"), watched: watch.evidence("change")},
                "pause" if found.falls else "label",
            )  # fmt: skip


class _Gamed(NamedTuple):
    steps: int
    proxy: Estimate
    watched: Estimate
    falls: bool


def _gamed(both: Sequence[tuple[float, float]]) -> _Gamed | None:
    """The two trends where the proxy rises and the watched reward falls or is flat; gains are compared in units of the noise
    from step to step, for the scales of two rewards need not be the same."""
    proxy, watched = trend([p for p, _ in both]), trend([w for _, w in both])
    if proxy is None or watched is None or proxy.low <= 0:
        return None
    flat = watched.low <= 0 and _in_noise(watched.high, watched) < limits.FLAT * _in_noise(proxy.low, proxy)
    return _Gamed(len(both), proxy, watched, watched.high < 0) if watched.high < 0 or flat else None


def _in_noise(change: float, trend: Estimate) -> float:
    if trend.noise > 0:
        return change / trend.noise
    return math.inf if change > 0 else 0.0


def _kl_budget(log: _Log) -> Iterator[Alarm]:
    target, kl = as_number(log.settings.get("kl_target")), log.now("kl/seq_nats")
    if kl is None or not target or log.settings.get("kl_controller") != "adaptive":
        return
    if kl.low > limits.KL_OVER * target:
        yield Alarm(
            "error" if kl.low > limits.KL_FAR_OVER * target else "warn", "kl-budget", log.step,
            f"the policy is {kl.value:.3g} nats from its reference, {kl.value / target:.1f} times its target of {target:g}",
            {"kl/seq_nats": kl.evidence() | {"target": target}},
            "pause",
        )  # fmt: skip


def _kl_negative(log: _Log) -> Iterator[Alarm]:
    kl = log.now("kl/seq_nats")
    if kl is not None and kl.high < -limits.KL_NEGATIVE:
        yield Alarm(
            "error", "kl-negative", log.step,
            f"the KL is {kl.value:.3g} nats ({kl.low:.3g} to {kl.high:.3g}), which cannot be: the samples are not those of the "
            "policy that scores them",
            {"kl/seq_nats": kl.evidence()},
            "pause",
        )  # fmt: skip


def _length(log: _Log) -> Iterator[Alarm]:
    ends = log.then_and_now("rollout/length")
    if ends is None or ends[0].value <= 0:
        return
    then, now = ends
    longer, shorter = now.low > (1 + limits.LENGTH_CHANGE) * then.high, now.high < (1 - limits.LENGTH_CHANGE) * then.low
    if longer or shorter:
        yield Alarm(
            "warn", "length", log.step,
            f"texts are {now.value:.3g} tokens long and were {then.value:.3g} at first, {now.value / then.value - 1:+.0%}",
            {"rollout/length": now.evidence() | {"at first": then.value}},
            "label",
        )  # fmt: skip


def _entropy(log: _Log) -> Iterator[Alarm]:
    ends = log.then_and_now("objective/entropy")
    if ends is None or ends[0].low <= 0:
        return
    then, now = ends
    if now.high < limits.ENTROPY_LOW * then.low:
        yield Alarm(
            "error" if now.high < limits.ENTROPY_GONE * then.low else "warn", "entropy", log.step,
            f"the entropy fell from {then.value:.3g} to {now.value:.3g} nats per token: the policy hardly varies any more",
            {"objective/entropy": now.evidence() | {"at first": then.value}},
            "pause",
        )  # fmt: skip


def _unfinished(log: _Log) -> Iterator[Alarm]:
    ends = log.then_and_now("rollout/unfinished_share")
    if ends is not None and ends[1].low > ends[0].high + limits.UNFINISHED_RISE:
        then, now = ends
        yield Alarm(
            "warn", "unfinished", log.step,
            f"{now.value:.0%} of the texts have no end; at first it was {then.value:.0%}",
            {"rollout/unfinished_share": now.evidence() | {"at first": then.value}},
            "label",
        )  # fmt: skip


def repeated_share(text: str) -> float | None:
    """The share of a text's n-grams that stood in it before; None for a text too short to repeat itself.

    >>> repeated_share("so good and so good and so good and so")
    0.625
    """
    words: Sequence[str] = text.split()
    size = limits.NGRAM
    if len(words) * 20 < len(text):
        words, size = text, limits.NGRAM_CHARS
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > size else None


def _repetition(log: _Log) -> Iterator[Alarm]:
    texts = [(row["step"], str(row.get("completion", row.get("text", "")))) for row in log.samples]
    shares = [(step, share) for step, text in texts if (share := repeated_share(text)) is not None]
    then = [share for step, share in shares if step == shares[0][0]]
    later = [share for step, share in shares if step > shares[0][0]][-2 * limits.RECENT :]
    if len(later) < limits.RECENT:
        return
    first, now = math.fsum(then) / len(then), mean(later)
    if now.low > first + limits.REPEATED_RISE:
        yield Alarm(
            "warn", "repetition", log.step,
            f"{now.value:.0%} of what the samples say repeats itself; in the first ones it was {first:.0%}",
            {"samples": now.evidence() | {"at first": first}},
            "label",
        )  # fmt: skip


def _equal_groups(log: _Log) -> Iterator[Alarm]:
    share = log.now("group/zero_std_share")
    if share is not None and share.low > limits.EQUAL_GROUPS:
        yield Alarm(
            "error" if share.low > limits.ALL_EQUAL else "warn", "equal-groups", log.step,
            f"all answers score the same for {share.value:.0%} of the prompts, which then teach nothing",
            {"group/zero_std_share": share.evidence()},
            "pause" if share.low > limits.ALL_EQUAL else "none",
        )  # fmt: skip


def _clipping(log: _Log) -> Iterator[Alarm]:
    share = log.now("policy/clipfrac_avg")
    if share is not None and share.low > limits.CLIPPED:
        yield Alarm(
            "error" if share.low > limits.MOSTLY_CLIPPED else "warn", "clipping", log.step,
            f"{share.value:.0%} of the tokens are clipped: the updates are too large; lower learning_rate or ppo_epochs",
            {"policy/clipfrac_avg": share.evidence()},
            "pause",
        )  # fmt: skip


def _ratio(log: _Log) -> Iterator[Alarm]:
    ratio, furthest = log.now("val/ratio"), log.values("val/ratio_max_error")[-limits.RECENT :]
    if ratio is not None and (ratio.low > 1 + limits.RATIO_OFF or ratio.high < 1 - limits.RATIO_OFF):
        yield Alarm(
            "error", "ratio", log.step,
            f"the ratio of the new policy to the one that sampled is {ratio.value:.3g} on the average and should be 1",
            {"val/ratio": ratio.evidence()},
            "pause",
        )  # fmt: skip
    elif len(furthest) == limits.RECENT and min(furthest) > limits.RATIO_MAX:
        yield Alarm(
            "warn", "ratio", log.step,
            f"in each of the last {limits.RECENT} steps an update made some token over {min(furthest) + 1:.3g} times as likely",
            {"val/ratio_max_error": {"least": min(furthest), "most": max(furthest)}},
        )  # fmt: skip


def _value_loss(log: _Log) -> Iterator[Alarm]:
    values = log.values("loss/value_avg")
    before, now = values[: -limits.VALUE_STEPS][-limits.TREND :], values[-limits.VALUE_STEPS :]
    usual = statistics.median(before) if len(before) >= limits.RECENT else 0.0
    if usual > 0 and min(now) > limits.VALUE_RISE * usual:
        yield Alarm(
            "error" if min(now) > limits.VALUE_BURST * usual else "warn", "value-loss", log.step,
            f"the value loss was {usual:.3g} and has been over {min(now):.3g} for {limits.VALUE_STEPS} steps",
            {"loss/value_avg": {"least": min(now), "before": usual}},
            "pause",
        )  # fmt: skip


def _reward_jumps(log: _Log) -> Iterator[Alarm]:
    scores = log.values("objective/scores")[-limits.TREND :]
    if len(scores) < TREND_AT_LEAST:
        return
    steps = [b - a for a, b in itertools.pairwise(scores)]
    spread, drift = spread_of(steps), limits.RECENT * abs(statistics.median(steps))
    for i in range(len(scores) - limits.RECENT, len(scores)):
        usual = statistics.median(scores[i - limits.RECENT : i])
        if spread > 0 and abs(scores[i] - usual) > limits.JUMP * spread + drift:
            yield Alarm(
                "warn", "reward-outliers", log.step,
                f"the mean reward of a step leapt from about {usual:.3g} to {scores[i]:.3g}; a few texts may score enormously",
                {"objective/scores": {"value": scores[i], "usual": usual, "spread": spread}},
                "label",
            )  # fmt: skip
            return


def _sample_outliers(log: _Log) -> Iterator[Alarm]:
    means = {row["step"]: _finite(row.get("objective/scores")) for row in log.rows}
    known = [(_finite(row.get("proxy")), means.get(row["step"])) for row in log.samples[-limits.OUTLIER_ROWS * 4 :]]
    pairs = [(p, m) for p, m in known if p is not None and m is not None]
    if len(pairs) < limits.OUTLIER_ROWS or len({p for p, _ in pairs}) <= limits.DISCRETE:
        return
    away = [p - m for p, m in pairs]
    middle, spread = statistics.median(away), spread_of(away)
    outside = [p for (p, _), d in zip(pairs, away, strict=True) if abs(d - middle) > limits.OUTLIER * spread > 0]
    if len(outside) > max(1.0, limits.OUTLIER_MASS * len(pairs)):
        yield Alarm(
            "warn", "reward-outliers", log.step,
            f"{len(outside)} of {len(pairs)} samples have rewards far from all others, such as {outside[-1]:.3g}",
            {"samples": {"share": len(outside) / len(pairs), "reward": outside[-1], "spread": spread}},
            "label",
        )  # fmt: skip


def _not_finite(log: _Log) -> Iterator[Alarm]:
    for row in log.rows:
        wrong = {name: number for name, value in row.items() if (number := as_number(value)) is not None}
        wrong = {name: number for name, number in wrong.items() if not math.isfinite(number)}
        if wrong:
            yield Alarm(
                "error", "not-finite", int(row["step"]),
                f"{' and '.join(list(wrong)[:3])} {'is' if len(wrong) == 1 else 'are'} not a finite number at step {row['step']}",
                {name: {"step": float(row["step"])} for name in wrong},
                "pause",
            )  # fmt: skip
            return


def _silence(step: int, now: float, last_write: float, interval: float) -> Iterator[Alarm]:
    silent = now - last_write
    if silent > max(limits.SILENT * interval, limits.SILENT_AT_LEAST_S):
        since = datetime.fromtimestamp(last_write, UTC).strftime("%Y-%m-%d %H:%M:%S")
        hung = silent > max(limits.LONG_SILENT * interval, limits.LONG_SILENT / limits.SILENT * limits.SILENT_AT_LEAST_S)
        yield Alarm(
            "error" if hung else "warn", "silent", step,
            f"no heartbeat since {since} UTC; a line usually comes every {interval:.3g} seconds",
            {"timings": {"seconds": silent, "usual": interval}},
        )  # fmt: skip


_CHECKS = (
    _not_finite, _overoptimised, _kl_budget, _kl_negative, _length, _entropy, _unfinished, _repetition, _equal_groups,
    _clipping, _ratio, _value_loss, _reward_jumps, _sample_outliers,
)  # fmt: skip
