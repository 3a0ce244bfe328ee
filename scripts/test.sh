#!/usr/bin/env bash
# Runs every test that needs no virtual machine: those of cargo, then a client that isn't ours.
# The last line is `N passed, M failed`; the exit code is 0 only when all passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A test that hangs is a failure, not a wait.
limit_s=1800
logs=${CARGO_TARGET_DIR:-target}/test-logs
passed=0
failed=0
# People see the build's progress; a log is better off without it.
quiet=(--quiet)
[[ ! -t 2 ]] || quiet=()

main() {
  mkdir -p "$logs"
  # A build that fails must not look like tests that fail.
  echo "building the tests" >&2
  cargo test --locked "${quiet[@]}" --no-run
  run cargo timeout --kill-after=10 "$limit_s" cargo test --locked --quiet --no-fail-fast
  add "$(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$logs/cargo.log")"
  run python timeout --kill-after=10 300 tests/python/run.sh
  add "$(awk '/^[0-9]+ passed, [0-9]+ failed$/ { line = $1 " " $3 } END { print line ? line : "0 0" }' "$logs/python.log")"
  echo "$passed passed, $failed failed"
  ((failed == 0))
}

# run NAME COMMAND...: its output is shown and kept; the exit code goes to $code.
run() {
  local name=$1
  shift
  code=0
  "$@" </dev/null 2>&1 | tee "$logs/$name.log" || code=${PIPESTATUS[0]}
}

# add "PASSED FAILED": a run that failed without a failed test counts as one.
add() {
  local found
  read -r -a found <<<"$1"
  ((code == 0 || found[1] > 0)) || found[1]=1
  passed=$((passed + found[0]))
  failed=$((failed + found[1]))
}

main "$@"
