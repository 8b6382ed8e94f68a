# Everything starts here: `make` lists the commands. They keep their own environment in .venv, installed from
# pinned and hash-checked wheels; once it is there, nothing needs the network.

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
UNFINISHED := $(VENV)/.unfinished
LLM := .venv-llm

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## set everything up and watch real jobs run, end to end
	@$(BIN)/python -m app demo

.PHONY: test
test: $(DEVELOPMENT) ## run the tests
	@$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

.PHONY: test-llm
test-llm: $(LLM)/.installed ## run the tests of the extra llm, in an environment of its own
	@$(LLM)/bin/python -m pytest tests/integration/test_model_llm.py

.PHONY: lint
lint: $(DEVELOPMENT) ## check style, types and import layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: $(DEVELOPMENT) ## measure the speed, beside other job services and limits
	@$(BIN)/python -m tests.bench

.PHONY: bench-quick
bench-quick: $(DEVELOPMENT) ## the same with fewer jobs
	@$(BIN)/python -m tests.bench --quick

.PHONY: chaos
chaos: $(DEVELOPMENT) ## kill, stop and cut for an hour, and count what was lost
	@$(BIN)/python -m pytest -m chaos
	@$(BIN)/python -m tests.chaos

.PHONY: repeat
repeat: $(DEVELOPMENT) ## run the chaos and concurrency tests again and again (TIMES=20)
	@$(BIN)/python -m tests.repeat $(TIMES)

.PHONY: fuzz
fuzz: $(DEVELOPMENT) ## send 20,000 made-up requests to the running service (FUZZ_SEED=…)
	@$(BIN)/python -m pytest -m chaos tests/acceptance/test_fuzz.py

.PHONY: audit
audit: $(DEVELOPMENT) ## look the pinned packages up among known vulnerabilities (needs the network)
	@$(BIN)/python -m pip_audit --version >/dev/null 2>&1 || { echo "pip-audit is not installed: $(BIN)/python -m pip install pip-audit" >&2; exit 1; }
	@echo "Asking the vulnerability database about requirements-dev.txt …"
	@$(BIN)/python -m pip_audit --requirement requirements-dev.txt --require-hashes --disable-pip --strict || { \
		echo "NOT AUDITED in full: either a package above has a known vulnerability, or the database was not reached." >&2; \
		echo "'could not be audited' and errors of connection mean the latter: this command needs the network." >&2; \
		exit 1; }

.PHONY: mutants
mutants: $(DEVELOPMENT) ## take each guard out, and see its test go red
	@$(BIN)/python -m tests.model

.PHONY: serve
serve: $(RUNTIME) ## run the API
	@exec $(BIN)/python -m app serve

.PHONY: worker
worker: $(RUNTIME) ## run a worker
	@exec $(BIN)/python -m workers

.PHONY: clean
clean: ## remove the environment and every cache
	rm -rf $(VENV) $(LLM) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find app workers tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: pins
pins: ## renew the pinned requirements (needs uv)
	@uv pip compile $(PINNED) pyproject.toml --output-file requirements.txt
	@uv pip compile $(PINNED) pyproject.toml $(EXTRAS) --group dev --constraint requirements.txt --output-file requirements-dev.txt

PINNED := --quiet --upgrade --universal --python-version 3.11 --only-binary :all: --extra embedded \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make pins'

EXTRAS := --extra embeddings --extra optimizer --extra s3 # what the tests use beside the default install

LLM_PACKAGES := 'torch>=2.6' 'transformers>=4.50' 'peft>=0.15'

# --- the environment -----------------------------------------------------------------------------

# Recursive on purpose: looked up only when an environment has to be made. Each candidate is run, because
# a version manager's shim may be on PATH and lead nowhere.
PYTHON = $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

# What was killed half-way, or has lost its interpreter, is made anew.
ifneq ($(filter-out help clean pins,$(MAKECMDGOALS)),)
ifneq ($(wildcard $(VENV)),)
ifneq ($(shell test ! -e $(UNFINISHED) && $(BIN)/python -c 'print("sound")' 2>/dev/null),sound)
$(info The environment in $(VENV) is broken: making it anew.)
$(shell rm -rf $(VENV))
endif
endif
endif

# The pins are complete, so nothing else is looked for. The mark survives only a kill: after an orderly failure the next run goes on with what there is.
define install
	@echo "Installing $< into $(VENV) …"
	@touch $(UNFINISHED)
	@if command -v uv >/dev/null; then \
		uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --only-binary :all: -r $<; \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r $<; \
	fi || { rm -f $(UNFINISHED); exit 1; }
	@rm -f $(UNFINISHED)
	@touch $@
endef

$(RUNTIME): requirements.txt | $(BIN)/python
	$(install)

# A superset of the former, so it alone is enough for the tests.
$(DEVELOPMENT): requirements-dev.txt | $(BIN)/python
	$(install)

# Not pinned by hash: torch without CUDA comes from an index of its own (PIP_EXTRA_INDEX_URL), or from a mirror.
$(LLM)/.installed: requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed." >&2; exit 1; }
	@echo "Making $(LLM) with torch, transformers and peft …"
	@$(PYTHON) -m venv $(LLM)
	@$(LLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r $<
	@$(LLM)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: $(LLM_PACKAGES)
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON) …"
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	@if command -v uv >/dev/null; then \
		uv venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV) || { \
			echo "Python's venv is missing: sudo apt-get install python3-venv (or install uv), then try again." >&2; false; }; \
	fi || { rm -rf $(VENV); exit 1; }
	@rm -f $(UNFINISHED)
