#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmqd's configuration: every mistake with its line, who overrides whom, reloads, the manual pages.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

shmqd=$SHMQ_BUILD_DIR/daemon/shmqd
for name in $(compgen -e SHMQD_); do unset "$name"; done
export ASAN_OPTIONS=detect_leaks=0 # it waits for ever for the kernel's I/O pool
conf=$dir/shmqd.conf

# ---- mistakes ----
refused() { # refused LINE TEXT CONTENT: the complaint names the file, the line and what is wrong
  printf '%b' "$3" >"$conf"
  expect 1 "$shmqd" --check --config "$conf"
  says "$conf:$1: "
  says "$2"
}
x49=$(printf 'x%.0s' $(seq 49))
refused 2 "neither a [section]" '[daemon]\nnonsense\n'
refused 1 "neither a [section]" '[daemon\n'
refused 3 "[daemon] speed: no such parameter" '[daemon]\n# remark\nspeed = 1\n'
refused 1 "[ship]: no such kind" '[ship]\n'
refused 1 "[ship:a]: no such kind" '[ship:a]\npath = /\n'
refused 1 "[dir]: needs a name" '[dir]\npath = /\n'
refused 1 "[dir:a/b]: needs a name" '[dir:a/b]\npath = /\n'
refused 1 "[daemon:a]: takes no name" '[daemon:a]\n'
refused 1 "name is too long" "[dir:$x49]\n"
refused 1 "something follows" '[daemon] spin = 1s\n'
refused 2 "[dir:a] path: must be given" '\n[dir:a]\nrights = write\n'
refused 2 "'' must not be empty" '[dir:a]\npath =\n'
refused 2 "'fast' is not a number of that kind" '[daemon]\nspin = fast\n'
refused 2 "'2s' is out of range" '[daemon]\nspin = 2s\n'
refused 2 "'0' is out of range (1 to 4096)" '[daemon]\ncredits = 0\n'
refused 2 "'4K' is not a number of that kind" '[daemon]\ncredits = 4K\n'
refused 2 "'99999999999999999999' is not" '[daemon]\nmax_block_bytes = 99999999999999999999\n'
refused 2 "'maybe' must be yes or no" '[daemon]\nguard = maybe\n'
refused 3 "must be uid:ID, gid:ID or all" '[dir:a]\npath = /\nallow = 1000 r\n'
refused 3 "gives somebody no rights" '[dir:a]\npath = /\nallow = all r, uid:1\n'
refused 3 "none of r, w and a" '[dir:a]\npath = /\nallow = all rx\n'
refused 3 "nothing between two commas" '[dir:a]\npath = /\nallow = all r, , uid:1 r\n'
refused 3 "a user that there is not" '[dir:a]\npath = /\nallow = uid:4294967295 r\n'
refused 3 "a group that there is not" '[dir:a]\npath = /\nallow = gid:no-such-group r\n'
refused 3 "needs a comma" '[dir:a]\npath = /\nallow = all r uid:1 w\n'
refused 5 "[dir:a] shard: is more than there are" '[daemon]\nshards = 2\n[dir:a]\npath = /\nshard = 3\n'
refused 3 "[stream:a] connect: is neither tcp:HOST:PORT nor unix:PATH" '[stream:a]\n\nconnect = localhost\n'
refused 2 "[process:a] command: cannot be split" '[process:a]\ncommand = "x\n'
refused 2 "[process:a] command: must not have commands" '[process:a]\ncommand = x $(date)\n'
refused 1 "[process:a] marker: must be given" '[process:a]\ncommand = x\nframing = marker\n'
refused 5 "[process:a] marker_command: is too long" "[process:a]\ncommand = x\nframing = marker\nmarker = %n\nmarker_command = $(printf '%%n%.0s' $(seq 13))\n"
refused 1 "[pool:a] tokens: must be given, or count" '[pool:a]\n'
refused 3 "[service:a] after: names a service" '[service:a]\ncommand = x\nafter = b\n'
refused 2 "'65' is out of range" '[daemon]\nshards = 65\n'
refused 2 "(auto|" '[daemon]\nio = fast\n'
refused 2 "has a NUL" '[daemon]\nspin = 1s\0000 is not seen\n'
refused 2 "control character" '[daemon]\nspin = 1\0001s\n'
refused 3 "the line is too long" "[daemon]\n\n# $(printf 'x%.0s' $(seq 198))\n"
refused 4 "[daemon] spon: no such parameter" '[daemon]\ndrain = 1s\n  spin = 1s\n\tspon = 1s\n' # nothing continues
expect 1 "$shmqd" --check --config "$dir/absent"
says "$dir/absent: No such file"
expect 1 "$shmqd" --check --config "$dir"
says "$dir:1: cannot be read"
set_refused() { # set_refused TEXT ASSIGNMENT
  expect 1 "$shmqd" --check --config /dev/null --set "$2"
  says "--set: "
  says "$1"
}
set_refused 'is not SECTION.KEY=VALUE' daemon
set_refused 'is not SECTION.KEY=VALUE' daemon=1
set_refused 'no such parameter' daemon.speed=1
set_refused '[dir:a] path: must be given' dir:a.rights=write
set_refused 'must not have a ; after a blank' 'dir:a.path=/tmp ;x'
set_refused 'begin or end with a blank' 'dir:a.path=/tmp '
expect 1 env SHMQD_DAEMON_CREDIT=1 "$shmqd" --check --config /dev/null
says 'SHMQD_DAEMON_CREDIT: [daemon] credit: no such parameter'
expect 1 env SHMQD_DAEMON_CREDITS=x "$shmqd" --check --config /dev/null
says "SHMQD_DAEMON_CREDITS: [daemon] credits: 'x'"
for wrong in --nonsense argument --ready-fd=x --manual=3; do
  expect 2 "$shmqd" "$wrong"
