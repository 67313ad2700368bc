#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq ask: a directory and a log of a real daemon from the command line.
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
  --set dir:tree.rights=write --set "dir:other.path=$dir/tree" --set "log:audit.path=$dir/log" &
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
