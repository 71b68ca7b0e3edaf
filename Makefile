# What a developer calls. `make` alone lists the targets; the work is in scripts/.
# Results of builds go to $GANTRY_CACHE (default ~/.cache/gantry), so that every clone shares them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
ENV := . scripts/env.sh &&

# Arguments for `make standalone`, `make test-java` and `make e2e`.
ARGS ?=
# Kills in each flush mode of `make soak`.
KILLS ?= 20
# Seconds for each target of `make fuzz`.
SECONDS_EACH ?= 20

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Install what building and testing need (apt), only what is missing
	@scripts/setup

.PHONY: demo
demo: ## Start a Kubernetes, install the operator, make a cluster from YAML, send and receive (says first what it does)
	@scripts/demo

.PHONY: demo-clean
demo-clean: ## Undo `make demo`
	@scripts/demo-clean

.PHONY: test
test: ## Set up, check format and lints, build, and run every test
	@scripts/test

.PHONY: build
build: ## Build all binaries for development
	@$(ENV) cargo build --workspace

.PHONY: test-rust
test-rust: ## Run the Rust tests, checks of the tree included
	@$(ENV) cargo test --workspace

.PHONY: test-java
test-java: ## Run RocketMQ's Java clients against a server (ARGS=SCENARIO… for some of them)
	@scripts/test-java $(ARGS)

.PHONY: test-kill
test-kill: ## Kill a server under load and check that no answered message is lost
	@scripts/test-kill

.PHONY: test-planted
test-planted: ## Plant three bugs in the store, one by one, and check that its tests find each (about 5 minutes)
	@scripts/test-planted $(ARGS)

.PHONY: test-instructions
test-instructions: ## Count the instructions of a fixed replay, fail on 5 % more (GANTRY_UPDATE=1 accepts)
	@scripts/test-instructions

.PHONY: e2e
e2e: ## Run the end-to-end tests on a Kubernetes of their own (ARGS=NAME for some of them)
	@scripts/e2e $(ARGS)

.PHONY: soak
soak: ## Crash the store in more states, kill a server KILLS=20 times in each flush mode, then overload, bad peers, malformed frames, GIB=10 of log that expire, a log that deletes its oldest (about 17 minutes)
	@$(ENV) GANTRY_CRASH_SAMPLES=30 cargo test -q -p gantry-store --lib crash_states
	@GANTRY_KILLS=$(KILLS) scripts/test-kill
	@scripts/soak-overload
	@scripts/soak-peers
	@scripts/soak-frames
	@scripts/soak-unlink
	@scripts/soak-delete-oldest

.PHONY: fuzz
fuzz: ## Run every fuzz target for SECONDS_EACH=20 seconds
	@scripts/fuzz $(SECONDS_EACH)

.PHONY: bench
bench: ## Build for release, measure, also beside Apache RocketMQ, and write docs/performance.md (an hour and a half; needs Maven and Java 17, or APACHE=no)
	@scripts/bench

.PHONY: bench-compare
bench-compare: ## The second part of it alone: beside Apache RocketMQ
	@scripts/bench-compare

.PHONY: standalone
standalone: ## Build for release and run a name server and a broker on this machine (ARGS='--help')
	@scripts/standalone $(ARGS)

.PHONY: fmt
fmt: ## Format the Rust sources
	@$(ENV) cargo fmt --all

.PHONY: lint
lint: ## Check format and lints
	@$(ENV) cargo fmt --all --check
	@$(ENV) cargo clippy --workspace --all-targets --locked -- -D warnings
