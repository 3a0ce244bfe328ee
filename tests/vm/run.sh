#!/usr/bin/env bash
# Boots a throw-away copy of the image and runs a script in it as root, with its output shown here.
#
#   tests/vm/run.sh [GUEST_SCRIPT]        default: capture.sh beside this file
#
# The script sees /mnt/share ($SHARE, read-only: shutterd, the scripts of this directory, systemd/, input/)
# and /mnt/results ($RESULTS, which outlives the machine). Exit code: 0 when the script's was 0;
# 1 when it failed; 0 when it asked for a power cut by making $RESULTS/power-cut, and got it; 124 when the machine took longer than VM_TIMEOUT; 125 when the script never ended.
#
# SHUTTERD_BIN  the binary to test                  (target/debug/shutterd)
# VM_INPUT      a directory shared as input/        (none)
# VM_RESULTS    where results go; emptied first     (target/vm/results)
# VM_DISK       a raw disk that the machine has as /dev/vdb, and that outlives it (none)
# VM_TIMEOUT    seconds for boot, script, power-off (600)
# VM_ACCEL      QEMU's accelerator                  (tcg,thread=multi)
# VM_CACHE_DIR  see image.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
# shellcheck source=require.sh
source "$here/require.sh"

guest_script=${1:-$here/capture.sh}
binary=${SHUTTERD_BIN:-$repository/target/debug/shutterd}
results=${VM_RESULTS:-$repository/target/vm/results}
limit_s=${VM_TIMEOUT:-600}
# KVM works on some hosts only and hangs at boot on others; emulation works on all.
accelerator=${VM_ACCEL:-tcg,thread=multi}

main() {
  [[ -f $guest_script ]] || fail "no guest script $guest_script"
  [[ -f $binary ]] || fail "no binary $binary: build it, or name one in SHUTTERD_BIN"
  require qemu-system-x86_64 qemu-system-x86 strip binutils flock util-linux
  local image
  image=$("$here/image.sh")

  mkdir -p "$(dirname "$results")"
  exec {lock}>"$results.lock"
  flock --nonblock "$lock" || fail "another machine is running with the results in $results"
  rm -rf "$results"
  mkdir -p "$results"
  results=$(cd "$results" && pwd)

  work=$(mktemp -d "${TMPDIR:-/tmp}/vm-run.XXXXXX")
  trap 'stop_machine; rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  fill_share "$work/share"
  boot "$image"
  judge
}

fill_share() {
  local share=$1
  mkdir "$share"
  # A debug binary is over 100 MB, most of it symbols; reading them over 9p takes long.
  strip -o "$share/shutterd" "$binary" 2>/dev/null || cp "$binary" "$share/shutterd"
  chmod +x "$share/shutterd"
  cp "$here"/*.sh "$share/"
  cp -r "$repository/systemd" "$share/"
  cp "$guest_script" "$share/guest.sh"
  [[ -z ${VM_INPUT:-} ]] || cp -r "$VM_INPUT" "$share/input"
}

boot() {
  local image=$1 disk=()
  [[ -z ${VM_DISK:-} ]] || disk=(-drive "file=$VM_DISK,if=virtio,format=raw")
  # TMPDIR: where QEMU keeps what the guest writes to its disk, which nobody reads again.
  TMPDIR=$work timeout --kill-after=10 "$limit_s" qemu-system-x86_64 \
    -machine q35 -accel "$accelerator" -cpu max -smp 2 -m 2048 \
    -display none -monitor none -nic none -no-reboot \
    -serial "file:$results/serial.log" \
    -kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off" \
    -drive "file=$image/root.img,if=virtio,format=raw,snapshot=on" "${disk[@]}" \
    -device virtio-serial -chardev stdio,id=output,signal=off -device virtconsole,chardev=output \
    -virtfs "local,path=$work/share,mount_tag=share,security_model=none,readonly=on" \
    -virtfs "local,path=$results,mount_tag=results,security_model=none" \
    </dev/null > >(tee "$results/output.log" | sed -u 's/\r$//; s/^/guest: /') &
  machine=$!
  cut_power "$machine" &
  machine_code=0
  # wait, unlike a command in the foreground, lets a signal through.
  wait "$machine" 2>/dev/null || machine_code=$?
  machine=
}

# cut_power MACHINE: as soon as the guest asks for it. timeout leads a group of its own, QEMU is in it.
cut_power() {
  until [[ -e $results/power-cut ]]; do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1"
}

stop_machine() {
  [[ -z ${machine:-} ]] || { kill "$machine" && wait "$machine"; } 2>/dev/null || true
}

judge() {
  if [[ -e $results/power-cut ]]; then
    echo "vm: power cut"
    return
  fi
  if ((machine_code == 124 || machine_code == 137)); then
    show_serial
    echo "vm: stopped after $limit_s s" >&2
    exit 124
  elif [[ ! -s $results/exit-code ]]; then
    show_serial
    echo "vm: the guest script did not come to its end (QEMU's exit code: $machine_code)" >&2
    exit 125
  elif [[ $(<"$results/exit-code") != 0 ]]; then
    echo "vm: the guest script failed with exit code $(<"$results/exit-code")" >&2
    exit 1
  fi
}

show_serial() {
  echo "vm: the last lines of the machine's console:" >&2
  tail -n 20 "$results/serial.log" 2>/dev/null | tr -d '\r' >&2 || true
}

fail() {
  echo "vm: $*" >&2
  exit 2
}

main "$@"
