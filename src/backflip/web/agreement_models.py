"""What the API of the Agreement page takes and gives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from backflip.records import Form
from backflip.web import models


class ProjectSay(models.Say):
    """A project whose answers can be looked at."""

    id: str
    title: str
    open: bool
    overlap: int


class FigureSay(models.Say):
    """A figure of agreement with its 95 % interval; null where it is undefined, and then `why_key` and `why` say why.

    `n` questions (pairs of completions) have answers of two people or more, `n_pairs` pairs of answers. `words` is strong or
    moderate by the usual thresholds, "agree_none" where it cannot be told from chance, "agree_little" between, or "undefined".
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_pairs: int
    words: Literal["agree_strong", "agree_moderate", "agree_little", "agree_none", "undefined"]
    why: str
    why_key: Literal["", "no_overlap", "one_category"]


class ShareSay(models.Say):
    """A share, or for times a median, of `n` with its 95 % interval; null where n is 0."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class BiasSay(ShareSay):
    """A share that ½ would mean no bias, and how often a fair coin is as far from it, `p`."""

    p: float | None


class RaterSay(models.Say):
    """One labeler; a `person` has an account here, everybody else counts as a machine. See docs/agreement.md."""

    name: str
    person: bool
    n_answers: int
    n_skips: int
    consensus: ShareSay
    gold: ShareSay
    left: BiasSay
    longer: BiasSay
    median_ms: ShareSay
    consistency: ShareSay
    reliability: ShareSay


class PairSay(models.Say):
    """How often two labelers gave the same answer to what both answered, with its 95 % interval."""

    a: str
    b: str
    value: float
    low: float
    high: float
    n: int


class NoticeSay(models.Say):
    """What a labeler's figures give reason to look at; see `reports.Notice`."""

    rater: str
    kind: Literal["left", "longer", "gold", "consensus", "consistency"]
    value: float
    low: float
    high: float
    n: int
    p: float | None
    others: float | None


class ContestedSay(models.Say):
    """A question on which people differ: how many of them said what of the pair of completions they differ on most, most common
    answer first, and `ties` of them that neither is better. `decided` says whether somebody has decided."""

    query: str
    excerpt: str
    split: list[int]
    ties: int
    n: int
    decided: bool


class ReportSay(models.Say):
    """The quality of a project's answers at the moment `at`, seconds since 1970.

    Figures of all are of people, on `overlapping` of `units` pairs of completions that two or more, or any, of them answered.
    `questions` does not count those whose answer is known, `answers` everybody's to the others. `raters` are people first, then
    by answers, at most 500 of `n_raters`; `matrix` names those of whom `pairs` tells.
    """

    at: float
    seconds: float
    questions: int
    answers: int
    units: int
    overlapping: int
    alpha: FigureSay
    alpha_ordinal: FigureSay
    ac1: FigureSay
    raw: FigureSay
    n_raters: int
    raters: list[RaterSay]
    matrix: list[str]
    pairs: list[PairSay]
    notices: list[NoticeSay]
    contested: list[ContestedSay]
    decided: int


class FailureSay(models.Say):
    """Which step of working out a newer report failed, why, and when."""

    step: Literal["read", "count"]
    problem: str
    at: float


class AgreementSay(models.Say):
    """The newest report there is. `current` if nothing has changed since; `failure` is what was in the way of a newer one."""

    report: ReportSay
    current: bool
    failure: FailureSay | None


class OpinionSay(models.Say):
    """What one labeler answered: completions by number, best first and equal ones together (none: passed over), and why."""

    annotator: str
    person: bool
    groups: list[list[int]]
    scores: list[float]
    strength: int
    code: str
    note_html: str
    ms: int


class AdjudicationSay(models.Say):
    """A decision: "left" and "right" are completions 0 and 1. `counts` unless somebody decided anew later."""

    event: int
    query: str
    excerpt: str
    by: str
    at: float
    choice: Literal["left", "right", "tie", "ranking"]
    ranking: list[list[int]]
    note: str
    note_html: str
    counts: bool


class ItemSay(models.Say):
    """A question with everything that was said of it. `places` holds the number of the completion in each place, from the left;
    `slots` are in that order, and each one's handle is its number."""

    query: str
    form: Form
    prompt_raw: str
    prompt_html: str
    places: list[int]
    slots: list[models.Slot]
    opinions: list[OpinionSay]
    adjudications: list[AdjudicationSay]


class AdjudicationBody(models.Body):
    """A decision. Completions are numbered as the question has them: "left" is 0, "right" is 1; a ranking lists groups of them,
    best first, each once. `shown_first` is the one that stood on the left. `key` names it: sent again, it is stored once."""

    key: Annotated[str, Field(pattern=models.KEY)]
    query: Annotated[str, Field(max_length=64)]
    choice: Literal["left", "right", "tie", "ranking"]
    ranking: list[Annotated[list[int], Field(max_length=16)]] = Field(default=[], max_length=16)
    shown_first: Annotated[int, Field(ge=0, le=16)] = 0
    note: models.Text = ""
    t: Annotated[float, Field(ge=0, le=1e11)] = 0.0


class Stored(models.Say):
    """The event that a decision is."""

    event: int
