#!/usr/bin/env bash
# Injects the faults that a capture host meets into the real binary, and prints a table that ends with
# `N of M rows hold`.
#
#   scripts/faults.sh [ROW...]      all rows, or these
#
# Rows that need drivers run in a virtual machine first, which takes some minutes and, once, builds its image;
# with FAULTS_VM=no they are not run, and the table says so. The exit code is not 0 if any row that could be run
# fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../tests/vm/rows.sh
source tests/vm/rows.sh

main() {
  SHUTTERD_FAULTS_TOLD=$(mktemp "${TMPDIR:-/tmp}/faults.XXXXXX")
  export SHUTTERD_FAULTS_TOLD
  trap 'rm -f "$SHUTTERD_FAULTS_TOLD"' EXIT
  try_in_the_machine "$@"
  cargo test --locked --quiet --test faults -- "$@"
}

# try_in_the_machine [ROW...]: what it finds goes to the file that SHUTTERD_FAULTS_TOLD names.
try_in_the_machine() {
  local rows=$vm_rows service=$service_rows row
  if (($#)); then
    rows=$(wanted "$vm_rows" "$@")
    service=$(wanted "$service_rows" "$@")
  fi
  [[ -n $rows$service ]] || return 0
  if [[ ${FAULTS_VM:-yes} == no ]]; then
    for row in $rows $service; do printf '%s\tnot run\tFAULTS_VM=no\n' "$row"; done >"$SHUTTERD_FAULTS_TOLD"
    return 0
  fi
  VM_ONLY="${service:+service }faults" VM_ROWS=$rows \
    SHUTTERD_BIN=${SHUTTERD_BIN:-${CARGO_TARGET_DIR:-target}/debug/shutterd} tests/vm/test-vm.sh >&2 || true
  # What came to no verdict was still asked for.
  for row in $rows $service; do
    grep -q "^$row"$'\t' "$SHUTTERD_FAULTS_TOLD" ||
      printf '%s\tnot run\tthe virtual machine did not get to it\n' "$row" >>"$SHUTTERD_FAULTS_TOLD"
  done
}

# wanted LIST ROW...: those of the rows that are in the list.
wanted() {
  local list=$1 row
  shift
  for row in "$@"; do
    [[ " $list " != *" $row "* ]] || printf '%s ' "$row"
  done
}

main "$@"
