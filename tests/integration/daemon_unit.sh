#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The units as systemd reads them, with the program of this build; the user and the directories that they need.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

command -v systemd-analyze >/dev/null || exit 77
contrib=$SHMQ_SOURCE_DIR/contrib/systemd
export ASAN_OPTIONS=detect_leaks=0
for name in $(compgen -e SHMQD_); do unset "$name"; done

# ---- the units ----
mkdir "$dir/system" "$dir/user"
sed "s|=[^ ]*/shmqd |=$SHMQ_BUILD_DIR/daemon/shmqd |" "$SHMQ_BUILD_DIR/contrib/systemd/shmqd.service" >"$dir/system/shmqd.service"
sed "s|=[^ ]*/shmqd\b|=$SHMQ_BUILD_DIR/daemon/shmqd|" "$SHMQ_BUILD_DIR/contrib/systemd/shmqd-user.service" >"$dir/user/shmqd.service"
grep -q "^ExecStart=$SHMQ_BUILD_DIR/daemon/shmqd --system$" "$dir/system/shmqd.service" || report "another ExecStart"
expect 0 systemd-analyze verify --man=no --recursive-errors=no "$dir/system/shmqd.service"
[ -s "$dir/err" ] && report "verify complains"
expect 0 env XDG_RUNTIME_DIR="$dir" systemd-analyze verify --user --man=no --recursive-errors=no "$dir/user/shmqd.service"
# 10 is no hardening at all; what is left is mostly the network, which the stream resource needs.
expect 0 systemd-analyze security --offline=true --threshold=25 "$dir/system/shmqd.service"

# Each call that a rung needs passes the unit's filter.
filter=$(sed -n 's/^SystemCallFilter=//p' "$dir/system/shmqd.service")
allowed() { # allowed NAME: follow the groups
  local set=$1 one
  for one in $set; do
    case $one in
      @*) allowed "$(systemd-analyze syscall-filter "$one" | sed -n 's/^    \([@a-z0-9_-]*\)$/\1/p')" ;;
      *) echo "$one" ;;
    esac
  done
}
allowed "$filter" | sort -u >"$dir/calls"
for call in io_uring_setup io_uring_enter io_uring_register futex futex_waitv epoll_wait eventfd2 memfd_create openat2 \
  pidfd_open pidfd_send_signal membarrier capset setgroups prctl preadv2 pwritev2 clone3 execve flock inotify_init1; do
  grep -qx $call "$dir/calls" || report "$call is not allowed by the unit"
done

# systemd's filter for that one forbids openat2, which is not to be seen in the lists of calls.
grep -q '^RestrictSUIDSGID=y' "$dir"/*/shmqd.service && report "a dir cannot be served with RestrictSUIDSGID="

# ---- its options ----
expect 0 "$SHMQ_BUILD_DIR/daemon/shmqd" --system --check
mkdir "$dir/home"
if [ "$(id -u)" = 0 ]; then
  # As its user, the system's directory and not one of the user's.
  install -m 755 "$SHMQ_BUILD_DIR/daemon/shmqd" "$dir/shmqd" && chmod 755 "$dir"
  program=$SHMQ_BUILD_DIR/daemon/shmqd
  setpriv --reuid=65534 --regid=65534 --clear-groups "$program" --version >/dev/null 2>&1 || program=$dir/shmqd
  if setpriv --reuid=65534 --regid=65534 --clear-groups "$program" --version >/dev/null 2>&1; then
    expect 1 env -u XDG_RUNTIME_DIR setpriv --reuid=65534 --regid=65534 --clear-groups "$program" --system --quiet
    says /run/shmqd
  fi
fi

# ---- its user and directories ----
if [ "$(id -u)" = 0 ]; then
  root=$dir/root
  mkdir -p "$root/etc" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d" "$root/run"
  cp "$contrib/shmqd.sysusers" "$root/usr/lib/sysusers.d/shmqd.conf"
  cp "$contrib/shmqd.tmpfiles" "$root/usr/lib/tmpfiles.d/shmqd.conf"
  expect 0 systemd-sysusers --root="$root"
  grep -q '^shmqd:x:[0-9]*:[0-9]*:Owner of files' "$root/etc/passwd" || report "no user shmqd"
  expect 0 systemd-tmpfiles --root="$root" --create
  uid=$(sed -n 's/^shmqd:x:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
  same "755 $uid" "$(stat -c '%a %u' "$root/run/shmqd")" "/run/shmqd"
  same "750 $uid" "$(stat -c '%a %u' "$root/var/lib/shmq")" "/var/lib/shmq"
  same "755 0" "$(stat -c '%a %u' "$root/etc/shmq/conf.d")" "/etc/shmq/conf.d"
fi

finish
