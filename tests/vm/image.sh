#!/usr/bin/env bash
# Builds the image that run.sh boots: Debian with systemd, its stock kernel, and the drivers that
# make cameras and microphones out of nothing (vivid, v4l2loopback, snd-aloop).
#
#   tests/vm/image.sh        prints the image's directory; progress goes to standard error
#
# The directory (root.img, vmlinuz, initrd.img) is named by a hash of this file and reused while
# that stays the same. VM_CACHE_DIR says where (default: target/vm of the repository).
# Debian's mirror, and the proxy, are the ones that apt uses on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=require.sh
source "$here/require.sh"

release=bookworm
image_size=3G
packages=(
  systemd systemd-sysv udev dbus kmod procps iproute2
  linux-image-amd64 linux-headers-amd64 v4l2loopback-dkms
  alsa-utils v4l-utils libasound2 ffmpeg
)
# Enough to find the root file system and the console; everything else loads from the image.
initrd_modules=(virtio_pci virtio_blk ext4 virtio_console)
# In namespaces of its own, an interrupted build leaves no process behind, and no mount of the
# host's /dev or /proc below a directory that is about to be removed.
apart=(unshare --mount --pid --fork --kill-child --mount-proc)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

main() {
  local cache image
  cache=$(cache_dir)
  image=$cache/image-$(inputs_hash)
  if [[ ! -d $image ]]; then
    exec {lock}>"$cache/lock"
    flock --nonblock "$lock" || { say "waiting for another build"; flock "$lock"; }
    # Another build may have made it while this one waited.
    [[ -d $image ]] || build "$cache" "$image" >&2
    flock --unlock "$lock"
  fi
  echo "$image"
}

cache_dir() {
  local dir=${VM_CACHE_DIR:-$here/../../target/vm}
  mkdir -p "$dir"
  (cd "$dir" && pwd)
}

inputs_hash() {
  sha256sum "$here/image.sh" | cut -c1-16
}

build() {
  local cache=$1 image=$2
  say "building $image (once; some minutes)"
  require mmdebstrap mmdebstrap mke2fs e2fsprogs flock util-linux gpgv gpgv
  as_root "${apart[@]}" true || {
    say "the image needs a root that may mount; an unprivileged container has none"
    exit 1
  }
  [[ -e $keyring ]] || as_root apt-get install -y -q --no-install-recommends debian-archive-keyring
  as_root apt-get update -q >/dev/null || say "apt-get update failed; going on with the lists there are"

  # What an interrupted build left behind; the lock is ours, so nobody is at work in there.
  as_root rm -rf --one-file-system "$cache"/building-*
  work=$cache/building-$$
  trap 'as_root rm -rf --one-file-system "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  mkdir "$work"

  write_apt_options >"$work/apt.conf"
  write_sources >"$work/sources.list"
  write_guest_files "$work/files"
  say "1/4 packages of Debian $release, from:"
  sed 's/^/  /' "$work/sources.list"
  bootstrap
  say "2/4 kernel and initrd"
  mkdir "$work/image"
  # The newest of each, should there be more than one.
  # shellcheck disable=SC2016
  as_root sh -c 'cp "$(ls -v "$1"/boot/vmlinuz-* | tail -n 1)" "$2/vmlinuz" &&
    cp "$(ls -v "$1"/boot/initrd.img-* | tail -n 1)" "$2/initrd.img"' sh "$work/root" "$work/image"
  say "3/4 file system image of $image_size"
  # rm and mke2fs as root: the tree has root's files and device nodes.
  as_root rm -rf --one-file-system "$work/root/boot"
  as_root env PATH="$PATH:/usr/sbin:/sbin" \
    mke2fs -q -t ext4 -d "$work/root" "$work/image/root.img" "$image_size" >/dev/null
  as_root chown -R "$(id -u):$(id -g)" "$work/image"
  as_root chmod -R u+rw,go+r "$work/image"
  say "4/4 done, $(du -sh "$work/image" | cut -f1) on disk"
  sync -f "$work/image"
  mv "$work/image" "$image"
  remove_older_images "$cache"
}

bootstrap() {
  local sources=()
  [[ ! -s $work/sources.list ]] || sources=("$work/sources.list")
  # shellcheck disable=SC2016 # $1 is mmdebstrap's: the new root.
  as_root "${apart[@]}" env TMPDIR="$work" nice mmdebstrap --verbose --variant=minbase \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --keyring="$keyring" --keyring=/etc/apt/trusted.gpg.d \
    --aptopt="$work/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="cp -r '$work/files/.' \"\$1\"" \
    --customize-hook='chroot "$1" sh -e /usr/local/sbin/vm-customize' \
    "$release" "$work/root" "${sources[@]}" 2>&1 | progress
}

