# `make demo` runs the main job, `make test` checks everything; both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint types docs
.DEFAULT_GOAL := help

help:
	@echo "make demo   compare zero-shot, IVLP and Prompt-OT on the bundled model and drawings"
	@echo "make test   lint, types and tests"
	@echo "make docs   the documentation as a site, in site/"

.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit("promptot needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/core: .venv/pip pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/core
	$(BIN)/promptot demo

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/dev
	$(BIN)/mypy

# One thread in each of two processes: threads of two processes on two cores wait for each other.
# Files in their order: sorted by their number of tests, the last ones would be few and long.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

docs: .venv/dev
	$(BIN)/mkdocs build --strict
