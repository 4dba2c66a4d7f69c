"""The settings of `annotators`: a base model, three groups of people, and how much each is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from backflip.config import nested, setting
from backflip.lab.reviews_settings import JUDGING, READ
from backflip.settings import SFT, Reward, Tiny


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Accuracies are on pairs nobody was asked about, against what each person truly prefers."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a base model and people of its own.", at_least=1)
    documents: int = setting(4000, "Documents that the base model reads.", at_least=32)
    people: int = setting(20, "Simulated people: six, three and one tenth of them in the three groups.", at_least=10)
    each: int = setting(200, "Comparisons that each person answers.", at_least=2)
    taste_spread: float = setting(0.2, "How far tastes scatter within a group.", at_least=0)
    noise: float = setting(0.05, "Share of answers given blindly.", at_least=0, at_most=1)
    choice_temperature: float = setting(0.4, "How unsure people are about small differences in utility.", at_least=0)
    test_pairs: int = setting(600, "Pairs on which everything is measured.", at_least=10)
    shared_questions: int = setting(
        1500, "Questions of the part on soft labels, all of them answered by several people.", at_least=8
    )
    answers_each: int = setting(9, "Answers to each of them.", at_least=2)
    crowd: int = setting(40, "Labelers of the part on aggregation, from careful ones to those who guess.", at_least=3)
    crowd_questions: int = setting(800, "Questions of that part.", at_least=10)
    crowd_answers: int = setting(6, "Answers to each of them.", at_least=2)
    pool: int = setting(4000, "Possible questions of the part on what to ask.", at_least=20)
    ask_each: int = setting(100, "Questions asked at a time.", at_least=2)
    ask_rounds: int = setting(10, "How often they are asked.", at_least=2)
    ask_repeats: int = setting(8, "How often that part is repeated for each seed, with other answers.", at_least=1)
    ensemble: int = setting(8, "Members of the ensemble that chooses questions.", at_least=2)
    random_share: float = setting(0.2, "Share of the questions of every rule that is drawn at random.", at_least=0, at_most=1)
    options: int = setting(8, "Texts of a prompt among which one is chosen for everybody.", at_least=2)
    prompts: int = setting(200, "Prompts for which one is chosen.", at_least=2)
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=64, layers=2, heads=2, context=128)
    pretrain: SFT = field(default=READ)
    reward: Reward = field(default=JUDGING)
