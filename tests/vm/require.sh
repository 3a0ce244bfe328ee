# shellcheck shell=bash
# Sourced by the scripts beside it: installs what a script needs and the machine lacks.

# require COMMAND PACKAGE [COMMAND PACKAGE]...: apt packages for the commands that are not found.
require() {
  local packages=()
  while (($#)); do
    # mke2fs and its kind live in /usr/sbin, which a user's PATH may leave out.
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || packages+=("$2")
    shift 2
  done
  ((${#packages[@]})) || return 0
  echo "vm: installing ${packages[*]}" >&2
  as_root apt-get update -q >/dev/null || echo "vm: apt-get update failed; going on with the lists there are" >&2
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}
