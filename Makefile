# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check drill drill-short clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Plait needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed  ## Three rounds on real splice-site measurements, and a report.
	$(BIN)/plait demo

test: .venv/.installed  ## All tests.
	$(BIN)/python -m pytest

drill-short: .venv/.installed  ## Kills, races, outages and full disks, few of each (part of the tests).
	$(BIN)/python -m pytest tests/drill

drill: .venv/.installed  ## The same, many of each: most of an hour; writes drill.md.
	PLAIT_DRILL=long PLAIT_DRILL_REPORT=$(CURDIR)/drill.md $(BIN)/python -m pytest tests/drill tests/execution/test_elastic.py tests/deploy/test_processes.py

check: .venv/.installed  ## Lint, types, layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## Everything that can be made again.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