# Errors, and of the rest one line in a hundred: silence for minutes looks like a hang.
progress() {
  awk '/^E:|^dpkg: error/ || NR % 100 == 0 { print "  " substr($0, 1, 100); fflush() }'
}

# The host's settings for how to fetch: proxies, retries, and the checks that a snapshot mirror needs off.
write_apt_options() {
  apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-Valid-Until|Check-Date)\b' || true
}

# The lines of the host's sources for Debian itself, as apt reads them (all formats, all directories).
write_sources() {
  local index own
  # shellcheck disable=SC2016 # apt-get fills these in.
  index=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(RELEASE) $(REPO_URI)' \
    'Created-By: Packages' | awk '$1 == "Debian" && $3 == "main"' | sort -u)
  own=$(awk -v r="$release" '$4 ~ "^" r "(-updates|-security)?$" { print "deb", $5, $4, "main" }' <<<"$index" |
    sort -k 3,3 | uniq)
  if grep -q " $release main" <<<"$own"; then
    echo "$own"
  elif [[ -n $index ]]; then
    # Another release of Debian: the same mirror has this one too.
    awk -v r="$release" '$2 == "Debian" && !seen++ { print "deb", $5, r, "main" }' <<<"$index"
  else
    say "apt on this machine knows no Debian mirror; leaving the choice to mmdebstrap"
  fi
}

# Files that must be there before the packages that read them are configured.
write_guest_files() {
  local files=$1
  mkdir -p "$files"/{etc/initramfs-tools/conf.d,usr/share/initramfs-tools/modules.d,usr/local/sbin,etc/systemd/system}

  # A small initrd: unpacking a full one takes the emulated processor half a minute.
  printf 'MODULES=list\nBUSYBOX=n\nCOMPRESS=gzip\n' >"$files/etc/initramfs-tools/conf.d/vm"
  printf '%s\n' "${initrd_modules[@]}" >"$files/usr/share/initramfs-tools/modules.d/vm"

  cat >"$files/etc/systemd/system/vm-test.service" <<'UNIT'
[Unit]
Description=Guest script of the test rig
After=basic.target systemd-udev-trigger.service dev-hvc0.device
Wants=dev-hvc0.device
SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/usr/local/sbin/vm-test
StandardInput=null
StandardOutput=file:/dev/hvc0
StandardError=inherit

[Install]
WantedBy=multi-user.target
UNIT

  cat >"$files/usr/local/sbin/vm-test" <<'SCRIPT'
#!/bin/bash
# Mounts what the host shares, runs its script there, and leaves the script's exit code in the results.
stty -opost </dev/hvc0
mkdir -p /mnt/share /mnt/results
modprobe 9pnet_virtio
options=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "$options,ro" share /mnt/share || exit
mount -t 9p -o "$options" results /mnt/results || exit
export HOME=/root RESULTS=/mnt/results SHARE=/mnt/share
cd /root || exit
bash /mnt/share/guest.sh
code=$?
echo "$code" >/mnt/results/exit-code
umount /mnt/results
exit "$code"
SCRIPT
  chmod +x "$files/usr/local/sbin/vm-test"

  cat >"$files/usr/local/sbin/vm-customize" <<'SCRIPT'
# Runs in the new root once its packages are there.
kernel=$(ls -v /lib/modules | tail -n 1)
test -n "$(find "/lib/modules/$kernel" -name 'v4l2loopback.ko*')" || {
  echo "E: dkms built no v4l2loopback for $kernel"
  cat /var/lib/dkms/v4l2loopback/*/build/make.log
  exit 1
}
depmod "$kernel"
systemctl enable vm-test.service
# Not wanted in a machine that lives for a minute. Gettys would write into the script's output.
systemctl mask getty.target systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer \
  dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer alsa-restore.service alsa-state.service
ln -sf /dev/null /etc/systemd/system-generators/systemd-getty-generator 2>/dev/null || {
  mkdir -p /etc/systemd/system-generators
  ln -sf /dev/null /etc/systemd/system-generators/systemd-getty-generator
}
echo shutterd-vm >/etc/hostname
# With none, each boot would be a first boot, which runs presets and more.
echo 5f1de7a8c0b94c6e9a2f3d4b5c6d7e8f >/etc/machine-id
rm -rf /usr/src/* /usr/lib/gcc /usr/lib/linux-kbuild-* /var/lib/dkms /var/lib/apt/lists/* /var/cache/apt/* \
  /usr/share/doc /usr/share/man /usr/share/locale /usr/lib/x86_64-linux-gnu/*.a
rm -f /usr/lib/gcc /usr/bin/x86_64-linux-gnu-* /usr/local/sbin/vm-customize
SCRIPT
}

# The newest two stay: one may belong to another branch.
remove_older_images() {
  find "$1" -maxdepth 1 -name 'image-*' -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- |
    while read -r old; do rm -rf "$old"; done
}

say() {
  echo "image: $*" >&2
}

main "$@"
