"""The monitor: it is shown what a policy writes on the way, never gold, and says what that means and what to do.

It remembers the first look, or what the reference writes, by which everything is measured; the best look so far, to which a stop
goes back; and the evidence that the judges' opinion has fallen since. Its state is JSON and nothing else, so a run that resumes
decides as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backflip.maths.sequential import cusum
from backflip.monitor import limits, rules
from backflip.monitor.asking import Ask, Votes, votes
from backflip.monitor.features import attribute
from backflip.monitor.mining import Liked, Suspect, liked_best, questions, suspects, written
from backflip.monitor.rules import KINDS, Situation
from backflip.monitor.seen import Columns, Ruler, arrays, listed, to_json
from backflip.monitor.signals import label_accuracy, win_share
from backflip.records import Query
from backflip.runs.watching import Finding, Look, Ruling
from backflip.settings import Watch

__all__ = ["KINDS", "Monitor"]


class Monitor:
    """A `Guard` with the rules of `rules`; an alarm is raised when it begins to hold, not again while it does.

    It goes on until told to stop by one of its own alarms; `pause` alarms hold the run where `Watch.pause` says so. Where there
    is somebody to `ask`, `Watch.questions` fresh questions a look decide which policy is the best and when to stop; otherwise the
    judges do.
    """

    def __init__(self, settings: Watch, ask: Ask | None = None) -> None:
        self.settings, self.ask = settings, ask if settings.questions else None
        self.ruling = Ruling("go", 0)
        self.history: list[dict[str, float]] = []
        self.findings: list[Finding] = []
        self.suspects: list[Suspect] = []
        self._standing: set[str] = set()
        self._evidence = 0.0
        self._best_step = 0
        self._best: Columns = {}
        self._best_texts: list[str] = []
        self._first_look: Look | None = None
        self._liked: list[Liked] = []
        self._last_attributions: list[dict[str, float | str]] = []

    def measure_by(self, look: Look) -> None:
        """Measure all looks by this one: a policy that is gamed as it comes would otherwise pass for normal."""
        self._begin(look, None)

    def look(self, look: Look) -> Ruling:
        """Measure a look, compare it, and rule. Unless `measure_by` named another, the first one is what all are measured by.

        Raises ValueError for a look at other prompts than that one, or by other judges.
        """
        if self._first_look is None:
            self._begin(look, look.step)
        first = self._first_look
        assert first is not None
        if tuple(look.prompts) != tuple(first.prompts) or look.judges.keys() != first.judges.keys():
            raise ValueError("every look is at the same prompts and by the same judges as the first")
        now = self._ruler.columns(look)
        figures = self._ruler.figures(look, now)
        if not self.history:
            heard = None
            self._take(look, now)
        else:
            heard = self._ask(look, now, figures)
            if heard is None:
                self._weigh(look, now)
        figures |= {"guard/evidence": self._evidence, "guard/best_step": float(self._best_step)}
        self.history.append({"step": float(look.step), **figures})
        raised = [] if look is first else self._raise(self._situation(look, now, figures, heard))
        if any(finding.act == "mine" for finding in raised):
            self._mine(look, now)
        self._liked = liked_best(self._liked, written(look, now, look.step))
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
            "best": listed(self._best), "best step": self._best_step, "best texts": self._best_texts,
            "liked": [list(each) for each in self._liked], "evidence": self._evidence,
            "standing": sorted(self._standing), "history": self.history, "suspects": self.suspects,
            "findings": [finding.to_json() for finding in self.findings], "act": self.ruling.act,
            "features": self._last_attributions,
        }  # fmt: skip

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["first"] is not None:
            self.measure_by(Look(**state["first"]))
            self._liked = [Liked(*each) for each in state["liked"]]
        self._best, self._best_step, self._best_texts = arrays(state["best"]), state["best step"], list(state["best texts"])
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

    def _begin(self, look: Look, step: int | None) -> None:
        """Measure by this look from now on; `step` None says that it is none of the run's own."""
        self._first_look = look
        self._ruler = Ruler(look, self.settings.pessimism)
        self._first = self._ruler.columns(look)
        self._first_figures = self._ruler.figures(look, self._first)
        self._liked = written(look, self._first, step)

    def _take(self, look: Look, now: Columns) -> None:
        """A look is the best so far."""
        self._best, self._best_step, self._best_texts, self._evidence = now, look.step, list(look.completions), 0.0

    def _allowed(self, now: Columns) -> bool:
        budget = self.settings.kl_stop
        return budget is None or float(now["kl"].mean()) <= budget

    def _ask(self, look: Look, now: Columns, figures: dict[str, float]) -> Votes | None:
        """Put fresh questions: a look is the best only where it is preferred beyond noise; what falls short of half by more than
        the best look was lucky is evidence against it. None where nobody is asked."""
        if self.ask is None:
            return None
        heard = votes(look, self._best_texts, self._best_step, self.settings.questions, len(self.history), self.ask)
        if heard.wins.value is not None:
            figures["guard/preferred"] = heard.wins.value
        if heard.z > limits.BETTER and self._allowed(now):
            self._take(look, now)
        else:
            self._evidence = cusum(self._evidence, -heard.z, allowance=limits.LUCKY, cap=limits.CAP)
        return heard

    def _weigh(self, look: Look, now: Columns) -> None:
        """Take the look for the best, or add to the evidence of a fall. Without judges the newest policy is the best known."""
        if "quality" not in now:
            if self._allowed(now):
                self._take(look, now)
            return
        if self._allowed(now) and float(now["quality"].mean()) > float(self._best["quality"].mean()):
            self._take(look, now)
        elif look.step != self._best_step:
            z = rules.shortfall(now, self._best, self._first, self.settings.tolerance, len(self.history) + 1)
            self._evidence = cusum(self._evidence, z, allowance=self.settings.allowance, cap=limits.CAP)

    def _situation(self, look: Look, now: Columns, figures: Mapping[str, float], heard: Votes | None) -> Situation:
        first, s = self._first_look, self.settings
        assert first is not None
        judged = (self._first["quality"], now["quality"]) if "quality" in now else None
        found = attribute(first.completions, look.completions, (self._first["proxy"], now["proxy"]), judged)
        self._last_attributions = [
            {"feature": a.feature, "before": a.before, "now": a.now, "proxy": a.proxy, "judges": a.judges} for a in found
        ]
        return Situation(
            look, now, self._first, self._best, self._best_step, figures, self._first_figures, found, self._evidence,
            s.threshold, s.tolerance, s.kl_stop, self._ruler.far, heard,
        )  # fmt: skip

    def _raise(self, situation: Situation) -> list[Finding]:
        told = {"labels"} if self.ask is not None else {"labels", "losing"}
        return self._newly(list(rules.found(situation)), among=KINDS.keys() - told)

    def _newly(self, found: Sequence[Finding], *, among: set[str]) -> list[Finding]:
        """Those that did not hold before; one that no longer holds may be raised again."""
        new = [finding for finding in found if finding.kind not in self._standing]
        self._standing = (self._standing - among) | {finding.kind for finding in found}
        return new

    def _mine(self, look: Look, now: Columns) -> None:
        known = {(row["prompt"], row["completion"]) for row in self.suspects}
        found = suspects(look, self._liked, now, self.settings.suspects)
        self.suspects += [row for row in found if (row["prompt"], row["completion"]) not in known]

    def _rule(self, raised: Sequence[Finding], figures: Mapping[str, float]) -> Ruling:
        self.findings += raised
        acts = {finding.act for finding in raised}
        stopped = "stop" in acts or self.ruling.act == "stop"
        act = "stop" if stopped else "pause" if "pause" in acts and self.settings.pause else "go"
        self.ruling = Ruling(act, self._best_step, tuple(raised), dict(figures))  # type: ignore[arg-type]
        return self.ruling
