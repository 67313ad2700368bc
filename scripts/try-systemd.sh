#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Show that shmqd works under a real systemd, installed and enabled as the README and the units say.
#
#   scripts/try-systemd.sh [--keep] [--base FOLDER]
#
# A minimal Debian 12 is made with debootstrap in a temporary folder, this tree is built and installed there, and its
# systemd is started as process 1 of namespaces of its own: mounts, processes, cgroups, network, names. A line is
# printed for each thing shown; the exit status is 1 if one could not be. Needs root, debootstrap and a kernel with
# cgroup v2; no mount, process or cgroup is left behind. --keep: leave the folder and print its name. --base: the bare
# system is in FOLDER, or is made there, and a copy of it is used: the next run need not bootstrap.
set -euo pipefail

release=bookworm
source_dir=$(cd "$(dirname "$0")/.." && pwd)
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd
packages+=,libhwloc15,libinih1,liburing2,libsmartcols1,libncursesw6,libsqlite3-0

die() { echo "try-systemd: $*" >&2; exit 1; }
# shellcheck source=scripts/debian-root.sh
. "$source_dir/scripts/debian-root.sh"

# ---- a machine ----

# Inside, in two steps: the root of a cgroup namespace is the group that one is in when it is made. What the kernel has
# once for all, its clock and its parameters, is not to be touched: read-only, and without the capabilities.
enter() { # enter CGROUP
  echo $$ >"$1/cgroup.procs"
  exec unshare --cgroup "$0" --init "$root"
}

init() {
  mount --make-rprivate /
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  local fixed
  for fixed in "$root"/proc/sys "$root"/proc/sysrq-trigger; do
    if [ -e "$fixed" ]; then mount --bind "$fixed" "$fixed" && mount -o remount,bind,ro "$fixed"; fi
  done
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount_devices "$root"
  change_root "$root"
  hostname try-systemd
  exec setpriv --bounding-set -sys_time,-sys_module,-sys_boot,-sys_rawio,-syslog \
    env -i container=try-systemd PATH="$inside_path" /lib/systemd/systemd
}

# process 1 dies with `machine`, and everything in its namespace with it.
boot() {
  setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --net --fork --kill-child \
    "$0" --enter "$root" "$cgroup" </dev/null >"$work/console" 2>&1 &
  machine=$!
  eventually running_or_dead && kill -0 "$machine" 2>/dev/null ||
    die "systemd did not start: $(cat "$work/console"; [ -z "$init_pid" ] || { inside systemctl is-system-running; inside systemctl list-jobs; inside systemctl list-units --failed; })"
}

running_or_dead() {
  kill -0 "$machine" 2>/dev/null || return 0
  init_pid=$(tr -d " " <"/proc/$machine/task/$machine/children") && [ -n "$init_pid" ] &&
    [ "$(inside systemctl is-system-running 2>/dev/null)" = running ]
}

power_off() {
  [ -n "$machine" ] || return 0
  kill -KILL "$machine" 2>/dev/null || true
  wait "$machine" 2>/dev/null || true
  machine=
  eventually cgroup_is_empty || die "processes are left in $cgroup"
  find "$cgroup" -mindepth 1 -depth -type d -exec rmdir {} +
}

cgroup_is_empty() { grep -q '^populated 0' "$cgroup/cgroup.events"; }

clean_up() {
  local status=$?
  set +e
  touch "$work/enough"
  power_off
  # shellcheck disable=SC2046 # numbers
  kill $(jobs -p) 2>/dev/null
  wait
  rmdir "$cgroup"
  umount "$work/cgroup"
  if [ $keep = yes ]; then echo "kept: $work"; else rm -rf --one-file-system "$work"; fi
  exit $status
}

inside_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
inside() {
  nsenter --target "$init_pid" --mount --uts --ipc --net --pid --cgroup --root --wd \
    env -i PATH="$inside_path" LANG=C.UTF-8 HOME=/ "$@"
}
as() { # as USER COMMAND...
  local id=${users[$1]}
  shift
  inside setpriv --reuid="$id" --regid="$id" --clear-groups env XDG_RUNTIME_DIR="/run/user/$id" "$@"
}
ask() { # ask USER ...: of the system's daemon
  local user=$1
  shift
  as "$user" shmq ask --socket /run/shmqd/control --timeout 60s "$@"
}

# ---- what is shown ----

