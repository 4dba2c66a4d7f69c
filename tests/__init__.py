"""The tests of backflip; a package so that `python -m tests.golden FILE` runs from the repository's root."""
