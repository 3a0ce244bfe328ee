#!/usr/bin/env bash
# Checks the format and lints: Rust by rustfmt and clippy, shell by shellcheck where it is installed.
# All of them run, also after one that found something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

code=0
# Lists the files that differ from what rustfmt makes of them.
cargo fmt -- --check -l || { echo "lint: format these files by cargo fmt" >&2; code=1; }
# `--all-targets` leaves out what `cargo test` does.
cargo clippy --locked --quiet --all-targets --test faults --test sweep -- -D warnings || code=1
if command -v shellcheck >/dev/null; then
  shellcheck --external-sources --source-path=SCRIPTDIR .ci/run scripts/*.sh tests/*/*.sh || code=1
else
  echo "lint: shellcheck is not installed; the shell scripts were not looked at" >&2
fi
exit "$code"