failures=0
ok() { printf 'ok    %s\n' "$*"; }
failed() {
  failures=$((failures + 1))
  printf 'FAIL  %s\n' "$*"
  if [ -s "$work/said" ]; then sed 's/^/      /' "$work/said"; fi
}
# show TEXT COMMAND...: it succeeds, whatever it says; refuse: it does not, and says what is wanted.
show() {
  local text=$1
  shift
  if "$@" >"$work/said" 2>&1; then ok "$text"; else failed "$text"; fi
}
refuse() { # refuse TEXT WORDS COMMAND...
  local text=$1 words=$2
  shift 2
  if ! "$@" >"$work/said" 2>&1 && grep -qF -- "$words" "$work/said"; then ok "$text: $words"; else failed "$text"; fi
}
same() { # same TEXT WANTED GOT
  : >"$work/said"
  if [ "$2" = "$3" ]; then ok "$1: $3"; else failed "$1: '$3' instead of '$2'"; fi
}
eventually() { # eventually COMMAND...: within a minute
  local until=$((SECONDS + 60))
  while ! "$@"; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.05
  done
}
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

property() { inside systemctl show -P "$1" shmqd; }
status() { ask root daemon status | sed -n "s/^$1=//p"; }
state_is() { [ "$(property ActiveState)" = "$1" ]; }
status_says() { [[ $(property StatusText) = "$1"* ]]; }
log_says() { inside journalctl -u shmqd -o cat --no-pager | grep -qF -- "$1"; }

configure() { # configure [LINE]...: the parts that do not change, and what else stands under [daemon]
  {
    printf '%s\n' "[daemon]" "restart_failures = 0" "restart_most = 200ms" # its worker is killed often here
    printf '%s\n' "$@"
    printf '%s\n' "[log:audit]" "path = /var/lib/shmq/audit" "allow = uid:${users[alice]} rw, uid:${users[bob]} r" \
      "[kv:settings]" "path = /var/lib/shmq/settings" "allow = all rw" \
      "[dir:etc]" "path = /etc" "allow = all r" \
      "[process:cat]" "command = /bin/cat" "allow = all rw" \
      "[service:database]" "ready = newline" "segment = try-database" \
      "command = /usr/local/bin/shmq-sqlite serve --mode 666 --ready-fd 3 try-database /var/lib/shmq/database"
  } >"$root/etc/shmq/shmqd.conf"
}

# ---- 1. the unit, its start and its place ----

in_every_process() { # in_every_process FIELD VALUE: of /proc/PID/status
  local pid
  for pid in $(cat "$cgroup/system.slice/shmqd.service/cgroup.procs"); do
    grep -qE "^$1:\s+$2$" "/proc/$pid/status" || { cat "/proc/$pid/status"; return 1; }
  done
}

rung_outside_the_unit() {
  inside sh -c 'mkdir -p /tmp/own && exec shmqd -q --config /dev/null --dir /tmp/own' &
  local own=$!
  eventually inside test -S /tmp/own/control
  inside shmq ask --socket /tmp/own/control daemon status | sed -n 's/^io=//p'
  inside sh -c 'read -r pid rest </tmp/own/lock && kill "$pid"'
  wait $own
}

install_as_readme() {
  DESTDIR=$root cmake --install "$work/build" && inside ldconfig || return
  inside sh -exc "$(sed -nE '/^sudo (systemd-|systemctl )/s/sudo //gp' "$source_dir/README.md")"
}

unit_and_start() {
  local figure
  show "installed, enabled and started with the README's commands: READY=1 came" install_as_readme
  show "there are its user, /etc/shmq, /run/shmqd, /var/lib/shmq" \
    inside sh -c 'id shmqd && test -d /etc/shmq/conf.d && test -d /run/shmqd && test -d /var/lib/shmq'
  show "systemd-analyze verify: nothing to complain of" verify /usr/local/lib/systemd/system/shmqd.service
  show "systemd-analyze verify --user: nothing to complain of" \
    verify --user /usr/local/lib/systemd/user/shmqd.service
  same "it is" "active running notify" "$(property ActiveState) $(property SubState) $(property Type)"
  show "all its processes are shmqd's" in_every_process Uid "$(inside id -u shmqd)(\s+[0-9]+){3}"
  show "without capabilities, effective or to be had" in_every_process 'Cap(Eff|Bnd)' '0+'
  show "without gain of privileges by exec" in_every_process NoNewPrivs 1
  show "behind a filter of system calls" in_every_process Seccomp 2
  same "the rung, as outside of the unit" "$(rung_outside_the_unit)" "$(status io)"
  figure=$(inside systemd-analyze security --no-pager shmqd | sed -n 's/.*exposure level for.*: //p')
  show "systemd-analyze security, 0 to 10: $figure" inside systemd-analyze security --threshold=25 shmqd
}

