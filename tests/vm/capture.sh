#!/usr/bin/env bash
# Guest script: records ten seconds from a raw camera, an MJPEG camera and a microphone with
# shutterd, stops, and opens the three devices at once. It leaves in $RESULTS what check.py judges.
#
# What the devices deliver comes from $SHARE/input (see test-vm.sh): clip.mjpeg, whose frames all
# differ, and tone.raw, a 440 Hz tone of whole periods. The machine is emulated and slow: nothing
# here depends on how long a step takes, each has only a limit against hanging.
set -euo pipefail

shutterd=/usr/local/bin/shutterd
work=/var/lib/shutterd-test
# shellcheck source=devices.sh
source "$SHARE/devices.sh"
config=$work/config.toml
session=65ea1530bb50af72b6e3dc1e
capture_s=10

main() {
  # Not run from the share: each page of it would come over 9p while the devices deliver.
  cp "$SHARE/shutterd" "$shutterd"
  mkdir -p "$work/media"
  trap 'save $?' EXIT
  start_devices
  write_config
  write_session

  say "starting the daemon"
  "$shutterd" --version
  "$shutterd" serve --config "$config" >"$work/serve.log" 2>&1 &
  daemon=$!
  until_true 120 "the daemon answers" "$shutterd" health --config "$config"
  timeout 120 "$shutterd" devices --json --config "$config" >"$RESULTS/devices.json"

  say "starting the session"
  timeout 180 "$shutterd" session start "$work/session.json" --json --config "$config" >"$RESULTS/started.json"
  say "capturing for $capture_s s"
  sleep "$capture_s"
  held_devices >"$RESULTS/held-before-stop"
  say "stopping the session"
  timeout 180 "$shutterd" session stop "$session" --json --config "$config" >"$RESULTS/stopped.json"
  held_devices >"$RESULTS/held-after-stop"
  open_devices

  say "stopping the daemon"
  kill "$daemon"
  local code=0
  wait "$daemon" || code=$?
  echo "$code" >"$RESULTS/daemon-exit-code"
  say "end"
}

write_config() {
  cat >"$config" <<TOML
state_dir = "$work/state"
runtime_dir = "/run/shutterd-test"
media_dir = "$work/media"

[api]
tcp = "127.0.0.1:7460"
TOML
  device_settings >>"$config"
  cp "$config" "$RESULTS/"
}

write_session() {
  session_json "$session" >"$work/session.json"
  cp "$work/session.json" "$RESULTS/"
}

# save EXIT_CODE: whatever there is, so that a failure can be looked into.
save() {
  cp "$work"/*.log "$RESULTS/" || true
  cp -r "$work/media" "$RESULTS/" || true
  if (($1 != 0)); then
    say "failed; the daemon's last lines:"
    tail -n 40 "$work/serve.log" || true
  fi
}

main "$@"
