#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Show that the two commands of the README work on a machine with nothing but Debian 12's base and git.
#
#   scripts/try-minimal.sh [--bootstrap-only] [--keep] [COMMAND...]
#
# A minimal system is made with debootstrap in a temporary folder; the last commit of this repository
# is cloned there, and each COMMAND (default: scripts/demo.sh and scripts/test.sh) is run in the clone,
# in mount, pid and ipc namespaces of its own with that system as their root. Needs root and debootstrap.
# --bootstrap-only: stop before the commands. --keep: leave the folder and print its name.
set -euo pipefail

release=bookworm
source_dir=$(cd "$(dirname "$0")/.." && pwd)

die() { echo "try-minimal: $*" >&2; exit 1; }
# shellcheck source=scripts/debian-root.sh
. "$source_dir/scripts/debian-root.sh"

# How this machine reaches its packages: sources, keys, proxies, names.
copy_apt_configuration() {
  rm -f "$root/etc/apt/sources.list"
  cp -rL /etc/apt/sources.list "$root/etc/apt/" 2>/dev/null || true
  cp -rL /etc/apt/sources.list.d/. "$root/etc/apt/sources.list.d/"
  local folder
  for folder in /etc/apt/trusted.gpg.d /etc/apt/keyrings /usr/share/keyrings /etc/apt/auth.conf.d; do
    if [ -d $folder ]; then mkdir -p "$root$folder" && cp -rL $folder/. "$root$folder/"; fi
  done
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Max-ValidTime|Retries|ForceIPv)' \
    >"$root/etc/apt/apt.conf.d/00host" || true
  mkdir -p "$root/usr/local/share/ca-certificates" "$root/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
}

# Run inside the new namespaces.
enter() {
  mount --make-rprivate /
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind -o ro /sys "$root/sys"
  mount_devices "$root"
  change_root "$root"
  exec env -i HOME=/root TERM=dumb LANG=C.UTF-8 ${http_proxy:+http_proxy="$http_proxy"} \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    bash -c 'cd /root/shmq && exec bash -c "$1"' try-minimal "$1"
}

if [ "${1:-}" = --enter ]; then
  root=$2
  enter "$3"
fi

keep=no
commands=(scripts/demo.sh scripts/test.sh)
while [ $# -gt 0 ]; do
  case $1 in
    --bootstrap-only) commands=("git log -1 --oneline && scripts/install-deps.sh --print test") ;;
    --keep) keep=yes ;;
    -*) die "unknown option $1" ;;
    *) commands=("$@"); break ;;
  esac
  shift
done

[ "$(id -u)" -eq 0 ] || die "needs root: debootstrap, mounts, chroot"
command -v debootstrap >/dev/null || die "debootstrap is not installed: scripts/install-deps.sh all"

work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-minimal.XXXXXX")
root=$work/root
mkdir "$root"
# One file system: whatever went wrong, never reach through a mount into the host's.
trap 'if [ $keep = yes ]; then echo "kept: $work"; else rm -rf --one-file-system "$work"; fi' EXIT

echo "== debootstrap $release"
time bootstrap "$root" "$work/debootstrap.log" git,ca-certificates
copy_apt_configuration
git clone --quiet "file://$source_dir" "$root/root/shmq"
du -sh --one-file-system "$root" | cut -f 1

for command in "${commands[@]}"; do
  echo "== $command"
  time unshare --mount --pid --fork --kill-child --ipc "$0" --enter "$root" "$command"
done
echo "== all done"
