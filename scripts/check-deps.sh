#!/usr/bin/env bash
# Checks the dependencies against deny.toml: by cargo-deny where it is installed, else the most
# important of it (licences, sources, banned crates) by check-deps.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v cargo-deny >/dev/null; then
  # Advisories are left out: they come from a repository that CI may not reach.
  cargo deny --locked check bans licenses sources
fi
scripts/check-deps.py
