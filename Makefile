# make setup   .venv with everything; make demo, make test and the rest set up by themselves
# make demo    the paper's claims with one seed of a small network: trained, measured, drawn, and
#              told in a page that opens by a double click, runs/demo/report.html;
#              one seed shows a claim or does not show it, and gives no verdict;
#              make demo SCALE=laptop DEMO=runs/laptop: twice the characters, three times the steps
# make test    style, types, architecture, tests, the numeric ones on two instruction sets;
#              make test-long: those that take minutes, and all on the oldest instruction set;
#              make test-oldest: the tests with the oldest torch and torchvision, in .venv-oldest

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
OLDEST := .venv-oldest
# The lower bounds in pyproject.toml; torch and torchvision come in pairs.
OLDEST_PAIR := torch==2.11.0 torchvision==0.26.0
DEMO := runs/demo
SCALE := quick
# The tests run in two processes, one thread each; a file in one of them, so that what its tests
# share is made once.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
TWO := -n 2 --dist loadfile --no-loadscope-reorder
# What `make test` runs a second time, with the oldest instruction set: two minutes of two cores.
NUMERIC := tests/measures tests/probes/test_span.py tests/probes/test_engine.py \
	tests/analyzer/test_similarity.py tests/analyzer/test_measure.py \
	tests/analyzer/test_equivariance.py tests/analyzer/attribution/test_methods.py \
	tests/recording/test_sweep.py tests/recording/test_identity.py \
	tests/recording/incremental/test_vectors.py tests/recording/incremental/test_engines.py

.PHONY: setup demo notebooks test test-long test-oldest check style types houses compiled bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found"; exit 1; }
	@echo "setting up .venv (torch is large: this takes a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade pip
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@touch .venv/ready

demo: setup
	@$(BIN)/elsewhere reproduce --scale $(SCALE) --out $(DEMO)
	@$(BIN)/elsewhere report $(DEMO) --out $(DEMO)/report.html --overwrite
	@echo "the claims are in $(DEMO)/claims.json, the figures in $(DEMO)/figures/; open the report:"
	@echo "$(CURDIR)/$(DEMO)/report.html"

check: setup
	@$(MAKE) --no-print-directory --jobs 2 style types houses

style:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types:
	@$(BIN)/mypy

houses:
	@$(BIN)/lint-imports

# Hundreds of processes import the package: it is compiled once, whatever PYTHONDONTWRITEBYTECODE is.
compiled: setup
	@$(BIN)/python -m compileall -q elsewhere

test: check compiled
	@$(ONE_THREAD) $(BIN)/python -m pytest $(TWO) -m "not long"
	@echo "the tests of numbers again, as on the oldest processor:"
	@$(ONE_THREAD) $(BIN)/python tests/lowest.py $(TWO) -m "not long" $(NUMERIC)

test-long: compiled
	@$(ONE_THREAD) $(BIN)/python -m pytest $(TWO) -m long
	@echo "the whole suite again, as on the oldest processor:"
	@$(ONE_THREAD) $(BIN)/python tests/lowest.py $(TWO)

test-oldest: $(OLDEST)/ready
	@$(ONE_THREAD) $(OLDEST)/bin/python -m pytest $(TWO) -m "not long"

$(OLDEST)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install -qq --upgrade pip
	@grep -v '^torch' constraints.txt > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install -qq -c $(OLDEST)/constraints.txt $(OLDEST_PAIR) -e '.[dev]'
	@touch $(OLDEST)/ready

# Each notebook runs in a kernel; they are dealt out one by one, for they take unequally long.
notebooks: compiled
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist load --durations=0 tests/docs/test_notebooks.py

bench: setup
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv $(OLDEST) runs dist build
