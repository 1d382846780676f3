# Perdure's everyday commands; `make help` lists them. Needs make and Python 3.11 or newer, nothing else:
# Python packages go to .venv, npm packages to .cache/npm, what is built of tests/sdks to .cache/sdks, the server's
# data to perdure-data.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run setup tools check format types test unit simulation sim e2e kill conformance parity bench bench-stored clean

# The first interpreter that is new enough, unless PYTHON names one.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
NPM := .cache/npm
SDKS := .cache/sdks

# What the tests and benchmarks take from npm; one place for the versions.
NODE_PACKAGE := node-$(shell uname -s | tr A-Z a-z)-$(shell uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
NPM_PACKAGES := $(NODE_PACKAGE)@22 @restatedev/restate-sdk@1.17.2 @restatedev/restate-sdk-clients@1.17.2 \
	@restatedev/restate-server@1.7.12 @restatedev/restate@1.7.12

# Where a test, a benchmark or the conformance suite finds them (tests/support/tools.py).
export NODE_MODULES_DIR ?= $(CURDIR)/$(NPM)/node_modules
export NODE_BIN ?= $(NODE_MODULES_DIR)/$(NODE_PACKAGE)/bin/node
export SDK_PROGRAMS_DIR ?= $(CURDIR)/$(SDKS)

PYTEST := $(BIN)/python -m pytest

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run takes INGRESS_PORT=, ADMIN_PORT=, NODE_PORT=, SAMPLE_PORT=; make test takes ARGS= for pytest"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "missing: Python 3.11 or newer (make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: installed again when what is to be installed changed.
$(VENV)/.run: pyproject.toml sdk/examples/python/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server]' \
		-r sdk/examples/python/requirements.txt
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# npm may be missing, or its registry out of reach: that is one line, and the tests that need it are skipped
# and listed at the end.
$(NPM)/.installed: Makefile
	@mkdir -p $(NPM)
	@if ! command -v npm >/dev/null 2>&1; then \
		echo "missing: npm; the tests with TypeScript services and the real restate-server are skipped"; \
	elif npm install --prefix $(NPM) --ignore-scripts --no-audit --no-fund --no-save --silent $(NPM_PACKAGES); then \
		touch $@; \
	else \
		echo "missing: npm could not fetch $(NPM_PACKAGES); the tests that need them are skipped"; \
	fi

# The same with the compilers of Java and Go. Versions of the SDKs are in pom.xml and go.mod.
$(SDKS)/java/.built: tests/sdks/java/pom.xml $(wildcard tests/sdks/java/src/main/java/contract/*.java)
	@mkdir -p $(@D)
	@if ! command -v mvn >/dev/null 2>&1 || ! command -v javac >/dev/null 2>&1; then \
		echo "missing: a JDK or Maven; the tests of the Java SDK are skipped"; \
	elif mvn -q -B -f $< -Dbuilt=$(CURDIR)/$(@D) compile dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory=$(CURDIR)/$(@D)/libs; then \
		touch $@; \
	else \
		echo "missing: Maven could not build tests/sdks/java; the tests of the Java SDK are skipped"; \
	fi

$(SDKS)/go/contract: $(wildcard tests/sdks/go/go.* tests/sdks/go/*.go)
	@mkdir -p $(@D)
	@if ! command -v go >/dev/null 2>&1; then \
		echo "missing: Go; the tests of the Go SDK are skipped"; \
	elif (cd tests/sdks/go && GOFLAGS=-mod=mod go build -o $(CURDIR)/$@ .); then \
		touch $@; \
	else \
		echo "missing: Go could not build tests/sdks/go; the tests of the Go SDK are skipped"; \
	fi

run: $(VENV)/.run ## start a server with a sample service; Ctrl-C stops both, data stays in perdure-data
	@exec $(BIN)/python deploy/run_sample.py $(if $(INGRESS_PORT),--ingress-port $(INGRESS_PORT)) \
		$(if $(ADMIN_PORT),--admin-port $(ADMIN_PORT)) $(if $(NODE_PORT),--node-port $(NODE_PORT)) \
		$(if $(SAMPLE_PORT),--sample-port $(SAMPLE_PORT))

setup: $(VENV)/.dev ## install everything for development into .venv

TOOLS := $(NPM)/.installed $(SDKS)/java/.built $(SDKS)/go/contract

tools: $(TOOLS) ## fetch Node 22, the TypeScript SDK and the real restate-server, build the Java and Go programs

check: $(VENV)/.dev ## formatting, lints, types, architecture: seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/test_architecture.py tests/test_repo.py

format: $(VENV)/.dev ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: unit simulation e2e conformance ## every test there is: minutes

unit: $(VENV)/.dev ## unit, property, contract and golden tests: seconds
	$(PYTEST) tests --ignore=tests/simulation $(ARGS)

simulation: $(VENV)/.dev ## 200 seeds of the simulator, and each correctness rule taken out and found
	$(PYTEST) tests/simulation $(ARGS)

sim: $(VENV)/.dev ## replay one seed of the simulator: make sim SEED=17
	@test -n "$(SEED)" || { echo "which seed? make sim SEED=17"; exit 2; }
	PYTHONPATH=tests $(BIN)/python -m simulation $(SEED)

e2e: $(VENV)/.dev $(TOOLS) ## real processes: four SDKs, the samples, make run, the kill test
	$(PYTEST) tests/e2e $(ARGS)

kill: $(VENV)/.dev ## the kill test alone, each run with a draw of its own: make kill RUNS=10
	KILL_TEST_RUNS=$(or $(RUNS),1) $(PYTEST) -s tests/e2e/test_kill.py $(ARGS)

conformance: $(VENV)/.dev ## the conformance suite's part that this release answers for
	$(BIN)/python tests/conformance_subset.py $(ARGS)

parity: $(VENV)/.dev $(NPM)/.installed ## compare every answer with the real server, write tests/parity.md
	PYTHONPATH=tests $(BIN)/python -m parity

bench: $(VENV)/.dev $(NPM)/.installed ## compare with restate-server, about an hour: make bench ARGS='--pairs 2'
	$(BIN)/python benchmarks/compare.py $(ARGS)

bench-stored: $(VENV)/.dev $(NPM)/.installed ## what a call costs when a million calls are stored
	$(BIN)/python benchmarks/stored.py $(ARGS)

clean: ## remove environments and caches; perdure-data stays
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
