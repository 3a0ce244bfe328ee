# The recipes of the project. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Where rustup puts cargo, for shells that don't know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Seconds that `make demo` records.
DEMO_SECONDS ?= 5
# Minutes that `make soak` records.
SOAK_MINUTES ?= 60

.PHONY: help setup build demo test lint docs deps test-vm ci faults sweep soak bench deb

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that building and testing need (apt, with sudo unless root)
	@scripts/install-deps.sh test

build: ## build the binary (target/debug/shutterd)
	@scripts/install-deps.sh demo
	@cargo build --locked

demo: build ## record synthetic devices, play the file back with ffprobe and compare it with the receipt
	@scripts/demo.sh $(DEMO_SECONDS)

test: ## run every test that needs no virtual machine
	@scripts/install-deps.sh test
	@scripts/test.sh

lint: ## check the format, and lint Rust and shell
	@scripts/lint.sh

docs: ## build the documentation of the code, warnings are errors
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps --document-private-items

deps: ## check licences and sources of the dependencies
	@scripts/check-deps.sh

test-vm: build ## record real V4L2 and ALSA devices in a virtual machine (builds its image at the first run)
	@SHUTTERD_BIN="$${CARGO_TARGET_DIR:-target}/debug/shutterd" tests/vm/test-vm.sh

ci: ## what CI runs: all of the above
	@.ci/run

faults: build ## inject the faults that a capture host meets, and print what holds (FAULTS="E3 K1" for some)
	@scripts/install-deps.sh test
	@scripts/faults.sh $(FAULTS)

soak: build ## record synthetic devices at 30, low-light and 5 frames a second for SOAK_MINUTES, and tell every false alarm
	@scripts/soak.py "$${CARGO_TARGET_DIR:-target}/debug/shutterd" $(SOAK_MINUTES)

sweep: build ## let each system call go wrong once, and print what holds (SWEEP="worker write EIO" for some)
	@scripts/install-deps.sh test
	@scripts/sweep.sh $(SWEEP)

bench: ## measure cost and delays (not there yet)
	@echo "make bench: not there yet" >&2; exit 1

deb: ## build a Debian package (not there yet)
	@echo "make deb: not there yet" >&2; exit 1
