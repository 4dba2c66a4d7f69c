"""The monitor: it is shown what a policy writes on the way, never gold, and says what that means and what to do.

It remembers the first look, by which everything is measured; the best look so far, to which a stop goes back; and the evidence
that the judges' opinion has fallen since. Its state is JSON and nothing else, so a run that resumes decides as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backflip.maths.sequential import cusum
from backflip.monitor import limits, rules
from backflip.monitor.features import attribute
from backflip.monitor.mining import Suspect, questions, suspects
from backflip.monitor.rules import KINDS, Situation
from backflip.monitor.seen import Columns, Ruler, arrays, listed, to_json
from backflip.monitor.signals import label_accuracy, win_share
from backflip.records import Query
from backflip.runs.watching import Finding, Look, Ruling
from backflip.settings import Watch

__all__ = ["KINDS", "Monitor"]


class Monitor:
    """A `Guard` with the rules of `rules`; an alarm is raised when it begins to hold, not again while it does.

    It goes on until told to stop by one of its own alarms; `pause` alarms hold the run where `Watch.pause` says so.
    """

    def __init__(self, settings: Watch) -> None:
        self.settings = settings
        self.ruling = Ruling("go", 0)
        self.history: list[dict[str, float]] = []
        self.findings: list[Finding] = []
        self.suspects: list[Suspect] = []
        self._standing: set[str] = set()
        self._evidence = 0.0
        self._best_step = 0
        self._best: Columns = {}
        self._first_look: Look | None = None
        self._last_attributions: list[dict[str, float | str]] = []

    def look(self, look: Look) -> Ruling:
        """Measure a look, compare it, and rule. The first one is what all others are measured by.

        Raises ValueError for a look at other prompts than the first, or by other judges.
        """
        if self._first_look is None:
            self._begin(look)
        first = self._first_look
        assert first is not None
        if tuple(look.prompts) != tuple(first.prompts) or look.judges.keys() != first.judges.keys():
            raise ValueError("every look is at the same prompts and by the same judges as the first")
        now = self._ruler.columns(look)
        figures = self._ruler.figures(look, now)
        self._weigh(look.step, now)
        figures |= {"guard/evidence": self._evidence, "guard/best_step": float(self._best_step)}
        self.history.append({"step": float(look.step), **figures})
        raised = self._raise(self._situation(look, now, figures)) if len(self.history) > 1 else []
        if any(finding.act == "mine" for finding in raised):
            self._mine(look, now)
        return self._rule(raised, figures)

    def answered(
        self, step: int, left: Sequence[float], right: Sequence[float], p_left: Sequence[float], p_new: Sequence[float] = ()
    ) -> Ruling:  # fmt: skip
        """Hear the newest labels: the proxy's scores of both sides and what people said, and of comparisons between this policy
        and an older one how far people preferred this one."""
        found = [
            *rules.labels(step, label_accuracy(left, right, p_left)),
            *rules.losing(step, win_share(p_new), self._best_step),
        ]
        return self._rule(self._newly(found, among={"labels", "losing"}), {})

    def questions(self, *, policy: str = "policy", first: str = "first") -> list[Query]:
        """What to ask people about the suspects found so far."""
        return questions(self.suspects, policy=policy, first=first)

    def state(self) -> dict[str, Any]:
        """Everything it remembers, as JSON."""
        return {
            "first": None if self._first_look is None else to_json(self._first_look),
            "best": listed(self._best), "best step": self._best_step, "evidence": self._evidence,
            "standing": sorted(self._standing), "history": self.history, "suspects": self.suspects,
            "findings": [finding.to_json() for finding in self.findings], "act": self.ruling.act,
            "features": self._last_attributions,
        }  # fmt: skip

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["first"] is not None:
            self._begin(Look(**state["first"]))
        self._best, self._best_step = arrays(state["best"]), state["best step"]
        self._evidence, self._standing = state["evidence"], set(state["standing"])
        self.history, self.suspects = list(state["history"]), list(state["suspects"])
        self.findings = [Finding.from_json(row) for row in state["findings"]]
        self._last_attributions = list(state["features"])
        self.ruling = Ruling(state["act"], self._best_step)

    def report(self) -> dict[str, Any]:
        """What it saw and decided, for people."""
        return {
            "decision": self.ruling.act, "best_step": self._best_step, "looks": self.history,
            "findings": [finding.to_json() for finding in self.findings], "features": self._last_attributions,
            "suspects": self.suspects,
        }  # fmt: skip

    def _begin(self, look: Look) -> None:
        self._first_look = look
        self._ruler = Ruler(look, self.settings.pessimism)
        self._first = self._ruler.columns(look)
        self._first_figures = self._ruler.figures(look, self._first)
        self._best, self._best_step = self._first, look.step

    def _weigh(self, step: int, now: Columns) -> None:
        """Take the look for the best, or add to the evidence of a fall. Without judges the newest policy is the best known."""
        budget = self.settings.kl_stop
        allowed = budget is None or float(now["kl"].mean()) <= budget
        if "quality" not in now:
            if allowed:
                self._best, self._best_step = now, step
            return
        if allowed and float(now["quality"].mean()) > float(self._best["quality"].mean()):
            self._best, self._best_step, self._evidence = now, step, 0.0
        elif step != self._best_step:
            z = rules.shortfall(now, self._best, self._first, self.settings.tolerance, len(self.history) + 1)
            self._evidence = cusum(self._evidence, z, allowance=self.settings.allowance, cap=limits.CAP)

    def _situation(self, look: Look, now: Columns, figures: Mapping[str, float]) -> Situation:
        first, s = self._first_look, self.settings
        assert first is not None
        judged = (self._first["quality"], now["quality"]) if "quality" in now else None
        found = attribute(first.completions, look.completions, (self._first["proxy"], now["proxy"]), judged)
        self._last_attributions = [
            {"feature": a.feature, "before": a.before, "now": a.now, "proxy": a.proxy, "judges": a.judges} for a in found
        ]
        return Situation(
            look, now, self._first, self._best, self._best_step, figures, self._first_figures, found, self._evidence,
            s.threshold, s.tolerance, s.kl_stop, self._ruler.far,
        )  # fmt: skip

    def _raise(self, situation: Situation) -> list[Finding]:
        return self._newly(list(rules.found(situation)), among=KINDS.keys() - {"labels", "losing"})

    def _newly(self, found: Sequence[Finding], *, among: set[str]) -> list[Finding]:
        """Those that did not hold before; one that no longer holds may be raised again."""
        new = [finding for finding in found if finding.kind not in self._standing]
        self._standing = (self._standing - among) | {finding.kind for finding in found}
        return new

    def _mine(self, look: Look, now: Columns) -> None:
        assert self._first_look is not None
        known = {(row["prompt"], row["completion"]) for row in self.suspects}
        found = suspects(look, self._first_look.completions, now, self.settings.suspects)
        self.suspects += [row for row in found if (row["prompt"], row["completion"]) not in known]

    def _rule(self, raised: Sequence[Finding], figures: Mapping[str, float]) -> Ruling:
        self.findings += raised
        acts = {finding.act for finding in raised}
        stopped = "stop" in acts or self.ruling.act == "stop"
        act = "stop" if stopped else "pause" if "pause" in acts and self.settings.pause else "go"
        self.ruling = Ruling(act, self._best_step, tuple(raised), dict(figures))  # type: ignore[arg-type]
        return self.ruling
