"""An interrupted run ends exactly as an undisturbed one. `python -m tests.resume.kill` is the long version."""
