"""backflip: reinforcement learning from human feedback as one system."""

__version__ = "0.1.0"
