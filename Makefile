# `make demo` and `make test` set everything up in .venv first, from pinned and hashed packages.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check install lock
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/fedsys simulate

test: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

install: .venv/installed

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/tested: requirements-test.txt .venv/installed
	$(BIN)/pip install --quiet --require-hashes -r requirements-test.txt
	@touch $@

# Pins every package with its hashes, for all platforms; for whoever changes the dependencies. The
# larger set first: what the smaller holds must fit it.
lock:
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --extra test pyproject.toml -o requirements-test.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --extra edge --extra deploy --extra parquet pyproject.toml -c requirements-test.txt \
		-o requirements.txt
