# Two commands matter: `make demo` and `make test`. Each does all of its set-up first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO := $(wildcard proto/headwater/v1/*.proto)
# What the tests run that is not Python, each with the Debian package that brings it.
TEST_PROGRAMS := prometheus=prometheus promtool=prometheus systemd-analyze=systemd sqlite3=sqlite3 ip=iproute2 chromium=chromium

.DEFAULT_GOAL := help

help: ## Say what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

# Set-up says what it does on standard error: the first line of `make demo` on standard output is the demo's own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then { apt-get update -qq && apt-get install -y -qq python3-venv; } >&2; \
	  else echo "Python's venv module is missing: install the package python3-venv" >&2; exit 1; fi; }
	@echo "Making $(VENV) …" >&2
	@$(PYTHON) -m venv $(VENV) >&2

$(VENV)/.installed: $(BIN)/python requirements.lock pyproject.toml
	@echo "Installing what requirements.lock names into $(VENV) …" >&2
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock >&2
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable . >&2
	@touch $@

setup: $(VENV)/.installed ## Create .venv and install what the lock file names.

demo: setup ## Start a primary and two standbys, load them, and compare them (DEMO_SECONDS=20 ends by itself).
	@$(BIN)/headwater demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

failover-demo: setup ## Kill a primary under load, let it come back, and count what was lost.
	@$(BIN)/headwater failover-demo

test-programs:
	@sh ops/require_programs.sh $(TEST_PROGRAMS)

test: setup test-programs ## Run every test.
	$(BIN)/python -m pytest

chaos: setup test-programs ## Kill, freeze, cut off, fill and slow three real nodes under load, and check everything (ROUNDS=50 SEED=1).
	$(BIN)/python -m tests.chaos.run --rounds $(or $(ROUNDS),50) $(if $(SEED),--seed $(SEED))

SEEDS ?= 1000
FIRST ?= 1
simulate: setup ## Run SEEDS seeds of the simulation, from FIRST on.
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

check: setup ## Lint, types, formatting, generated code up to date.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory STUBS=$$(mktemp -d) check-stubs
	@$(BIN)/python ops/grafana/dashboard.py | cmp - ops/grafana/headwater.json || { echo "stale: run make dashboard"; exit 1; }

BENCHMARKS := append "append --writers 1" "append --groups 1,2,4,16" lag length catchup resync memory failover read
bench: setup ## Measure speed and size, and judge all goals; prints a JSON document a line.
	@for what in $(BENCHMARKS); do $(BIN)/headwater bench $$what --json || exit 1; done

proto: setup ## Generate agent_core/rpc from proto/.
	@$(MAKE) --no-print-directory STUBS=. generate-stubs

generate-stubs:
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iagent_core/rpc=proto/headwater/v1 \
	  --python_out=$(STUBS) --grpc_python_out=$(STUBS) --mypy_out=$(STUBS) --mypy_grpc_out=$(STUBS) $(PROTO)

check-stubs: generate-stubs
	@for stub in $(STUBS)/agent_core/rpc/*; do cmp "$$stub" "agent_core/rpc/$$(basename $$stub)" || { echo "stale: run make proto"; exit 1; }; done

dashboard: setup ## Generate ops/grafana/headwater.json from ops/grafana/dashboard.py.
	$(BIN)/python ops/grafana/dashboard.py > ops/grafana/headwater.json

pictures: setup test-programs ## Take README.md's pictures of the dashboard and of terminals anew.
	$(BIN)/python -m tests.e2e.dashboard_pictures
	$(BIN)/python -m tests.e2e.terminal_pictures

lock: $(BIN)/python ## Choose exact versions anew within pyproject.toml's bounds.
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --all-build-deps --all-extras --output-file requirements.lock pyproject.toml

clean: ## Remove what set-up and tests made.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup demo failover-demo test test-programs chaos simulate check bench proto dashboard pictures generate-stubs \
  check-stubs lock clean
