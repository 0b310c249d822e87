# make setup   .venv with everything; make demo, make test and the rest set up by themselves
# make demo    records VGG16 for ten objects at 49 locations, compares its layers, draws them
# make test    style, types, architecture, tests; make test-long: those that take minutes

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := runs/demo
# The tests run in two processes: one thread each.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: setup demo test test-long check bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found"; exit 1; }
	@echo "setting up .venv (torch is large: this takes a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade pip
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@touch .venv/ready

demo: setup
	@mkdir -p $(DEMO)
	@$(BIN)/elsewhere objects glyphs --categories 10 --out $(DEMO)/objects.png --overwrite
	@$(BIN)/elsewhere record vgg16 --objects glyphs --categories 10 --grid 7x7 \
		--out $(DEMO)/vgg16.h5 --similarity $(DEMO)/similarity.nc --overwrite
	@$(BIN)/elsewhere figure $(DEMO)/similarity.nc --kind layerwise --out $(DEMO)/layerwise.png --overwrite
	@$(BIN)/elsewhere figure $(DEMO)/similarity.nc --kind layerwise --out $(DEMO)/layerwise.svg --overwrite
	@$(BIN)/elsewhere figure $(DEMO)/similarity.nc --kind maps --out $(DEMO)/maps.png --overwrite
	@$(BIN)/elsewhere figure $(DEMO)/similarity.nc --kind displacement --out $(DEMO)/displacement.png --overwrite
	@$(BIN)/elsewhere inspect $(DEMO)/vgg16.h5 | head -n 12
	@echo "the recording, the results and the figures are in $(DEMO)/"

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not long"

test-long: setup
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m long

bench: setup
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs dist build