verify() {
  inside env XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no "$@" >"$work/verify" 2>&1 || { cat "$work/verify"; return 1; }
  cat "$work/verify"
  [ ! -s "$work/verify" ]
}

# ---- 2. who may ----

rights() {
  refuse "access = owner: another user does not connect" "permission denied" ask alice daemon status
  configure "access = all" "guard = yes"
  show "access = all, and a restart" inside systemctl restart shmqd
  show "a user connects" ask alice daemon status
  show "who may write appends" ask alice audit append first
  refuse "who may read does not" "permission denied" ask bob audit append no
  show "and reads" ask bob audit read 1
  refuse "who may do nothing does nothing" "permission denied" ask carol audit read 1
}

# ---- 3. what it owns, behind the unit's walls ----

leased() { inside shmq info --json guarded | grep -q "\"leased\":$1,"; }

owned() {
  same "dir: a file is read" "$(cat "$root/etc/debian_version")" "$(ask carol etc get debian_version)"
  show "kv: a value is put" ask carol settings put colour blue
  same "process: a child answers" hello "$(ask carol cat line hello)"
  same "service: asked in the system's /dev/shm, a database answers" 42 \
    "$(as carol shmq-sqlite query try-database 'select 6 * ?1' 7)"
  as alice shmq create --mode 666 guarded && as alice shmq put guarded work
  inside systemd-run --quiet --unit=holder --uid="${users[alice]}" shmq work guarded -- sleep 1000
  show "a worker of another user holds a message" eventually leased 1
  inside systemctl kill --kill-whom=all --signal=KILL holder
  show "killed, its message is given back by the guard" eventually leased 0
}

# ---- 4. sessions across restarts ----

appenders=4 followers=8 times=5 clients=() events=0
feed() { # feed NAME: records until it is enough
  local i=0
  until [ -e "$work/enough" ]; do
    echo "record $1 $((i++))"
    sleep 0.01
  done
}
# Connect again and again, each a session of its own. One that is in the midst of its greeting when the daemon goes is
# lost: one of them at most for each end, since they come one after the other.
knock() {
  until [ -e "$work/enough" ]; do
    if ask carol daemon status >/dev/null 2>>"$work/refusals"; then echo answered; else echo refused; fi
  done >"$work/knocks"
}
begin_sessions() {
  local i
  for ((i = 1; i <= appenders; i++)); do
    feed "$i" | ask alice audit append - >"$work/answers.$i" 2>"$work/append.$i" &
    clients+=($!)
  done
  for ((i = 1; i <= followers; i++)); do
    as bob shmq ask --socket /run/shmqd/control audit follow 1 >"$work/followed.$i" 2>"$work/follow.$i" &
    clients+=($!)
  done
  knock &
  clients+=($!)
}

sessions_kept() { [ "$(property NFileDescriptorStore)" -ge $((1 + 2 * (appenders + followers))) ]; }
clients_live() {
  local pid
  for pid in "${clients[@]}"; do kill -0 "$pid" || return 1; done
}
# A line for each session: how many records a follower has got, how many an appender has brought. What the appenders
# print comes by pages, so it is one of the followers that tells.
progress() {
  local i
  for ((i = 1; i <= followers; i++)); do wc -l <"$work/followed.$i"; done
  for ((i = 1; i <= appenders; i++)); do grep -c "^record $i " "$work/followed.1"; done
}
more_for_each() { # more_for_each PROGRESS: than it was then
  paste <(echo "$1") <(progress) | awk '$2 <= $1 { behind = 1 } END { exit behind }'
}
epoch_after() { [ "$(status epoch)" -gt "$1" ]; }
worker_pid() {
  local pid
  for pid in $(cat "$cgroup/system.slice/shmqd.service/cgroup.procs"); do
    if grep -qx shmqd-worker "/proc/$pid/comm"; then echo "$pid"; fi
  done
}
kill_worker() { kill -KILL "$(worker_pid)"; }
kill_main() { killed_and_restarted --kill-whom=main; }
kill_all() { killed_and_restarted --kill-whom=all; }
killed_and_restarted() {
  local before
  before=$(property NRestarts)
  inside systemctl kill --signal=KILL "$1" shmqd && eventually restarted_since "$before"
}
restarted_since() { [ "$(property NRestarts)" -gt "$1" ] && state_is active; }

