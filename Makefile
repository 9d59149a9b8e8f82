# The two commands to start with: `make demo` and `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint types check clean lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/bgmatch demo demo-output

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

check: lint types test

# Re-pin all dependencies (needs pip-tools).
lock:
	pip-compile --quiet --extra dev --extra bench --strip-extras --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe \
	    -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) demo-output
