# `make demo` and `make test` need nothing but Python 3.11 or newer: each builds .venv by itself, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# One thread per process: two processes of one thread each beat one of two, and the tests run side by side.
ONE_THREAD := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
NUM_TEST_PROCESSES ?= 2

.PHONY: help demo maze test check slow bench install clean

help:
	@echo "make demo    train, evaluate and register a policy on real logged data (first time: installs into $(VENV))"
	@echo "make maze    every method of the paper's story on a toy maze, in one picture: minutes on two cores"
	@echo "make test    the test suite (set-up included)"
	@echo "make check   ruff and pyright"
	@echo "make slow    science and long drills: minutes each"
	@echo "make bench   the benchmarks that the speed claims rest on"
	@echo "make clean   remove $(VENV) and caches; runs/ and data/ stay"

demo: $(INSTALLED)
	@$(BIN)/python -m pipelines.demo

maze: $(INSTALLED)
	@$(BIN)/python -m pipelines.maze

# Tests without Ray run side by side; those with Ray share one session, because starting it takes seconds.
test: $(INSTALLED)
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -m "not slow and not ray" -n $(NUM_TEST_PROCESSES) --dist loadfile
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -m "not slow and ray"

slow: $(INSTALLED)
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -m slow

check: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(INSTALLED)
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) is not on PATH: install Python 3.11, or name another as PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade "pip>=25.1"
	@echo "  torch"
	@$(PIP) install -c constraints.txt torch
	@echo "  iql-ray, Ray, MLflow, MuJoCo and the development tools"
	@$(PIP) install -c constraints.txt -e ".[mujoco]" --group dev
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
