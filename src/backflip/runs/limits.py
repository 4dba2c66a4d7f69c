"""Where the alarms of `alarms` begin: each limit with its reason."""

from __future__ import annotations

RECENT = 8
"""Rows whose mean stands for how the run is now, and for how it began: enough for an interval, few enough to be one time."""

TREND = 40
"""Rows that a trend is taken from, or the last half of the run where that is more."""

FLAT = 0.35
"""A watched reward that surely gains less than this share of what the proxy gains, each in units of its own noise, and perhaps
nothing, is flat; a reward that is merely harder to move gains more."""

KL_OVER = 1.5
"""Times its target at which the KL is beyond its budget: the controller itself swings by a fifth or two."""

KL_FAR_OVER = 3.0
"""Times its target at which nothing holds the policy any more."""

KL_NEGATIVE = 0.02
"""Nats per sequence below zero that rounding may reach; the true KL is never negative."""

LENGTH_CHANGE = 0.5
"""Relative change of the mean length: rewards that like length double it, and one that merely improves rarely adds half."""

ENTROPY_LOW = 0.3
"""Share of its first entropy at which a policy has few words left; learning a style leaves it well over half."""

ENTROPY_GONE = 0.1
"""Share of its first entropy at which all its samples are nearly the same and nothing more is explored."""

UNFINISHED_RISE = 0.2
"""Rise of the share of texts without an end: one text in five is no accident."""

NGRAM = 3
"""Words in a row that are looked for again in the same text."""

NGRAM_CHARS = 8
"""The same in characters, where a text has no spaces."""

REPEATED_RISE = 0.2
"""Rise of the share of repeated n-grams; in prose it is a few in a hundred, in a text that turns in circles most."""

EQUAL_GROUPS = 0.75
"""Share of prompts whose answers all score the same, at which three quarters of the work teach nothing."""

ALL_EQUAL = 0.99
"""The same share when there is nothing to learn at all."""

CLIPPED = 0.3
"""Share of clipped tokens: a tenth is usual, and beyond a third the gradient is that of the minority."""

MOSTLY_CLIPPED = 0.6
"""Share of clipped tokens at which the updates are far too large."""

RATIO_OFF = 0.1
"""Distance of the mean ratio π/π_old from 1, which it must have on the average over the policy's own samples."""

RATIO_MAX = 5.0
"""Distance of a single token's ratio from 1, exceeded in each recent step: six times as likely, or the old policy was lost."""

VALUE_RISE = 10.0
"""Times its median before at which the value loss explodes: a better policy may double it."""

VALUE_BURST = 100.0
"""Times its median before at which the critic is of no use."""

VALUE_STEPS = 3
"""Steps in a row with such a value loss: one may be a batch of odd texts."""

JUMP = 8.0
"""Spreads between neighbouring steps by which a step's mean reward leaves those before it: a few texts of enormous score."""

OUTLIER = 6.0
"""Spreads from the step's mean at which a sample's reward is an outlier."""

OUTLIER_MASS = 0.05
"""Share of outliers among the samples; of a bell curve's it is one in 500 million."""

OUTLIER_ROWS = 20
"""Samples without which their spread is not known."""

DISCRETE = 5
"""Up to so many different rewards are grades, such as right and wrong, and a rare one is no outlier."""

SILENT = 3.0
"""Times its usual interval at which a run is silent."""

LONG_SILENT = 10.0
"""Times its usual interval at which it has most likely hung."""

SILENT_AT_LEAST_S = 60.0
"""Seconds that a checkpoint or the evaluation after the last step may take, however quick the steps are."""

HUGE = 1e100
"""Larger numbers count as this one: what is reckoned from them would not be finite."""
