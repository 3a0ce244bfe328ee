#!/usr/bin/env bash
# Guest script: shutterd as systemd runs it, with an unprivileged client. The daemon is killed, hung,
# replaced and stopped while it captures, and a worker is killed, a session each; in the end the machine's power is cut. What
# it leaves in $RESULTS, a directory a scene, check-service.py judges.
#
# The machine is emulated and slow: waits have a limit against hanging, and no step depends on how long
# another takes.
set -euo pipefail
# shellcheck source=guest-service.sh
source "$SHARE/guest-service.sh"

main() {
  mkdir -p "$work"
  trap 'save $?' EXIT
  install_service
  start_devices
  look_at_the_unit
  killed
  hung
  worker_killed
  handed_over
  killed_in_a_stop
  stopped
  started_again
  save 0
  lose_power
}

look_at_the_unit() {
  start_service
  systemctl show "$service" -p Type,ActiveState,SubState,StatusText,NRestarts,User >"$RESULTS/unit"
  systemd-analyze verify /etc/systemd/system/shutterd.{service,socket} >"$RESULTS/verify" 2>&1 || true
  systemd-analyze --no-pager security "$service" >"$RESULTS/security"
  client session list >"$RESULTS/listed.json"
}

tells_the_disk() {
  systemctl show -p StatusText --value "$service" | grep -q "of disk left"
}

killed() {
  begin killed
  local before
  before=$(restarts)
  # It is told every few seconds, at first before anything is recorded.
  until_true 60 "the status tells how long the disk lasts" tells_the_disk
  systemctl show -p StatusText --value "$service" >"$results/status"
  say "killed: kill -9 of the daemon"
  kill -KILL "$(main_pid)"
  until_true 120 "the daemon is back" restarted "$before"
  say "killed: it is back"
  finish
}

hung() {
  begin hung
  local before
  before=$(restarts)
  say "hung: SIGSTOP of the daemon"
  kill -STOP "$(main_pid)"
  until_true 180 "the watchdog has restarted the daemon" restarted "$before"
  say "hung: it is back"
  finish
}

worker_killed() {
  begin workerkilled
  local before
  before=$(worker_pid)
  say "workerkilled: kill -9 of the worker"
  kill -KILL "$before"
  until_true 180 "a new worker captures" captures_anew "$before"
  say "workerkilled: a new worker captures"
  finish
}

# captures_anew PID: another worker than that one captures.
captures_anew() {
  local now
  now=$(worker_pid)
  [[ -n $now && $now != "$1" ]] && client session show "$scene" | grep -q '"workerState": "working"'
}

handed_over() {
  begin handover
  say "handover: another build of the binary, and a restart"
  # Another file with another content, that does the same.
  cp /usr/bin/shutterd /usr/bin/shutterd.new
  printf 'another build' >>/usr/bin/shutterd.new
  mv /usr/bin/shutterd.new /usr/bin/shutterd
  shutterd handover --json >"$results/handover.json"
  timeout 180 systemctl restart "$service"
  readlink "/proc/$(main_pid)/exe" >"$results/daemon-exe"
  readlink "/proc/$(worker_pid)/exe" >"$results/worker-exe"
  finish
}

# The worker stands still until the daemon that has accepted the stop is dead.
killed_in_a_stop() {
  begin midstop
  local before asked
  before=$(restarts)
  kill -STOP "$(worker_pid)"
  { client session stop "$scene" >"$results/first-answer" 2>&1 || true; } &
  asked=$!
  until_true 60 "the stop is accepted" stop_is_accepted
  say "midstop: kill -9 of the daemon"
  kill -KILL "$(main_pid)"
  kill -CONT "$(worker_pid)"
  until_true 120 "the daemon is back" restarted "$before"
  wait "$asked"
  until_true 120 "the session is finished" is_finished
  keep
}

stop_is_accepted() {
  journalctl -b --no-pager -q -u "$service" -g "stop accepted.*session=$scene" | grep -q .
}

stopped() {
  begin stopped
  say "stopped: systemctl stop"
  local from=$EPOCHREALTIME
  timeout 180 systemctl stop "$service"
  echo "$from $EPOCHREALTIME" >"$results/stop-times"
  systemctl show "$service" -p ActiveState,Result,ExecMainStatus >"$results/unit"
  pgrep -a shutterd >"$results/running" || true
  (RESULTS=$results open_devices)
  start_service
  is_finished
  keep
}

# By a call: systemd listens for the daemon, and starts it.
started_again() {
  timeout 180 systemctl stop "$service"
  systemctl start shutterd.socket
  systemctl is-active "$service" >"$RESULTS/before-the-call" || true
  say "again: a call starts the service"
  client session list >"$RESULTS/activated.json"
  systemctl is-active "$service" >"$RESULTS/after-the-call" || true
  begin again
  finish
}

# The host cuts the power as soon as it sees the file; the clock says when that was.
lose_power() {
  begin cut
  say "cut: waiting for the power cut"
  tell_time &
  until_true 60 "the time is told" test -s "$results/clock"
  touch "$RESULTS/power-cut"
  wait
}

tell_time() {
  while :; do
    date +%s.%N >"$results/clock.new"
    mv "$results/clock.new" "$results/clock"
  done
}

main "$@"
