# shellcheck shell=bash
# Sourced by faults.sh: rows of cameras. vivid's controls and the binding of its driver are the faults.
: "${raw_node:?the raw camera}" "${vivid_driver:?its directory in sysfs}" "${work:?a directory}"
: "${scene:=}" "${daemon:?its pid}" "${RESULTS:?where results go}"

# Unplugged by the driver's own fault, which is over once the device is closed; then its node goes, too.
row_D1() {
  begin D1 raw-camera microphone
  mark disconnected
  inject disconnect=1
  await degraded
  await working
  sleep 2
  mark unbound
  echo vivid.0 >"$vivid_driver/unbind"
  await degraded
  sleep 2
  echo vivid.0 >"$vivid_driver/bind"
  mark bound
  await working
  sleep 2
  finish
}

# The worker stands still until the stop is accepted and the camera is gone.
row_D2() {
  begin D2 raw-camera microphone
  local worker asked
  worker=$(worker_pid)
  kill -STOP "$worker"
  agent session stop D2 --json >"$results/stopped.json" &
  asked=$!
  until_true 60 "the stop is accepted" stop_is_accepted
  mark disconnected
  inject disconnect=1
  kill -CONT "$worker"
  wait "$asked"
  keep
}

stop_is_accepted() {
  grep -F 'stop accepted' "$work/serve.log" | grep -qF "\"$scene\""
}

row_D4() {
  results=$RESULTS/D4
  local call
  open_descriptors >"$results/descriptors-before"
  for call in reqbufs qbuf streamon; do
    inject "inject_vidioc_${call}_error=1"
    refused_start "$call" D4 raw-camera microphone
  done
  open_descriptors >"$results/descriptors-after"
  captures_again D4 raw-camera microphone
}

# refused_start NAME SCENE DEVICE...: a start that is to fail; its exit code, its answer, and what is left of it.
refused_start() {
  local name=$1 scene=$2 code=0
  shift
  session_json "$@" >"$work/refused.json"
  agent session start "$work/refused.json" --json >"$results/$name.answer" 2>&1 || code=$?
  echo "$code" >"$results/$name.code"
  held_devices >"$results/$name.held"
  worker_pid >"$results/$name.worker"
}

# What the daemon has open, once a second has passed for calls to end.
open_descriptors() {
  sleep 1
  find "/proc/$daemon/fd" -mindepth 1 -printf '%l\n' | sed 's/[0-9]\{2,\}/N/g' | sort | uniq -c
}

row_D5() {
  begin D5 raw-camera microphone
  mark failed
  inject inject_fatal_streaming_error=1
  await degraded
  await working
  sleep 2
  finish
}

row_D13() {
  trace_dequeues
  begin D13 raw-camera microphone
  inject percentage_of_dropped_buffers=10
  sleep 10
  inject percentage_of_dropped_buffers=0
  sleep 1
  finish
  keep_dequeues
}

# The count wraps after 128 frames, the time after 16 s.
row_D14() {
  inject wrap_sequence_number=1 wrap_timestamp=1
  trace_dequeues
  begin D14 raw-camera microphone
  sleep 18
  finish
  keep_dequeues
}

# The kernel's own account of each buffer that is handed over.
trace_dequeues() {
  mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
  echo 0 >/sys/kernel/tracing/trace
  echo 4096 >/sys/kernel/tracing/buffer_size_kb
  echo 1 >/sys/kernel/tracing/events/v4l2/v4l2_dqbuf/enable
}

keep_dequeues() {
  echo 0 >/sys/kernel/tracing/events/v4l2/v4l2_dqbuf/enable
  grep -F "minor = $((16#$(stat -c %T "$raw_node")))," /sys/kernel/tracing/trace >"$results/dequeues"
}

row_D3() {
  begin D3 raw-camera microphone
  mark frozen
  inject percentage_of_dropped_buffers=100
  await degraded
  sleep 2
  finish
}

# The camera goes, another one takes its node, and it comes back at the next one.
row_D9() {
  stop_webcam
  begin D9 stable-camera microphone
  mark unbound
  echo vivid.0 >"$vivid_driver/unbind"
  await degraded
  start_decoy
  # Time to fall for it.
  sleep 2
  echo vivid.0 >"$vivid_driver/bind"
  mark bound
  udevadm settle
  nodes >"$results/nodes"
  await working 30 || echo "not back in 30 s"
  sleep 2
  finish
  captures_again D9-start stable-camera microphone
  stop_decoy
}

# A camera of the same format, all grey, at the node that the raw camera had.
start_decoy() {
  modprobe v4l2loopback video_nr="${raw_node#/dev/video}" card_label=Decoy exclusive_caps=1 max_buffers=8
  { while cat /dev/shm/grey.yuyv; do :; done; } 2>/dev/null |
    ffmpeg -v error -re -f rawvideo -video_size 320x180 -pixel_format yuyv422 -framerate 15 -i - -c copy \
      -f v4l2 "$raw_node" >"$work/decoy.log" 2>&1 &
  decoy=$!
  udevadm settle
  until_true 60 "the decoy has a format" decoy_has_format
}

decoy_has_format() {
  v4l2-ctl -d "$raw_node" --list-formats | grep -q YUYV
}

nodes() {
  local entry
  for entry in /sys/class/video4linux/video*; do printf '%s %s\n' "${entry##*/}" "$(<"$entry/name")"; done
}

stop_decoy() {
  kill "$decoy"
  wait "$decoy" || true
  until_true 60 "the decoy is gone" modprobe -r v4l2loopback
  echo vivid.0 >"$vivid_driver/unbind"
  start_webcam clip.mjpeg
  echo vivid.0 >"$vivid_driver/bind"
  udevadm settle
}

stop_webcam() {
  pkill -x ffmpeg || true
  until_true 60 "the webcam is gone" modprobe -r v4l2loopback
}

# The raw camera is asked for another format meanwhile; the webcam's pictures change their size.
row_D11() {
  begin D11 raw-camera webcam
  mark reformatted
  v4l2-ctl -d "$raw_node" --set-fmt-video=width=640,height=360,pixelformat=YUYV >"$results/set-format" 2>&1 || true
  v4l2-ctl -d "$raw_node" --get-fmt-video >>"$results/set-format" 2>&1 || true
  sleep 1
  # Killed, it leaves no half picture.
  pkill -KILL -x ffmpeg
  feed_webcam small.mjpeg
  sleep 6
  finish
  pkill -x ffmpeg
  feed_webcam clip.mjpeg
}
