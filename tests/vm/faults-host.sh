# shellcheck shell=bash
# Sourced by faults.sh: rows of the host: its clocks and its memory.
: "${capture_s:?seconds}" "${scene:=}" "${results:=}"

row_T1() {
  begin T1 raw-camera webcam microphone
  mark forward
  date -s "@$(($(date +%s) + 3600))"
  sleep 3
  mark back
  date -s "@$(($(date +%s) - 3600))"
  sleep 3
  finish
}

row_T2() {
  begin T2 raw-camera webcam microphone
  slew 500
  sleep 10
  slew 0
  sleep 1
  finish
}

# slew PPM: by adjtimex(2), which has no command here: the frequency in units of 2^-16 ppm.
slew() {
  perl -e 'my $t = pack("I x4 q q", 2, 0, $ARGV[0] << 16) . "\0" x 400; exit(syscall(159, $t) < 0)' "$1"
}

# The worker of one session gets no more memory; another session records beside it.
row_K7() {
  begin K7-other webcam microphone
  local other
  other=$(worker_pid)
  begin K7 raw-camera
  local group=/sys/fs/cgroup/faults worker
  worker=$(worker_pid)
  mkdir -p "$group"
  echo "$worker" >"$group/cgroup.procs"
  mark limited
  echo 0 >"$group/memory.max"
  until_true 60 "the worker is dead" is_dead "$worker"
  until_true 60 "a new worker captures" captures_anew "$worker"
  cp "$group/memory.events" "$results/"
  sleep "$capture_s"
  finish
  rmdir "$group"
  again K7-other
  echo "$other $(worker_pid)" >"$results/workers"
  finish
}

is_dead() {
  ! kill -0 "$1"
}

# captures_anew PID: another worker than that one captures.
captures_anew() {
  local now
  now=$(worker_pid)
  [[ -n $now && $now != "$1" ]] && agent session show "$scene" --json | grep -q '"workerState": "working"'
}