done

# ---- what is shown can be read again, and says where it comes from ----
printf '[daemon]\r\nspin = 1ms ; a remark\n  drain=7\n[dir:a.b]\npath=/\n' >"$conf"
shown() { # shown KEY VALUE SOURCE: in $dir/out, its first occurrence
  same "$1=$2 # from $3" "$(grep -A1 -m1 "^$1=" "$dir/out" | paste -sd ' ')" "$1"
}
expect 0 "$shmqd" --check --config "$conf"
prints ''
expect 0 env SHMQD_DAEMON_CREDITS=8 "$shmqd" --show-config --config "$conf" --set dir:a.b.rights=write
shown spin 1ms "$conf:2"
shown drain 7 "$conf:3"
shown credits 8 SHMQD_DAEMON_CREDITS
shown rights write --set
shown blocks 8 built-in
cp "$dir/out" "$dir/again.conf"
expect 0 "$shmqd" --show-config --config "$dir/again.conf"
same "$(grep '=' "$dir/again.conf")" "$(grep '=' "$dir/out")" "what was shown, read again"

# ---- who overrides whom ----
layer() { # layer FILE: each sets one more of these than the one that overrides it
  mkdir -p "$(dirname "$1")"
  printf '[daemon]\n' >"$1"
  local key
  for key in "${keys[@]}"; do echo "$key = 77" >>"$1"; done
  unset 'keys[-1]'
}
layers() { # layers FILE...: the last of the keys is given by the first file only, and so on
  local i=0 file
  for file in "$@"; do
    [ -z "$file" ] || shown "${all[$((${#all[@]} - 1 - i))]}" 77 "$file:$((${#all[@]} + 1 - i))"
    i=$((i + 1))
  done
}
all=(max_sessions credits max_credits blocks max_blocks handles)
keys=("${all[@]}")
user=$dir/user/shmq
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
  mkdir "$dir/vendor" "$dir/etc" "$dir/work"
  layer "$dir/vendor/shmq/shmqd.conf"
  layer "$dir/etc/shmq/shmqd.conf"
  layer "$dir/etc/shmq/conf.d/1.conf"
  layer "$dir/etc/shmq/conf.d/2.conf"
  echo nonsense | tee "$dir/etc/shmq/conf.d/.hidden.conf" >"$dir/etc/shmq/conf.d/3.conf~"
  # shellcheck disable=SC2016 # the inner shell expands it
  unshare -m bash -c '
    mount -t tmpfs shmqd-test "$1/work" && mkdir "$1/work/upper" "$1/work/work" || exit 77
    mount --bind "$1/etc" /etc
    cp -r "$1/vendor/shmq" "$1/work/upper"
    mount -t overlay -o "lowerdir=/usr/lib,upperdir=$1/work/upper,workdir=$1/work/work" shmqd-test /usr/lib || exit 77
    SHMQD_DAEMON_MAX_SESSIONS=78 SHMQD_DAEMON_CREDITS=78 "$2" --show-config --set daemon.max_sessions=79' \
    - "$dir" "$shmqd" >"$dir/out" 2>"$dir/err"
  status=$?
  if [ $status -eq 77 ]; then
    echo "skipped: no overlay of /usr/lib"
  else
    same 0 $status "the system's configuration"
    layers /usr/lib/shmq/shmqd.conf /etc/shmq/shmqd.conf /etc/shmq/conf.d/1.conf /etc/shmq/conf.d/2.conf
    shown credits 78 SHMQD_DAEMON_CREDITS
    shown max_sessions 79 --set
  fi
