# Two targets do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
export SLUICE_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
VENV := .venv
BIN := $(VENV)/bin
# What is installed for a lock file and this Python: one made by another cannot be gone on with.
PYTHON_BUILD := $(shell $(PYTHON) -VV 2>/dev/null)
key = $(firstword $(shell { cat $(1); echo '$(PYTHON_BUILD)'; } | sha256sum))
TOOLS := $(SLUICE_CACHE_DIR)/tools-$(call key,dev/locks/tools.txt)
UV := $(TOOLS)/bin/uv
export UV_CACHE_DIR ?= $(SLUICE_CACHE_DIR)/uv
# A cold download of torch is 3 GB; say what fails, do not hang on a slow line.
export UV_HTTP_TIMEOUT ?= 300
PYTEST_ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-zA-Z_-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- development environment ------------------------------------------------------------------
.PHONY: venv
venv: $(VENV)/.installed ## Make .venv with all distributions and the test tools, for development

$(UV): dev/locks/tools.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null || { \
	  echo "Python 3.11 or later with venv is needed (PYTHON=$(PYTHON)); on Debian: apt-get install -y python3 python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --require-hashes -r dev/locks/tools.txt
	@touch $@

# Compiled once: where Python may not write bytecode, every process that imports torch would compile it for 11 s.
$(VENV)/.installed: dev/locks/dev.txt proto/pyproject.toml server/pyproject.toml operator/pyproject.toml client/pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes dev/locks/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e proto -e client -e server -e operator
	@touch $@

.PHONY: lock
lock: $(UV) ## Resolve the lock files anew (versions and hashes only)
	UV=$(UV) dev/locks/update.sh

.PHONY: proto
proto: venv ## Generate the Python stubs from proto/ anew
	proto/generate.sh

# --- the local cluster and the demo -----------------------------------------------------------
# The two commands that do everything may install what they need; the others only name it.
demo test: export SLUICE_INSTALL_PACKAGES := 1
CLUSTER ?= local
DEV := UV=$(UV) $(PYTHON) -m

.PHONY: demo
demo: $(UV) ## The main job, end to end: cluster, images, chart, model, EmbeddingService, client (CLUSTER=current)
	$(DEV) dev.demo --cluster $(CLUSTER)

.PHONY: images
images: ## Build both images and push them to the local cluster, or to IMAGE_REGISTRY
	$(DEV) dev.images

.PHONY: cluster-up
cluster-up: ## Bring the local Kubernetes up, or mend it
	$(DEV) dev.cluster up

.PHONY: cluster-down
cluster-down: ## Take the local Kubernetes down; nothing stays running or mounted
	$(DEV) dev.cluster down

.PHONY: cluster-status
cluster-status: ## Say what runs, where its logs are, and how to use kubectl
	$(DEV) dev.cluster status

# --- checks and tests -------------------------------------------------------------------------
.PHONY: lint
lint: lint-style lint-types lint-layers lint-generated ## Style, types, layers, generated code

.PHONY: lint-style
lint-style: venv
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

.PHONY: lint-types
lint-types: venv
	$(BIN)/mypy client/sluice_client server/sluice_server operator/sluice_operator dev bench simulation

.PHONY: lint-layers
lint-layers: venv
	$(BIN)/lint-imports --no-cache

# The committed stubs and the chart's copy of the CRD are what their sources make.
.PHONY: lint-generated
lint-generated: venv
	proto/generate.sh
	git diff --exit-code -- proto
	diff crds/embeddingservices.sluice.dev.yaml charts/sluice/crds/embeddingservices.sluice.dev.yaml

.PHONY: format
format: venv ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

.PHONY: simulate
simulate: venv ## Compare scaling with HPA, KPA and KEDA in a model of pods; writes simulation/results/
	$(BIN)/python -m simulation

# What a peer needs must not hold up the others: without its environment the page says who is absent, and why.
PEERS := $(SLUICE_CACHE_DIR)/peers-$(call key,dev/locks/peers.txt)
BENCH_ARGS ?=

.PHONY: bench
bench: venv ## Sluice and its peers side by side, 40 minutes; writes bench/results/ and bench/README.md (BENCH_ARGS)
	@test -e $(PEERS)/.installed || { $(UV) venv --quiet --allow-existing --python $(PYTHON) $(PEERS) && \
	  $(UV) pip sync --quiet --python $(PEERS)/bin/python --require-hashes dev/locks/peers.txt && \
	  touch $(PEERS)/.installed; } || echo "the peers of dev/locks/peers.txt cannot be installed; going on without them" >&2
	PEERS_ENVIRONMENT=$(PEERS) $(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: unit
unit: venv ## The tests that need neither cluster nor control plane
	$(BIN)/pytest -m "not e2e and not cluster" $(PYTEST_ARGS)

.PHONY: test
test: venv lint ## Everything: lint, unit, server, operator on a real API server, end to end
	$(BIN)/pytest -m "not e2e" $(PYTEST_ARGS)
	$(BIN)/pytest -m e2e --timeout 900 $(PYTEST_ARGS)
