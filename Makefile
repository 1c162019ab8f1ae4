# Needs only Python 3.11 or newer with venv; everything else is installed into .venv.

SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
PORT ?= 8000
ARGS ?=

python := .venv/bin/python
pip := $(python) -m pip install --quiet --disable-pip-version-check

# An environment whose interpreter has gone is no environment: its stamps must not count.
$(shell test -x $(python) || rm -f .venv/.serve .venv/.dev)

.PHONY: bench help start test fuzz soak hostile failpoints simulate check fmt states clean

help: ## show the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

start: .venv/.serve ## serve examples/quickstart on http://127.0.0.1:8000 (PORT=…)
	@exec .venv/bin/runwright start examples/quickstart --port $(PORT)

test: .venv/.dev ## run the whole suite on SQLite and a real Postgres (ARGS='-k cron' for a part)
	@exec $(python) .ci/run_tests.py -n 3 --dist loadfile --no-loadscope-reorder --durations=20 $(ARGS)

bench: .venv/.dev ## measure the service beside what the machine can do (ARGS='--rounds 3 --database sqlite')
	@exec $(python) -m benchmarks $(ARGS)

fuzz: .venv/.dev ## compare the calendar with its oracles at every clock change, 2020 to 2037 (some minutes)
	@exec $(python) -m pytest -n 2 -o python_files='fuzz_*.py' --junitxml=reports/fuzz.xml tests/fuzz $(ARGS)

soak: .venv/.dev ## real faults at real services, for 10 minutes and some (SOAK_MINUTES=60; ARGS=all, ARGS='replicas ticks')
	@exec $(python) -m tests.soak $(ARGS)

hostile: .venv/.dev ## hostile blocks by the hundred beside healthy runs, for about 10 minutes (HOSTILE_TIMES=2, ARGS='spins')
	@exec $(python) -m tests.hostile $(ARGS)

failpoints: .venv/.dev ## kill, fail and delay the engine at every named place, on both databases (ARGS='launch sqlite')
	@exec $(python) -m tests.failpoints $(ARGS)

simulate: .venv/.dev ## a year of 200 triggers beside an oracle, then 1,000 clusters with faults (ARGS='--seed 2' replays one)
	@exec $(python) -m tests.simulation $(ARGS)

check: .venv/.dev ## check format, lint, types and the import rules
	@.venv/bin/ruff format --check --quiet . || { echo 'run: make fmt'; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --strict app runwright
	@.venv/bin/lint-imports --no-cache

fmt: .venv/.dev ## format the code and mend what ruff can mend
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format --quiet .

states: .venv/.dev ## write docs/states.md anew from app/models/states.py
	@$(python) -m docs.make_states > docs/states.md

clean: ## remove the environment and every cache; the example's state stays
	@rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache reports
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A stamp is renewed when pyproject.toml is newer than it.
$(python):
	@found=$$(sh .ci/find-python); echo "Making .venv with $$found"; "$$found" -m venv --clear .venv

.venv/.serve: pyproject.toml | $(python)
	@[ .venv/.dev -nt pyproject.toml ] || { echo 'Installing what serving needs'; $(pip) -e '.[data]'; }
	@touch $@

.venv/.dev: pyproject.toml | $(python)
	@echo 'Installing the development environment'; $(pip) -e '.[dev]'
	@touch $@
