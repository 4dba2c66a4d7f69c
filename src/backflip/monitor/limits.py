"""Where the monitor's alarms begin: each limit with its reason. What also has an alarm of a run's page shares its limit there."""

from __future__ import annotations

SIGMAS = 3.0
"""Standard errors that a difference must be from its limit. A run is looked at dozens of times, so at two it would cry wolf."""

CAP = 4.0
"""Most standard errors that one look may add to the evidence of a fall: a single look never reaches the default threshold."""

BETTER = 1.0
"""Standard errors by which a look must be preferred in fresh questions before it counts as the best: at 0 every second look that
is no better would, and the best would wander off with the policy."""

LUCKY = 1.5
"""Standard errors that fresh questions may fall short of half without being evidence of a fall: the best of ten looks is above
what it is worth by √(ln 10) (`maths.sequential.luck`)."""

DISAGREE = 1.5
"""Times the first disagreement between models, surely exceeded, at which the policy has left what they agree about."""

OUTLYING_QUANTILE = 0.99
"""Of the first look's distances, the one beyond which a sample is far from what the first policy wrote."""

OUTLYING = 0.2
"""Share of such samples that is too many; it was one in a hundred."""

DRIFT = 0.2
"""Total variation between the scripts of the words then and now: every fifth word in another script is another language."""

BOILERPLATE = 0.3
"""Rise of the share of texts that hold one and the same run of four words."""

EXCESS = 0.5
"""Standard deviations of score that go with a feature for the proxy and not for the judges: enough to outbid an ordinary
difference between two texts."""

LABELS = 50
"""Newest labels without which nothing is said of them: with fewer a good reward model could be taken for a coin."""

COIN = 0.5
"""Accuracy of a coin, and the win rate against itself."""
