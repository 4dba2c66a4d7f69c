"""Feedback: what to ask next (`queries`), who answers (`labelers`, `terminal`), and what others have already
answered (`readers`). Imports no torch.
"""

from __future__ import annotations
