"""Experiments: claims of this project and of published work, each a small file that uses the public parts only.

An experiment is a module with a `TITLE`, a settings class `Settings` and `run(settings, folder, quiet)`, which leaves
`result.json` (figures and acceptance lines) and a report in the folder. `backflip lab run NAME` runs one.
"""
