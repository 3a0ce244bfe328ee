#!/usr/bin/env bash
# Guest script: the machine after the power cut, with the same disk. The daemon finds the session,
# repairs its file and writes the receipt.
set -euo pipefail
# shellcheck source=guest-service.sh
source "$SHARE/guest-service.sh"

main() {
  mkdir -p "$work"
  trap 'save $?' EXIT
  install_service
  start_devices
  start_service
  systemctl show "$service" -p StatusText --value >"$RESULTS/status"
  scene='cut'
  results=$RESULTS
  until_true 120 "the session is finished" is_finished
  keep
  (open_devices)
}

main "$@"
