#!/usr/bin/env bash
# Real input, whole way: kernel drivers in a virtual machine, shutterd, an independent look at its files.
#
#   tests/vm/test-vm.sh      the settings are those of run.sh
#
# Builds the image if there is none, records in the machine, checks the results here: a line
# `ok N - what` or `not ok N - what, why` per point, then `N passed, M failed`, for each of the parts
# and for all: VM_ONLY=capture or VM_ONLY=service runs one of them, VM_ONLY=faults the faults that need
# drivers (`make faults`; VM_ROWS names some of them). The exit code is
# not 0 if any failed. shutterd must have been built for Debian 12's libraries or older ones.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=require.sh
source "$here/require.sh"
# shellcheck source=rows.sh
source "$here/rows.sh"

export VM_CACHE_DIR=${VM_CACHE_DIR:-$here/../../target/vm}
results=${VM_RESULTS:-$VM_CACHE_DIR/results}

main() {
  require ffmpeg ffmpeg ffprobe ffmpeg python3 python3 b3sum b3sum mke2fs e2fsprogs
  work=$(mktemp -d "${TMPDIR:-/tmp}/vm-test.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  export VM_INPUT=$work/input
  mkdir "$VM_INPUT"
  make_input
  passed=0
  failed=0
  # Where the service part has left its results, once it has run.
  service_results=()
  for part in ${VM_ONLY:-capture service}; do "$part"; done
  echo "$passed passed, $failed failed"
  ((failed == 0))
}

# The daemon by itself records real devices.
capture() {
  echo "vm: real devices" >&2
  run_guest "$results" capture.sh
  cp -r "$VM_INPUT" "$results/input"
  judge "$here/check.py" "$results"
}

# The daemon under systemd, in two machines with one disk: the first one's power is cut.
service() {
  echo "vm: under systemd" >&2
  local disk=$work/disk
  PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 "$disk" 1G >/dev/null
  VM_DISK=$disk run_guest "$results-service" service.sh
  if [[ -e $results-service/power-cut ]]; then
    VM_DISK=$disk run_guest "$results-service.after-cut" after-cut.sh
    cp -r "$results-service.after-cut" "$results-service/after-cut"
    cp "$results-service/cut/session.json" "$results-service/after-cut/"
  fi
  cp -r "$VM_INPUT" "$results-service/input"
  judge "$here/check-service.py" "$results-service"
  cp "$work/points" "$results-service/points"
  service_results=("$results-service")
}

# Faults of drivers, devices and clocks. What became of each goes to the file that SHUTTERD_FAULTS_TOLD names,
# too; what the service part has found goes with it, when that ran before.
faults() {
  echo "vm: faults" >&2
  local input=$work/faults-input
  mkdir "$input"
  cp "$VM_INPUT/clip.mjpeg" "$input/"
  make_faults_input "$input"
  tr -s ' ' '\n' <<<"${VM_ROWS-$vm_rows}" | sed '/^$/d' >"$input/rows"
  if [[ -s $input/rows ]]; then
    VM_INPUT=$input VM_TIMEOUT=${VM_TIMEOUT:-2400} run_guest "$results-faults" faults.sh
  else
    # Only rows of the service part were asked for.
    rm -rf "$results-faults"
    mkdir -p "$results-faults"
  fi
  cp -r "$input" "$results-faults/input"
  judge "$here/check-faults.py" "$results-faults" "${SHUTTERD_FAULTS_TOLD:-$results-faults/told}" "${service_results[@]}"
}

# run_guest RESULTS SCRIPT: what a failed run left behind still says which points hold; a refused one
# left nothing.
run_guest() {
  local code=0
  VM_RESULTS=$1 "$here/run.sh" "$here/$2" || code=$?
  case $code in
    0 | 1 | 124 | 125) ;;
    *) exit "$code" ;;
  esac
}

# judge CHECK RESULTS: shows its points, and adds up what its last line counts.
judge() {
  local counts=()
  "$@" | tee "$work/points" || true
  read -r -a counts < <(tail -n 1 "$work/points") || true
  passed=$((passed + ${counts[0]:-0}))
  failed=$((failed + ${counts[2]:-1}))
}

# A clip whose frames all differ, and a second of whole periods, so that it joins to itself without a step.
make_input() {
  ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=640x360:rate=30 -frames:v 150 \
    -c:v mjpeg -q:v 5 -f mjpeg "$VM_INPUT/clip.mjpeg"
  ffmpeg -nostdin -v error -f lavfi -i 'aevalsrc=0.5*sin(2*PI*440*t):s=48000:d=1' \
    -c:a pcm_s16le -f s16le "$VM_INPUT/tone.raw"
}

# Pictures of another size, a second of grey ones, and sound each sample of which says where in its second it is.
make_faults_input() {
  ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=480x270:rate=30 -frames:v 150 \
    -c:v mjpeg -q:v 5 -f mjpeg "$1/small.mjpeg"
  ffmpeg -nostdin -v error -f lavfi -i color=gray:size=320x180:rate=15 -frames:v 15 \
    -pix_fmt yuyv422 -f rawvideo "$1/grey.yuyv"
  ffmpeg -nostdin -v error -f lavfi -i 'aevalsrc=(n-24000)/32768:s=48000:d=1' \
    -c:a pcm_s16le -f s16le "$1/tone.raw"
}

main "$@"
