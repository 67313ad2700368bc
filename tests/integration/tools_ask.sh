#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq ask: the resources of a real daemon from the command line.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

mkdir "$dir/tree" "$dir/run" "$dir/tree/sub"
echo hello >"$dir/tree/a b"
head -c 1000000 /dev/urandom >"$dir/tree/large"
export SHMQD_SOCKET=$dir/run/control
expect 3 "$shmq" ask tree list
says 'no daemon listens'
# The leak checker stops all threads of a process, and waits for ever for those of the kernel's I/O pool.
ASAN_OPTIONS=detect_leaks=0 "$SHMQ_BUILD_DIR/daemon/shmqd" --quiet --dir "$dir/run" --set "dir:tree.path=$dir/tree" \
  --set dir:tree.rights=write --set "kv:map.path=$dir/map" --set pool:ports.tokens='8000 8001' \
  --set "timer:clock.queues=$q" --set 'process:bc.command=bc -q' --set "stream:peer.connect=unix:$dir/peer" \
  --set "dir:other.path=$dir/tree" --set "log:audit.path=$dir/log" &
daemon=$!
until_true "$shmq" ask daemon status || finish

# ---- dir ----
expect 0 "$shmq" ask tree get 'a b'
prints hello
expect 0 "$shmq" ask tree get large # larger than the arena: read in pieces
cmp -s "$dir/tree/large" "$dir/out" || report "a large file"
expect 0 "$shmq" ask tree list
same "a b large sub/" "$(sort "$dir/out" | paste -sd ' ')" "the directory"
expect 0 "$shmq" ask tree list --json
json 'map(select(.type == "d").name)' '["sub"]'
expect 0 "$shmq" ask tree stat 'a b' --json
json .size 6
expect 0 "$shmq" ask tree put sub/new -f "$dir/tree/a b"
cmp -s "$dir/tree/a b" "$dir/tree/sub/new" || report "put"
expect 0 "$shmq" ask tree mkdir sub/deep
expect 0 "$shmq" ask tree rename sub/new sub/deep/old
expect 0 "$shmq" ask tree list sub/deep
prints old
expect 0 "$shmq" ask tree unlink sub/deep/old
expect 0 "$shmq" ask tree rmdir sub/deep
expect 0 "$shmq" ask tree list sub
prints ''
ln -s /etc "$dir/tree/link"
for path in ../tree/large /etc/passwd link/passwd sub/../../x; do
  "$shmq" ask tree get "$path" >"$dir/out" 2>"$dir/err"
  status=$?
  case $status in 1 | 4) ;; *) report "status $status for $path" ;; esac
  [ -s "$dir/out" ] && report "$path was read"
done
expect 3 "$shmq" ask tree get absent
expect 4 "$shmq" ask other put x -f /dev/null # read only

# ---- log ----
seq 5 | "$shmq" ask audit append >"$dir/out" || report "append"
same "1 2 3 4 5" "$(paste -sd ' ' "$dir/out")" "numbers of records"
expect 0 "$shmq" ask audit append 'one more' --ack kernel
prints 6
expect 0 "$shmq" ask audit read
prints "$(seq 5; echo 'one more')"
expect 0 "$shmq" ask audit read 6 --json
json '[.number,.data]' '[6,"one more"]'
expect 0 "$shmq" ask audit status --json
json '[.first,.next]' '[1,7]'
"$shmq" ask audit follow 6 >"$dir/followed" &
follower=$!
until_true grep -q 'one more' "$dir/followed"
"$shmq" ask audit append new >/dev/null
until_true grep -q '^new$' "$dir/followed"
kill $follower
wait $follower
same 0 $? "a follower that was told to stop"

# ---- kv ----
expect 0 "$shmq" ask map put a one
expect 0 "$shmq" ask map get a
prints one
expect 0 "$shmq" ask map cas b 0 two
version=$(cat "$dir/out")
expect 1 "$shmq" ask map cas b 0 three
expect 0 "$shmq" ask map cas b "$version" three
expect 0 "$shmq" ask map add n 41
expect 0 "$shmq" ask map add n
prints 42
head -c 5000 /dev/zero | "$shmq" ask map put zeros >"$dir/out" || report "put from standard input"
expect 0 "$shmq" ask map scan --json
json 'map(.key)' '["a","b","n","zeros"]'
expect 0 "$shmq" ask map scan b
prints "$(printf 'b\tthree')"
expect 0 "$shmq" ask map delete b
expect 3 "$shmq" ask map get b
expect 0 "$shmq" ask map status --json
json .keys 3

# ---- pool ----
expect 0 "$shmq" ask ports take -- sh -c 'echo "$SHMQ_TOKEN"; '"$shmq"' ask ports list --json'
same 8000 "$(head -n 1 "$dir/out")" "a token"
same '[true,false]' "$(tail -n +2 "$dir/out" | jq -c 'map(.held)')" "held while the command runs"
expect 0 "$shmq" ask ports list --json
json 'map(.held)' '[false,false]'
expect 7 "$shmq" ask ports take -- sh -c 'exit 7'
# shellcheck disable=SC2016
"$shmq" ask ports take -- sh -c 'trap "exit 9" TERM; : >"$0"; while :; do sleep 0.05; done' "$dir/trapped" &
holder=$!
until_true test -e "$dir/trapped"
kill -TERM $holder
wait $holder
same 9 $? "the status of a command that was told to end"
expect 3 "$shmq" ask ports give 1

# ---- timer ----
"$shmq" create "$q" || report "a queue"
expect 0 "$shmq" ask clock wait 1ms
expect 0 "$shmq" ask clock after 1ms "$q" ring
expect 0 "$shmq" get "$q" --timeout 30s
prints ring
expect 0 "$shmq" ask clock every 1h "$q"
timer=$(cat "$dir/out")
expect 0 "$shmq" ask clock list --json
json 'map(.period_ns)' '[3600000000000]'
expect 0 "$shmq" ask clock clear "$timer"
expect 4 "$shmq" ask clock after 1s other

# ---- process and stream ----
expect 0 "$shmq" ask bc line '6 * 7'
prints 42
expect 0 "$shmq" ask bc signal 9
prints 1
until_true eval '"$shmq" ask bc status | grep -q deaths=1' # until then a request may go to one that is dead
expect 0 "$shmq" ask bc line '2 ^ 10'
prints 1024
expect 0 "$shmq" ask bc status
expect 3 "$shmq" ask peer line hello
expect 0 "$shmq" ask peer status
grep -q '^state=' "$dir/out" || report "a stream's status"

# ---- wrong ----
expect 3 "$shmq" ask absent get x
expect 2 "$shmq" ask tree append x
expect 2 "$shmq" ask tree get
expect 2 "$shmq" ask audit read x
expect 2 "$shmq" ask tree
kill $daemon
until_true eval "! kill -0 $daemon" || kill -KILL $daemon
wait $daemon || report "the daemon's end"

finish