fi
# shellcheck disable=SC2317 # a root's test defines another
as_user() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  install -m 755 "$shmqd" "$dir/shmqd" && chmod 755 "$dir"
  as_user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
  if as_user "$shmqd" --version >/dev/null 2>&1; then
    program=$shmqd
  else
    program=$dir/shmqd
  fi
  as_user "$program" --version >/dev/null 2>&1 || program=
else
  program=$shmqd
fi
if [ -n "$program" ]; then
  all=(max_sessions credits max_credits blocks)
  keys=("${all[@]}")
  layer "$user/shmqd.conf"
  layer "$user/conf.d/a.conf"
  chmod -R a+rX "$dir/user"
  expect 0 as_user env XDG_CONFIG_HOME="$dir/user" SHMQD_DAEMON_CREDITS=78 "$program" --show-config --set daemon.max_sessions=79
  layers "$user/shmqd.conf" "$user/conf.d/a.conf"
  shown credits 78 SHMQD_DAEMON_CREDITS
  shown max_sessions 79 --set
  mkdir -p "$dir/home" && cp -r "$dir/user" "$dir/home/.config" && chmod -R a+rX "$dir/home"
  expect 0 as_user env -u XDG_CONFIG_HOME HOME="$dir/home" "$program" --show-config
  layers "$dir/home/.config/shmq/shmqd.conf" "$dir/home/.config/shmq/conf.d/a.conf"
  expect 0 as_user env XDG_CONFIG_HOME=user HOME="$dir/home" "$program" --show-config # relative: as if unset
  layers "$dir/home/.config/shmq/shmqd.conf" "$dir/home/.config/shmq/conf.d/a.conf"
  expect 1 as_user env -u XDG_RUNTIME_DIR XDG_CONFIG_HOME=/nowhere "$program"
  says 'XDG_RUNTIME_DIR'
else
  echo "skipped: another user cannot run the program where it stands"
fi

# ---- reloading ----
mkdir "$dir/tree" "$dir/more" "$dir/run"
echo hello >"$dir/tree/file"
export SHMQD_SOCKET=$dir/run/control
configured() { printf '%b' "$1" >"$conf"; }
base="[dir:tree]\npath = $dir/tree\n"
configured "$base"
deep=$dir/tree/$(printf 'a-rather-long-name%.0s' $(seq 12)) # longer than a line of a file may be
mkdir "$deep"
"$shmqd" --config "$conf" --dir "$dir/run" --set "dir:deep.path=$deep" 2>"$dir/said" &
daemon=$!
until_true "$shmq" ask daemon status || finish
reloads=0
reload() { # reload TEXT CONTENT: what it says of the new configuration
  configured "$2"
  kill -HUP $daemon
  reloads=$((reloads + 1))
  until_true eval "[ \$(grep -c reloaded '$dir/said') -ge $reloads ]"
  checks=$((checks + 1))
  tail -n 1 "$dir/said" | grep -qF -- "$1" || report "it does not say '$1': $(tail -n 1 "$dir/said")"
}
expect 4 "$shmq" ask tree put x -f /dev/null
reload 'reloaded: 1 changes' "${base}rights = write\n"
expect 0 "$shmq" ask tree put x -f /dev/null
reload 'reloaded: 0 changes' "$base rights = write\n"
reload 'reloaded: 1 changes' "$base"
expect 4 "$shmq" ask tree put x -f /dev/null