once_across() { # a new worker serves every session that was there; how long it took is added to $took
  local epoch begin before
  inside systemctl reset-failed shmqd # starts by hand count against what a unit may be started in ten seconds
  epoch=$(status epoch)
  begin=$(milliseconds)
  "$@" >"$work/said" 2>&1 && eventually epoch_after "$epoch" || return
  took+=" $(($(milliseconds) - begin))"
  before=$(progress)
  eventually more_for_each "$before" && clients_live
}
across() { # across TEXT COMMAND...
  local text=$1 took='' i
  shift
  events=$((events + times))
  for ((i = 1; i <= times; i++)); do
    once_across "$@" || { failed "$text, time $i: not every session goes on"; return; }
  done
  ok "$text, $times times: every session goes on; ms until it was served:$took"
}

end_sessions() {
  local i pid records refused
  touch "$work/enough"
  for pid in "${clients[@]:0:appenders}"; do wait "$pid" || failed "an appender ended so"; done
  ask alice audit read 2 >"$work/log" # the first was another's
  records=$(wc -l <"$work/log")
  same "records, each once" "$records" "$(sort -u "$work/log" | wc -l)"
  same "answers, one for each record" "$records" "$(cat "$work"/answers.* | sort -un | wc -l)"
  same "answers given twice" 0 "$(cat "$work"/answers.* | sort | uniq -d | wc -l)"
  for ((i = 1; i <= appenders; i++)); do
    diff <(grep "^record $i " "$work/log") <(seq -f "record $i %.0f" 0 $(($(wc -l <"$work/answers.$i") - 1))) \
      >"$work/said" || failed "the records of appender $i, in its order"
  done
  for ((i = 1; i <= followers; i++)); do
    eventually diff -q <(echo first; cat "$work/log") "$work/followed.$i" >"$work/said" || failed "follower $i"
  done
  ok "$followers requests that waited were answered with each record, once and in order"
  wait "${clients[-1]}" || true
  refused=$(grep -c refused "$work/knocks")
  cp "$work/refusals" "$work/said"
  if [ "$refused" -le "$events" ]; then
    ok "connections meanwhile: $(wc -l <"$work/knocks"), of them lost: $refused $(sort -u "$work/refusals")"
  else
    failed "connections lost: $refused"
  fi
}

sessions() {
  begin_sessions
  show "$((appenders + followers)) sessions are with systemd, two descriptors each" eventually sessions_kept
  across "systemctl restart" inside systemctl restart shmqd
  across "the worker killed" kill_worker
  across "the supervisor killed" kill_main
  across "all of it killed" kill_all
  show "systemctl daemon-reexec" inside systemctl daemon-reexec
  across "systemctl restart, by the new systemd" inside systemctl restart shmqd
  end_sessions
}

# ---- 5. reload ----

reload() {
  local main epoch
  main=$(property MainPID) epoch=$(status epoch)
  configure "access = all" "guard = yes" "[log:fresh]" "path = /var/lib/shmq/fresh" "allow = all rw"
  show "a good configuration: systemctl reload" inside systemctl reload shmqd
  show "what is new is served" eventually ask alice fresh append x
  configure "access = all" "guard = yes" "colour = blue"
  refuse "a wrong one: systemctl reload" "failed" inside systemctl reload shmqd
  show "the journal names file and line" log_says "/etc/shmq/shmqd.conf:6"
  same "the daemon has not heard of it" 0 "$(inside journalctl -u shmqd -o cat --no-pager | grep -c '^not reloaded' || true)"
  show "what was there is served" ask alice fresh append y
  configure "access = owner"
  show "one that needs a restart is passed on" inside systemctl reload shmqd
  show "and is refused by the daemon" eventually log_says "not reloaded"
  show "as systemctl status says" eventually status_says "Not reloaded: "
  show "what was there is served" ask alice fresh append z
  same "the same daemon and worker" "$main $epoch" "$(property MainPID) $(status epoch)"
}

# ---- 6. the end, and the next boot ----

gone() { ! kill -0 "$1" 2>/dev/null; }

