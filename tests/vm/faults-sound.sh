# shellcheck shell=bash
# Sourced by faults.sh: rows of microphones. The sound that is fed tells with each sample where it is.
: "${loopback_driver:?its directory in sysfs}" "${RESULTS:?where results go}"

# Nobody takes the sound for a second.
row_A1() {
  begin A1 raw-camera microphone
  local worker
  worker=$(worker_pid)
  mark held
  kill -STOP "$worker"
  sleep 1
  kill -CONT "$worker"
  sleep 4
  finish
}

# The sound card goes, and comes back.
row_A2() {
  begin A2 raw-camera microphone
  local worker unbinding
  worker=$(worker_pid)
  processor_time "$worker" >"$results/before"
  mark gone
  pkill -x aplay || true
  # It waits until nobody has the card open any more.
  echo snd_aloop.0 >"$loopback_driver/unbind" &
  unbinding=$!
  await degraded
  processor_time "$worker" >"$results/without"
  timeout 20 tail --pid="$unbinding" -f /dev/null || echo "the card is still held"
  head -n 3 /proc/asound/cards >"$results/cards" || true
  echo snd_aloop.0 >"$loopback_driver/bind"
  udevadm settle
  play_tone 48000 1
  mark back
  await working 30 || echo "not back in 30 s"
  sleep 2
  finish
}

# processor_time PID: the share of a processor that it takes over five seconds, in percent.
processor_time() {
  local from to
  from=$(ticks "$1")
  sleep 5
  to=$(ticks "$1")
  echo "$(((to - from) * 100 / (5 * $(getconf CLK_TCK))))"
}

ticks() {
  local fields
  read -r -a fields <"/proc/$1/stat"
  echo "$((fields[13] + fields[14]))"
}

# The microphone delivers something else than the config asks for.
row_A5() {
  results=$RESULTS/A5
  play_anew 44100 1
  refused_start rate A5 raw-camera microphone
  play_anew 48000 2
  refused_start channels A5 raw-camera microphone
  play_anew 48000 1
  captures_again A5 raw-camera microphone
}

play_anew() {
  pkill -x aplay || true
  until_true 60 "nothing plays" grep -q closed /proc/asound/Loopback/pcm0p/sub0/status
  play_tone "$@"
}
