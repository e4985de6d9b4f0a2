# SSLSeg. `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.PHONY: demo test lint install lock

install:
	@$(PYTHON) tools/install.py $(VENV)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint
	$(RUN) -m pytest

# The pinned lock files from requirements.in (needs uv and the network; for developers).
lock:
	uv pip compile requirements/requirements.in --override requirements/overrides.txt --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate -o build/all.lock
	$(PYTHON) tools/split_lock.py build/all.lock requirements
