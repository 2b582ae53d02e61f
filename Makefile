# driftline: `make help` lists what there is.

PYTHON ?= python3
STATE ?= .driftline
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
UV_VERSION := 0.13.8

# Compiled imports start services in a third of the time.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help demo year test unit lint bench load up down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed ## play 14 April days of real flights (DAYS=, FROM=), end to end, and show that it all adds up
	@DRIFTLINE_INSTALL_SECONDS=$$(cat $(STATE)/install-seconds 2>/dev/null || echo 0) \
		$(BIN)/driftline demo --project examples/flights $(if $(DAYS),--days $(DAYS)) $(if $(FROM),--from $(FROM))

year: .venv/.installed ## play April to December 2013 through the whole loop (DAYS=, FROM=), report in docs/year.md
	@$(BIN)/driftline year --project examples/flights --report docs/year.md \
		$(if $(DAYS),--days $(DAYS)) $(if $(FROM),--from $(FROM))

test: lint .venv/.installed-dev ## run every check and every test (starts and stops its own servers)
	@$(BIN)/python -m driftline.embedded.warm
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15

unit: .venv/.installed-dev ## run the fast tests only
	$(BIN)/pytest tests/unit libs

lint: .venv/.installed-dev ## check form, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed-dev ## measure the hot paths beside their peers (ARGS="feature --runs 3")
	$(BIN)/python -m benchmarks $(ARGS)

load: .venv/.installed-dev ## open-loop load on the predictor: saturation, twice that, recovery (ARGS="--seconds 5")
	$(BIN)/python -m benchmarks.load $(ARGS)

up: .venv/.installed ## start everything for the flights and leave it running
	$(BIN)/driftline up --project examples/flights

down: ## stop what `make up` started
	$(BIN)/driftline down

clean: ## remove the environment, the state and the caches of tools
	@test ! -x $(BIN)/driftline || $(BIN)/driftline down --state $(STATE)
	rm -rf .venv $(STATE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "driftline needs Python 3.11 or later: make PYTHON=python3.11 demo"; exit 1)
	@echo "making the environment .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.installed: requirements.txt pyproject.toml | $(BIN)/uv
	@mkdir -p $(STATE)
	@begun=$$(date +%s); echo "installing pinned dependencies"; \
		$(UV) --require-hashes -r requirements.txt && $(UV) --no-deps -e . && \
		echo $$(( $$(date +%s) - begun )) > $(STATE)/install-seconds
	@touch $@

.venv/.installed-dev: requirements-dev.txt pyproject.toml | .venv/.installed
	@echo "installing the tools for checks and tests"
	@$(UV) --require-hashes -r requirements-dev.txt && $(UV) --no-deps -e .
	@touch $@
