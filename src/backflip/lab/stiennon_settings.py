"""The settings of `stiennon`: one proxy, and how hard it is optimised."""

from __future__ import annotations

from dataclasses import dataclass

from backflip.config import setting
from backflip.lab.overoptimisation_settings import Optimised


@dataclass(frozen=True, kw_only=True)
class Settings(Optimised):
    """What is run, and what was already run by `overoptimisation`."""

    runs: str | None = setting(
        None,
        "Folder of `overoptimisation` whose policies, proxies, samples and runs are used, FOLDER/seedN; what is not there is "
        "made here. None: everything is.",
    )
    width: int = setting(48, "Width of the proxy.", at_least=8)
    comparisons: int = setting(600, "Comparisons that it learns from.", at_least=20)
    betas: tuple[float, ...] = setting((0.0, 0.02, 0.06, 0.2), "Weights of the KL penalty, the smallest first.", at_least=0)
    most: int = setting(512, "Largest n of best of n.", at_least=2)
