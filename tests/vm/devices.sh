# shellcheck shell=bash
# Sourced by the guest scripts: the devices that the machine has, what is fed to them, and who holds
# them. Their logs go to $work.
: "${work:?a directory of the machine}"

raw_node=/dev/video0
webcam_node=/dev/video10
microphone=hw:Loopback,1,0

start_devices() {
  say "starting the devices"
  # From memory: a read over 9p that takes long would starve the devices.
  cp "$SHARE"/input/* /dev/shm/
  start_raw_camera
  start_webcam clip.mjpeg
  start_microphone
}

start_raw_camera() {
  modprobe vivid n_devs=1 node_types=0x1 vid_cap_nr="${raw_node#/dev/video}"
  udevadm settle
  # A size and a rate that an emulated processor can draw.
  v4l2-ctl -d "$raw_node" --set-fmt-video=width=320,height=180,pixelformat=YUYV >/dev/null
  v4l2-ctl -d "$raw_node" --set-parm=15 >/dev/null
}

# start_webcam CLIP: a camera that delivers the clip, round and round.
start_webcam() {
  # Its reader sees the writer's own buffers: with the default of two, a frame changes while it is read.
  modprobe v4l2loopback video_nr="${webcam_node#/dev/video}" card_label="Integrated Webcam" \
    exclusive_caps=1 max_buffers=8
  udevadm settle
  feed_webcam "$1"
  until_true 60 "the webcam has a format" webcam_has_format
}

feed_webcam() {
  # Looped by cat: ffmpeg's own -stream_loop makes timestamps step back, and so the pace uneven.
  { while cat "/dev/shm/$1"; do :; done; } 2>/dev/null |
    ffmpeg -v error -re -f mjpeg -framerate 30 -i - -c copy -f v4l2 "$webcam_node" >>"$work/webcam.log" 2>&1 &
}

start_microphone() {
  # With one subdevice, as a microphone has: of several, who asks gets one that is free.
  modprobe snd-aloop pcm_substreams=1
  udevadm settle
  play_tone 48000 1
}

# play_tone RATE CHANNELS: another rate or other channels only change the noise that it is.
play_tone() {
  # The loopback's capture side takes the rate, format and channels of the playing side.
  { while cat /dev/shm/tone.raw; do :; done; } 2>/dev/null |
    aplay -q -t raw -f S16_LE -r "$1" -c "$2" --buffer-time=500000 -D hw:Loopback,0,0 - >>"$work/tone.log" 2>&1 &
  until_true 60 "the tone plays" grep -q RUNNING /proc/asound/Loopback/pcm0p/sub0/status
}

webcam_has_format() {
  v4l2-ctl -d "$webcam_node" --list-formats | grep -q MJPG
}

# The devices as the config names them.
device_settings() {
  cat <<TOML

[[devices]]
id = "raw-camera"
kind = "camera"
match = { node = "$raw_node" }
width = 320
height = 180
frame_rate = 15.0
pixel_format = "YUYV"

[[devices]]
id = "webcam"
kind = "camera"
match = { node = "$webcam_node" }
width = 640
height = 360
frame_rate = 30.0
pixel_format = "MJPG"

[[devices]]
id = "microphone"
kind = "microphone"
match = { node = "hw:CARD=Loopback,DEV=1" }
sample_rate = 48000
channels = 1
TOML
}

# session_json ID [DEVICE...]: a session of these devices; of all three when none is named.
session_json() {
  local id=$1 now expires
  shift
  (($#)) || set -- raw-camera webcam microphone
  now=$(date -u +%Y-%m-%dT%H:%M:%S.000Z)
  expires=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%S.000Z)
  cat <<JSON
{
  "_id": "$id",
  "name": "Real input",
  "type": "live_analysis",
  "state": "active",
  "timestamp": "$now",
  "duration": 0,
  "sources": [
$(sources_json "$@")
  ],
  "meta": { "expires": "$expires", "healthCheck": "$now", "workerState": "working" },
  "product": "65946a77408bd7b32c5189a3",
  "user": "65d7a8fb532f66218ecd4cab",
  "version": 3
}
JSON
}

sources_json() {
  local device number=0 what
  for device in "$@"; do
    number=$((number + 1))
    what='"type": "video", "device": "local_camera"'
    [[ $device != microphone* ]] || what='"type": "audio", "device": "local_microphone"'
    printf '    { "id": "3b0c2c8e-6f0e-4b53-9d0f-0d0a6a5f6c%02d", "name": "%s", %s, "deviceId": "%s" }' \
      "$number" "$device" "$what" "$device"
    ((number == $#)) || printf ','
    printf '\n'
  done
}

# All three in the same moment, straight after the stop's answer.
open_devices() {
  say "opening the devices"
  open_device raw-camera v4l2-ctl -d "$raw_node" --stream-mmap --stream-count=1 --stream-to=/dev/shm/raw-camera &
  local raw=$!
  open_device webcam v4l2-ctl -d "$webcam_node" --stream-mmap --stream-count=1 --stream-to=/dev/shm/webcam &
  local webcam=$!
  open_device microphone arecord -q -D "$microphone" -f S16_LE -r 48000 -c 1 -d 1 -t raw /dev/shm/microphone &
  wait "$raw" "$webcam" $!
}

# open_device NAME COMMAND...: as NAME.opened in the results the exit code, the bytes that came
# (v4l2-ctl exits with 0 when the device is busy, too), and what was said.
open_device() {
  local name=$1 code=0 output
  shift
  output=$(timeout 60 "$@" 2>&1 </dev/null) || code=$?
  printf '%s\n%s\n%s\n' "$code" "$(stat -c %s "/dev/shm/$name" || echo 0)" "$output" >"$RESULTS/$name.opened"
}

# The devices that shutterd's processes have open, one path a line.
held_devices() {
  local exe
  # find fails when a process ends while it looks.
  { find /proc/[0-9]*/exe -lname '*/shutterd*' 2>/dev/null || true; } | while read -r exe; do
    find "${exe%exe}fd" \( -lname '/dev/video*' -o -lname '/dev/snd/pcm*' \) -printf '%l\n' 2>/dev/null || true
  done | sort -u
}

# until_true SECONDS WHAT COMMAND...
until_true() {
  local limit_s=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit_s))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { say "after $limit_s s it is not so that $what"; return 1; }
    sleep 0.5
  done
}

say() {
  echo "$(cut -d' ' -f1 /proc/uptime) $*"
}
