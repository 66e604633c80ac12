# make demo   a land-cover map of a generated scene, from nothing
# make test   the test suite, from nothing
# make check  what CI holds a change to: format, lint, types, tests
# make lock   the lock file anew, from setup.cfg

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test check lint lock clean

demo: .venv/installed
	$(BIN)/python launch/demo.py

test: .venv/installed
	$(BIN)/pytest

check: lint test

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: .venv/installed
	$(BIN)/uv pip compile --quiet setup.cfg --extra dev --extra public --python-version 3.11 \
		--no-header --no-annotate --output-file requirements.lock

.venv/installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv demo runs