# Wholly or not at all: each also asks for the right to write.
write="${base}rights = write\n"
reload "not reloaded: $conf:5: [daemon] io: cannot change from" "${write}[daemon]\nio = threads\n[dir:more]\npath = /\n"
reload "not reloaded: $conf:5: [daemon] spon: no such parameter" "${write}[daemon]\nspon = 1\n"
reload "not reloaded: what is new could not be opened" "${write}[dir:more]\npath=$dir/more\n[dir:none]\npath = $dir/none\n"
grep -q "\[dir:none\] $dir/none: No such file" "$dir/said" || report "what could not be opened is not named"
reload "not reloaded: $conf:1: [dir:tree]: is in use" '[dir:other]\npath = /\n'
reload "not reloaded: $conf:2: [dir:tree] path: cannot change" "[dir:tree]\npath = /tmp\nrights = write\n"
expect 4 "$shmq" ask tree put x -f /dev/null
expect 3 "$shmq" ask more list
expect 0 "$shmq" ask tree get file
prints hello

# What is new is there, for a client that was connected before as well.
"$shmq" ask tree list >/dev/null
reload 'reloaded: 3 changes' "${write}[dir:more]\npath = $dir/tree\n[log:new]\npath = $dir/log\n"
expect 0 "$shmq" ask more get file
prints hello
expect 0 "$shmq" ask new append one
prints 1

# A pool that is new, and whose holders were an earlier daemon's: no session has its token.
{ printf '\001'; head -c 47 /dev/zero; } >"$dir/run/pool.ghost"
new="${write}[dir:more]\npath = $dir/tree\n[log:new]\npath = $dir/log\n"
reload 'reloaded: 1 changes' "$new[pool:ghost]\ncount = 1\n"
until_true "$shmq" ask ghost take -t 0 -- true
reload "not reloaded: $conf:8: [pool:ghost]: is in use" "$new"
reload "not reloaded: $conf:6: [log:new]: is in use" "${write}[dir:more]\npath = $dir/tree\n"
kill $daemon
wait $daemon
same 0 $? "the daemon's end"

# ---- the manual pages ----
pages=("$SHMQ_BUILD_DIR/man/shmqd.8" "$SHMQ_BUILD_DIR/man/shmqd.conf.5")
"$shmqd" --manual 8 | cmp - "${pages[0]}" || report "shmqd(8) is another program's"
"$shmqd" --manual 5 | cmp - "${pages[1]}" || report "shmqd.conf(5) is another program's"
for option in $("$shmqd" --help | grep -oE '^  .{4}--[a-z-]+' | grep -oE -- '--.*'); do
  grep -qF -- "${option//-/\\-}" "${pages[0]}" || report "$option is not in the manual"
done
"$shmqd" --help | sed -n '/^Sections/,$ s/^  \([a-z_]\{1,\}\) .*/\1/p' >"$dir/keys"
[ "$(wc -l <"$dir/keys")" -gt 20 ] || report "the help has no parameters"
while read -r key; do
  grep -q "^\.BR $key " "${pages[1]}" || report "$key is not in the manual"
done <"$dir/keys"
if command -v groff >/dev/null; then
  groff -man -ww -Tutf8 -z "${pages[@]}" 2>"$dir/err"
  [ -s "$dir/err" ] && report "troff warns"
fi

finish
