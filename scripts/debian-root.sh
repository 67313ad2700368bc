# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # `release` is theirs
# A minimal Debian 12 in a folder, and namespaces with it as their root. To be sourced by scripts that say what
# `release` is and have `die`.

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

bootstrap() { # bootstrap ROOT LOG PACKAGE,...
  local mirror
  mirror=$(find_mirror | sed -n 1p)
  [ -n "$mirror" ] || die "no source of $release in /etc/apt"
  export_proxy
  debootstrap --variant=minbase --include="$3" "$release" "$1" "$mirror" >"$2" ||
    { tail -n 20 "$2" >&2; die "debootstrap failed"; }
}

# In new namespaces: what a booted machine has mounted, and nothing of this one's, but for /sys.
mount_devices() { # mount_devices ROOT
  local root=$1 node
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in null zero full random urandom tty; do
    touch "$root/dev/$node" && mount --bind "/dev/$node" "$root/dev/$node"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
}

# The root is really changed (pivot_root), since a process in a chroot may not make user namespaces.
change_root() { # change_root ROOT
  cd "$1" || return
  pivot_root . .
  umount -l .
}