stop_and_boot() {
  local begin took
  configure "access = all"
  begin=$(milliseconds)
  show "systemctl stop" inside systemctl stop shmqd
  took=$(($(milliseconds) - begin))
  if [ $took -lt 30000 ]; then ok "it took $took ms, of 30000"; else failed "it took $took ms"; fi
  same "its result" "inactive success 0" "$(property ActiveState) $(property Result) $(property NFileDescriptorStore)"
  for pid in "${clients[@]:appenders:followers}"; do
    eventually gone "$pid" || failed "a client waits for ever"
  done
  same "clients that were told" $followers "$(cat "$work"/follow.* | grep -c 'died' || true)"
  refuse "who comes now" "no daemon listens" ask alice daemon status
  show "no socket is left" inside test ! -e /run/shmqd/control
  power_off
  boot
  show "enabled: it runs after a boot" eventually state_is active
  show "with the log as it was" diff <(ask alice audit read 2) "$work/log"
  same "and the value" blue "$(ask carol settings get colour)"
  echo "[nonsense" >"$root/etc/shmq/conf.d/wrong.conf"
  refuse "a wrong configuration does not start" "failed" inside systemctl restart shmqd
  show "and is given up after a few tries" eventually state_is failed
  rm "$root/etc/shmq/conf.d/wrong.conf"
}

# ---- 7. a user's ----

user_unit() {
  local home=$root/home/alice begin
  inside loginctl enable-linger alice
  show "a user's systemd" eventually as alice systemctl --user is-system-running
  mkdir -p "$home/.config/shmq"
  printf '[log:mine]\npath = /home/alice/mine\n' >"$home/.config/shmq/shmqd.conf"
  chown -R "${users[alice]}" "$home"
  show "systemctl --user start" as alice systemctl --user start shmqd
  same "a record" 1 "$(as alice shmq ask mine append one)"
  as alice shmq ask mine follow 1 >"$work/mine" 2>&1 &
  clients=($!)
  eventually grep -q one "$work/mine"
  show "systemctl --user restart" as alice systemctl --user restart shmqd
  same "another" 2 "$(as alice shmq ask mine append two)"
  show "whose answer came to who had waited" eventually grep -q two "$work/mine"
  show "systemctl --user reload" as alice systemctl --user reload shmqd
  show "systemctl --user stop" as alice systemctl --user stop shmqd
  show "who waited is told" eventually gone "${clients[0]}"
}

# ---- all of it ----

make_system() {
  local bare=${base:-$root}
  if [ ! -e "$bare/sbin/init" ]; then
    echo "== debootstrap $release"
    mkdir -p "$bare"
    bootstrap "$bare" "$work/debootstrap.log" "$packages"
  fi
  if [ "$bare" != "$root" ]; then cp -a "$bare" "$root"; fi
  echo "== build"
  cd "$source_dir"
  { cmake --preset release -B "$work/build" -DSHMQ_TESTS=OFF && cmake --build "$work/build"; } >"$work/build.log" 2>&1 ||
    { tail -n 20 "$work/build.log"; exit 1; }
  local user
  for user in alice bob carol; do chroot "$root" useradd --create-home --uid "${users[$user]}" "$user"; done
}

show_all() {
  unit_and_start
  rights
  owned
  sessions
  reload
  stop_and_boot
  user_unit
}

declare -A users=([root]=0 [alice]=1000 [bob]=1001 [carol]=1002)
case ${1:-} in
  --enter) root=$2 && enter "$3" ;;
  --init) root=$2 && init ;;
esac

arguments=("$@") keep=no base='' machine='' init_pid=''
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=yes ;;
    --base) [ $# -gt 1 ] || die "--base takes a folder"; base=$(realpath -m "$2") && shift ;;
    *) die "unknown option $1" ;;
  esac
  shift
done
[ "$(id -u)" -eq 0 ] || die "needs root: debootstrap, mounts, cgroups"
command -v debootstrap >/dev/null || die "debootstrap is not installed: scripts/install-deps.sh all"
# Whatever is mounted here is nobody else's, and goes with us.
if [ "${TRY_SYSTEMD_MOUNTS:-}" != own ]; then
  TRY_SYSTEMD_MOUNTS=own exec unshare --mount --propagation private "$0" "${arguments[@]}"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-systemd.XXXXXX")
root=$work/root cgroup=$work/cgroup/shmq-try-systemd.$$
mkdir "$work/cgroup"
mount -t cgroup2 cgroup2 "$work/cgroup"
mkdir "$cgroup"
trap clean_up EXIT
trap 'exit 1' INT TERM

make_system
set +e # from here on a failure is counted, and the next thing is tried
boot
ok "booted: $(inside systemctl --version | sed -n 1p), as process 1"
show_all
echo "== $failures failures"
[ "$failures" -eq 0 ]
