"""What the settings of a loop must be for it to get through its first round: said before anybody has answered anything."""

from __future__ import annotations

from backflip.errors import ConfigError
from backflip.feedback.labelers import Labeler
from backflip.rounds.asking import check_asking
from backflip.rounds.watched import check_watching
from backflip.settings import Rounds
from backflip.train.composition import check_settings
from backflip.train.objectives import check_objective


def check_rounds(settings: Rounds, labeler: Labeler | None) -> None:
    """Refuse settings that some stage of a round would refuse. Raises ConfigError, saying which and what to do."""
    check_asking(settings)
    check_watching(settings.watch, labeler)
    check_objective(settings.reward)
    check_settings(settings.ppo)
    members = settings.reward.ensemble.members
    if settings.ppo.critic == "reward" and members > 1:
        raise ConfigError(
            f"critic 'reward' starts from one reward model, and there are {members}; set train.ppo.critic to shared, or "
            "train.reward.ensemble.members to 1"
        )
