"""Running code a model wrote, and grading it, without a chance for it to hurt or to cheat. Needs nothing but Linux and Python."""

from __future__ import annotations

from backflip.sandbox.grader import Case, Grade, grade
from backflip.sandbox.limits import Limits, Result
from backflip.sandbox.sandbox import Sandbox

__all__ = ["Case", "Grade", "Limits", "Result", "Sandbox", "grade"]
