# `make eval` and `make test` need Python 3.11 or newer and nothing else; both are quick the second time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# its checker runs on numpy and psutil; what else it asks for is for making samples
CHECKER := evalplus==0.3.1
# a version that has a build without CUDA where only that is wanted: name an index of such builds
TORCH ?= torch==2.13.0

.PHONY: help eval leaderboard test test-all environment bench bench-engine bench-board bench-store lint format clean

help:
	@echo "make eval         first run: environment, default model, FlowReasoner on a few problems"
	@echo "make leaderboard  the board in a browser"
	@echo "make test         lint, types and the whole suite"
	@echo "make test-all     the same with the slow tests"
	@echo "make bench        grading beside the official graders: a table (ARGS='--only humaneval')"
	@echo "make bench-engine  the run engine beside a bare loop: a table (ARGS='--quick')"
	@echo "make bench-board  the board in a browser with 1M and 10M samples beside an empty page: a table"
	@echo "make bench-store  journals into the database beside plain insertion: a table (ARGS='--rows 1000000')"
	@echo "make format       rewrite the code in the house format"

# An environment with the project installed; .stamp-EXTRA says which extra it has.
$(VENV)/.stamp-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(filter dev,$*),$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	$(if $(filter dev,$*),$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(CHECKER))
	@touch $@

eval: $(VENV)/.stamp-local
	$(BIN)/python -m harness eval --method flowreasoner $(ARGS)

leaderboard: $(VENV)/.stamp-leaderboard
	$(BIN)/python -m harness leaderboard $(ARGS)

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# BigCodeBench's libraries, in the cache folder; without them its tests are skipped, visibly.
environment: $(VENV)/.stamp-dev
	$(BIN)/python -m harness env bigcodebench || echo "BigCodeBench's tests will be skipped"

test: lint environment
	$(BIN)/python -m pytest $(ARGS)

test-all: lint environment
	$(BIN)/python -m pytest -m '' $(ARGS)

bench: environment
	$(MAKE) VENV=.venv-bench .venv-bench/.stamp-official
	.venv-bench/bin/python tests/bench_grading.py $(ARGS)

bench-engine: $(VENV)/.stamp-dev
	$(BIN)/python tests/bench_engine.py $(ARGS)

bench-board: $(VENV)/.stamp-dev
	$(BIN)/python tests/bench_board.py $(ARGS)

bench-store: $(VENV)/.stamp-dev
	$(BIN)/python tests/bench_store.py $(ARGS)

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache
