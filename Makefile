# Everything runs in .venv, which `make setup` builds from the lock. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH := torch==2.13.0
DISTRIBUTIONS := protos services/common services/inference services/sandbox services/dataset services/coordinator \
	sandbox-runner trainer cli
EDITABLE := $(foreach dist,$(DISTRIBUTIONS),-e ./$(dist))

# What a run is made of; see `make run` below.
MODEL ?=
SEEDS ?= stdlib
N ?= 24
PRESET ?= small
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(STAMP) ## Build .venv: the locked packages, torch, and the nine distributions (editable)

$(STAMP): requirements.lock $(foreach dist,$(DISTRIBUTIONS),$(dist)/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "CodeAlign needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV): about 2 minutes with warm package caches"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	@touch $@
	@echo "$(VENV) is ready"

.PHONY: run
run: setup ## Seeds in, proved rows out: make run MODEL=<hub id or folder> [SEEDS=<folder>] [N=<seeds>] [ARGS=<options>]
	@test -n "$(MODEL)" || { echo "make run needs a model: make run MODEL=<hub id or folder>" >&2; exit 2; }
	@$(BIN)/codealign run --model "$(MODEL)" --seeds "$(SEEDS)" --n "$(N)" --preset "$(PRESET)" $(ARGS)

.PHONY: test
test: setup check ## Every check and every test
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: check
check: setup ## Format, lint, types, contracts
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy $(foreach dist,$(DISTRIBUTIONS),$(dist)/src)
	@for tests in services/*/tests sandbox-runner/tests trainer/tests cli/tests tests; do \
		if compgen -G "$$tests/*.py" >/dev/null; then $(BIN)/mypy --no-error-summary $$tests; fi; done
	@cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against contracts.binpb

.PHONY: proto
proto: setup ## Generate the Python of the contracts
	@PYTHON=../$(BIN)/python protos/generate.sh

.PHONY: contracts
contracts: setup ## Accept the contracts as they are: what `buf breaking` compares with
	@cd protos && ../$(BIN)/buf build -o contracts.binpb

.PHONY: lock
lock: ## Renew requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv lock --quiet --upgrade --python $(BIN)/python
	@$(BIN)/uv export --quiet --frozen --all-packages --extra transformers --all-groups --no-emit-workspace --no-emit-package torch \
		--no-header --no-annotate --output-file requirements.lock
	@rm -f uv.lock

.PHONY: clean
clean: ## Remove .venv and what the tools left; .codealign (your data) stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
