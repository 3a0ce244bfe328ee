#!/usr/bin/env bash
# Guest script: faults of drivers, devices and clocks, a row after the other, while shutterd records. What it
# leaves in $RESULTS, a directory a row, check-faults.py judges. $SHARE/input/rows names the rows to run.
#
# The machine is emulated and slow: waits have a limit against hanging, and no step depends on how long
# another takes.
set -euo pipefail

shutterd=/usr/local/bin/shutterd
work=/var/lib/shutterd-faults
config=$work/config.toml
# shellcheck source=devices.sh
source "$SHARE/devices.sh"
# shellcheck source=guest-faults.sh
source "$SHARE/guest-faults.sh"
# shellcheck source=faults-cameras.sh
source "$SHARE/faults-cameras.sh"
# shellcheck source=faults-sound.sh
source "$SHARE/faults-sound.sh"
# shellcheck source=faults-host.sh
source "$SHARE/faults-host.sh"

main() {
  cp "$SHARE/shutterd" "$shutterd"
  mkdir -p "$work/media"
  trap 'save $?' EXIT
  start_devices
  write_config
  start_daemon
  local row
  # Its descriptor apart: what a row starts must not read on in the list.
  while read -r row <&9; do run_row "$row"; done 9<"$SHARE/input/rows"
  say "end"
}

main "$@"
