#!/usr/bin/env bash
# Injects the faults that a capture host meets into the real binary, and prints a table that ends with
# `N of M rows hold`.
#
#   scripts/faults.sh [ROW...]      all rows, or these
#
# The exit code is not 0 if any row that could be run fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --locked --quiet --test faults -- "$@"
