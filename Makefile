# SSLSeg. `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OUT ?= demo-output
# One thread per process: on a loaded machine two OpenMP threads wait for each other longer than they work.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.PHONY: help install demo test lint screenshot lock

help:
	@echo "make demo                         run the main job on generated scans and show what comes out"
	@echo "make demo COHORT=path/cohort.json the same on your own data"
	@echo "make test                         run the whole test suite"
	@echo "make screenshot [XVFB=1]          render the panel with real results to docs/images/panel.png [under Xvfb]"
	@echo "make bench-NAME                   long measurements: $(patsubst Testing/benchmarks/bench_%.py,%,$(wildcard Testing/benchmarks/bench_*.py))"

install:
	@$(PYTHON) tools/install.py $(VENV)

demo: install
	@$(RUN) -m SSLSegLib demo --out $(OUT) $(if $(COHORT),--cohort "$(COHORT)")

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Two processes; all tests of a file in one. TESTS_AT_ONCE=0 runs them one after another in this process.
TESTS_AT_ONCE ?= 2
test: lint
	$(RUN) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile

# The panel with real results in the four views, rendered offscreen by the stand-in for Slicer; with XVFB=1 in a window
# of a real X server.
PICTURE ?= docs/images/panel.png
screenshot: install
	$(if $(XVFB),QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1920x1280x24") \
	  $(RUN) Testing/slicerhost/screenshot.py $(PICTURE) $(ARGS)

# Long measurements; ARGS="..." is passed on.
bench-%: install
	$(RUN) Testing/benchmarks/bench_$(subst -,_,$*).py $(ARGS)

# The pinned lock files from requirements.in (needs uv and the network; for developers).
lock:
	mkdir -p build
	uv pip compile requirements/requirements.in --override requirements/overrides.txt --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate -o build/all.lock
	$(PYTHON) tools/split_lock.py build/all.lock requirements
