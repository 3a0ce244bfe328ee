#!/usr/bin/env bash
# Records synthetic devices with the built binary, then has ffprobe count what is in the file and
# compares that with the receipt. Fails when they differ.
#
#   scripts/demo.sh [SECONDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=$(mktemp -d "${TMPDIR:-/tmp}/shutterd-demo.XXXXXX")
"${CARGO_TARGET_DIR:-target}/debug/shutterd" demo --seconds "${1:-5}" --dir "$dir"
echo
scripts/play-back.py "$dir"/media/*/receipt.json
