#!/usr/bin/env bash
# Guest script: records ten seconds from a raw camera, an MJPEG camera and a microphone with
# shutterd, stops, and opens the three devices at once; then asks for devices and formats that can't be
# had. It leaves in $RESULTS what check.py judges.
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
  ask_for_what_cannot_be_had

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
  odd_device_settings >>"$config"
  cp "$config" "$RESULTS/"
}

write_session() {
  session_json "$session" >"$work/session.json"
  cp "$work/session.json" "$RESULTS/"
}

# Formats that the devices of devices.sh don't have.
odd_device_settings() {
  cat <<TOML

[[devices]]
id = "odd-camera"
kind = "camera"
match = { node = "$raw_node" }
width = 333
height = 77

[[devices]]
id = "odd-microphone"
kind = "microphone"
match = { node = "hw:CARD=Loopback,DEV=1" }
sample_rate = 96000
TOML
}

# Each leaves in refused-NAME what became of it: the exit code, and the failure as JSON.
ask_for_what_cannot_be_had() {
  say "asking for what can't be had"
  ask absent-camera local_camera attic
  ask absent-microphone local_microphone attic
  ask odd-camera local_camera odd-camera
  ask odd-microphone local_microphone odd-microphone

  v4l2-ctl -d "$raw_node" --stream-mmap --stream-to=/dev/shm/held-camera >/dev/null 2>&1 &
  local camera=$!
  arecord -q -D "$microphone" -f S16_LE -r 48000 -c 1 -t raw /dev/shm/held-microphone &
  local recorder=$!
  until_true 60 "another program captures the camera" test -s /dev/shm/held-camera
  until_true 60 "another program captures the microphone" test -s /dev/shm/held-microphone
  ask busy-camera local_camera raw-camera
  ask busy-microphone local_microphone microphone
  kill "$camera" "$recorder"
  wait "$camera" "$recorder" || true
  held_devices >"$RESULTS/held-after-refusals"
}

# ask NAME KIND DEVICE: starts a session of one device.
ask() {
  local code=0 expires
  expires=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%S.000Z)
  echo "{\"_id\": \"$1\", \"meta\": {\"expires\": \"$expires\"}, \"sources\": [{\"id\": \"$1\", \"device\": \"$2\", \"deviceId\": \"$3\"}]}" |
    timeout 180 "$shutterd" session start - --json --config "$config" >/dev/null 2>"$RESULTS/refused-$1.json" || code=$?
  echo "$code" >"$RESULTS/refused-$1.code"
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
