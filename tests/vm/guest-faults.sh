# shellcheck shell=bash
# Sourced by faults.sh: a daemon of its own, a row's session from its start to its end, and what is kept of it.
: "${work:?a directory of the machine}" "${config:?its config}" "${shutterd:?the binary}"
: "${raw_node:?the raw camera}" "${RESULTS:?where results go}"

# How long a session captures before and after what happens to it.
capture_s=3
vivid_driver=/sys/bus/platform/drivers/vivid
# shellcheck disable=SC2034
loopback_driver=/sys/bus/platform/drivers/snd_aloop
# Lines of the session's changes that a wait has looked at.
seen=0
daemon=0

write_config() {
  {
    cat <<TOML
state_dir = "$work/state"
runtime_dir = "/run/shutterd-faults"
media_dir = "$work/media"

[api]
tcp = "127.0.0.1:7460"

[limits]
start_timeout_ms = 60000
probe_timeout_ms = 30000

[log]
format = "json"
TOML
    device_settings
    # The raw camera by what doesn't change.
    cat <<TOML

[[devices]]
id = "stable-camera"
kind = "camera"
match = { by_path = "platform-vivid.0-video-index0" }
width = 320
height = 180
frame_rate = 15.0
pixel_format = "YUYV"
TOML
  } >"$config"
}

start_daemon() {
  "$shutterd" serve --config "$config" >>"$work/serve.log" 2>&1 &
  daemon=$!
  until_true 120 "the daemon answers" "$shutterd" health --config "$config"
}

# run_row ROW: in a shell of its own, so that one that breaks off leaves the next ones a chance.
run_row() {
  local row=$1 code=0 log tone
  log=$(stat -c %s "$work/serve.log")
  tone=$(stat -c %s "$work/tone.log")
  say "$row"
  mkdir -p "$RESULTS/$row"
  if ! declare -F "row_$row" >/dev/null; then
    echo "there is no such row" >"$RESULTS/$row/broke"
    return
  fi
  ( set -euo pipefail; "row_$row" ) >"$RESULTS/$row/output" 2>&1 &
  wait $! || code=$?
  ((code == 0)) || { tail -n 5 "$RESULTS/$row/output" | tee "$RESULTS/$row/broke"; }
  tail -c "+$((log + 1))" "$work/serve.log" >"$RESULTS/$row/log"
  tail -c "+$((tone + 1))" "$work/tone.log" >"$RESULTS/$row/tone.log"
  recover
}

# The machine as the next row expects it, whatever the one before has left.
recover() {
  if ! kill -0 "$daemon" 2>/dev/null; then
    say "the daemon is gone: another one"
    start_daemon
  fi
  agent stop-all >/dev/null 2>&1 || true
  [[ -e $vivid_driver/vivid.0 ]] || echo vivid.0 >"$vivid_driver/bind"
  until_true 30 "the raw camera is there" test -e "$raw_node"
  inject percentage_of_dropped_buffers=0 wrap_sequence_number=0 wrap_timestamp=0 || true
}

agent() {
  timeout 120 "$shutterd" --config "$config" "$@"
}

# begin SCENE DEVICE...: starts a session with the scene's name, and lets it capture.
begin() {
  scene=$1
  shift
  results=$RESULTS/$scene
  mkdir -p "$results"
  session_json "$scene" "$@" >"$results/session.json"
  agent session start "$results/session.json" --json >"$results/started.json"
  mark started
  agent session watch "$scene" --json >"$results/watched.jsonl" 2>&1 &
  sleep "$capture_s"
  seen=$(wc -l <"$results/watched.jsonl")
}

# again SCENE: back to a session that was begun before.
again() {
  scene=$1
  results=$RESULTS/$scene
}

# finish: stops the session, and keeps what came of it.
finish() {
  mark stopped
  agent session stop "$scene" --json >"$results/stopped.json"
  keep
}

keep() {
  held_devices >"$results/held-after"
  mkdir -p "$results/media"
  cp -r "$work/media/$scene" "$results/media/"
}

# mark WHAT: when it happens, by the wall clock and by one that nobody sets. Waits look at what comes after.
mark() {
  printf '%s %s %s\n' "$1" "$EPOCHREALTIME" "$(cut -d' ' -f1 /proc/uptime)" >>"$results/marks"
  [[ ! -e $results/watched.jsonl ]] || seen=$(wc -l <"$results/watched.jsonl")
}

# await STATE [SECONDS]: the session is in that state of its worker, after what the last wait has seen.
await() {
  until_true "${2:-60}" "session $scene is $1" comes "$1"
}

comes() {
  local at
  at=$(tail -n "+$((seen + 1))" "$results/watched.jsonl" | grep -n -m1 "\"workerState\": *\"$1\"" | cut -d: -f1)
  [[ -n $at ]] && seen=$((seen + at))
}

worker_pid() {
  pgrep -f "worker --link .* --session $scene\$" || true
}

# inject CONTROL=VALUE...: vivid's own controls.
inject() {
  local control
  for control in "$@"; do v4l2-ctl -d "$raw_node" --set-ctrl "$control"; done
}

# captures_again SCENE DEVICE...: a new session, which records a little: what was before has left nothing behind.
captures_again() {
  begin "$@"
  finish
}

save() {
  cp "$work"/*.log "$RESULTS/" || true
  dmesg >"$RESULTS/dmesg" || true
  (($1 == 0)) || tail -n 40 "$work/serve.log" || true
}
