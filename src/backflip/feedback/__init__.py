"""Feedback: what to ask next (`queries`), who answers (`labelers`, `terminal`), what others have already
answered (`readers`), and how good the answers are (`quality`). Imports no torch.
"""

from __future__ import annotations
