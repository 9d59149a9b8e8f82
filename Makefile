# The two commands to start with: `make demo` and `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEV := $(VENV)/ready-dev
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
COMPILE := pip-compile --quiet --strip-extras --generate-hashes --no-header --no-emit-index-url \
    --no-emit-find-links --no-emit-trusted-host --allow-unsafe
EXTRAS := --extra butler --extra jupyter --extra slurm --extra kubernetes --extra gateway \
    --extra bench --extra dev

.PHONY: demo bench test lint types check clean lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps -e .
	touch $(READY)

# Everything that tests, lint and the benchmark's peers need.
$(DEV): $(READY) requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $(DEV)

demo: $(READY)
	$(BIN)/bgmatch demo demo-output

# About three minutes; `.venv/bin/bgmatch bench --full` is thorough.
bench: $(DEV)
	$(BIN)/bgmatch bench

test: $(DEV)
	$(BIN)/python -m pytest

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV)
	$(BIN)/mypy

check: lint types test

# Re-pin all dependencies (needs pip-tools).
lock:
	$(COMPILE) $(EXTRAS) -o requirements-dev.lock pyproject.toml
	$(COMPILE) -c requirements-dev.lock -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) demo-output
