"""Over-optimisation and reward hacking: what is measured of a policy on the way, what it means, and what to do about it."""

from backflip.monitor.monitor import KINDS, Monitor

__all__ = ["KINDS", "Monitor"]
