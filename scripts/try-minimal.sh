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

# The mirror that this machine itself uses, from either form of its package sources.
find_mirror() {
  local file
  shopt -s nullglob
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ -r "$file" ]; then
      sed -nE "s@^deb (\[[^]]*\] )?([^ ]+) $release .*@\2@p" "$file"
    fi
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    cat "$file" && echo
  done | awk -v release="$release" '
    /^URIs:/ { uri = $2 }
    /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == release) wanted = 1 }
    /^$/ { if (wanted && uri) print uri; uri = ""; wanted = 0 }'
}

# debootstrap fetches by itself: hand it the proxy that apt is configured with.
export_proxy() {
  local proxy=
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  if [ -n "$proxy" ]; then export http_proxy=$proxy; fi
}

bootstrap() {
  local mirror
  mirror=$(find_mirror | sed -n 1p)
  [ -n "$mirror" ] || die "no source of $release in /etc/apt"
  export_proxy
  debootstrap --variant=minbase --include=git,ca-certificates "$release" "$root" "$mirror" >"$work/debootstrap.log" ||
    { tail -n 20 "$work/debootstrap.log" >&2; die "debootstrap failed"; }
}

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

# Run inside the new namespaces: what a booted machine has mounted, and nothing of this one's. The root
# is really changed (pivot_root), since a process in a chroot may not make user namespaces.
enter() {
  mount --make-rprivate /
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind -o ro /sys "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  local node
  for node in null zero full random urandom tty; do
    touch "$root/dev/$node" && mount --bind "/dev/$node" "$root/dev/$node"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  cd "$root"
  pivot_root . .
  umount -l .
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
time bootstrap
copy_apt_configuration
git clone --quiet "file://$source_dir" "$root/root/shmq"
du -sh --one-file-system "$root" | cut -f 1

for command in "${commands[@]}"; do
  echo "== $command"
  time unshare --mount --pid --fork --kill-child --ipc "$0" --enter "$root" "$command"
done
echo "== all done"
