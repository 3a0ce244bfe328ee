#!/usr/bin/env bash
# Makes sure that what a recipe needs is on this machine.
#
#   scripts/install-deps.sh demo | test | ci
#
# demo: what the build and the demo need; test: and what the tests need; ci: and what only CI uses.
# Packages that are missing are installed by apt-get, with sudo unless this is root; when none is
# missing, nothing is run. Rust is not installed, only looked for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# cmake and nasm build libjpeg-turbo, libclang reads the V4L2 headers; ffprobe plays recordings back.
demo=(build-essential pkg-config libclang-dev libasound2-dev cmake nasm ffmpeg python3)
test=(mkvtoolnix libasound2-plugins python3-venv strace procps curl)
ci=(shellcheck)

main() {
  local wanted
  case ${1:-} in
    demo) wanted=("${demo[@]}") ;;
    test) wanted=("${demo[@]}" "${test[@]}") ;;
    ci) wanted=("${demo[@]}" "${test[@]}" "${ci[@]}") ;;
    *) fail "say demo, test or ci" ;;
  esac
  install_packages "${wanted[@]}"
  look_for_rust
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "this is no Debian: make sure that it has what these packages hold: $*"
    return
  fi
  local package missing=()
  for package; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  as_root apt-get update -q >/dev/null || say "apt-get update failed; going on with the lists there are"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}

is_installed() {
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "needs root for: $*"
  fi
}

look_for_rust() {
  local needed found
  needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  if ! command -v cargo >/dev/null || ! found=$(rustc --version | awk '{ print $2 }'); then
    fail "Rust is not on this machine: install $needed or newer as https://rustup.rs says, then run this again"
  fi
  [[ $(printf '%s\n' "$needed" "$found" | sort -V | head -n 1) == "$needed" ]] ||
    fail "Rust $found is too old: $needed or newer is needed; \`rustup update stable\` brings it"
}

say() {
  echo "install-deps: $*" >&2
}

fail() {
  say "$*"
  exit 1
}

main "$@"
