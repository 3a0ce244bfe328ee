#!/usr/bin/env bash
# Lets each system call of a daemon and its workers go wrong once, a run each, and prints a table that ends with
# `N passed, M failed`: an hour on two cores.
#
#   scripts/sweep.sh [PROCESS [CLASS [FAULT [NUMBER]]]]     all, or these: worker write EIO 3
#
# SWEEP_EVERY=K takes each Kth call, SWEEP_SAMPLE=N so many runs in all, others for each SWEEP_SEED.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo test --locked --quiet --test sweep -- "$@"
