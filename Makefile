# make setup   a virtual environment in .venv with everything pinned
# make demo    the whole loop on a toy, on this machine's CPU; settings: make demo ARGS="--seed 1"; you teach: make demo HUMAN=1
# make test    lint, types, every test, and the coverage floor: what CI runs
# make bench   speed and memory beside the peer's, on this CPU; a part of it: make bench ARGS="--parts ratios --sizes XS --jobs sft"
# make bench-gpu  the same on one CUDA device
# make lint types wheel clean

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench bench-gpu lint types wheel clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
ARGS ?=
# Rooms whose own tests must cover them; watching costs two fifths of a test's time, so the others run unwatched.
COVERED := maths train feedback store runs
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "backflip needs Python 3.11 or newer and found none; install one, or name yours: make setup PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "backflip needs Python 3.11 or newer and $(PYTHON) is older or missing; name another: make setup PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; install its venv package (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
		exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing PyTorch and the other packages into $(VENV); the first time this takes minutes."
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/backflip demo $(if $(HUMAN),--human yes) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile $(COVERED:%=tests/%) $(COVERED:%=--cov=backflip.%) --cov-report=
	$(BIN)/python -m coverage json --quiet -o - | $(BIN)/python .ci/coverage_floor.py /dev/stdin
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile $(COVERED:%=--ignore=tests/%)

bench: $(STAMP)
	$(BIN)/python benchmarks/cpu.py $(ARGS)

bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

wheel: $(STAMP)
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist .coverage .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
