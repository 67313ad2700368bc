#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The real job on a tree that has everything: empty files, long ones, names with blanks, newlines and backslashes,
# links, a FIFO, deep directories, a file that this user may not read; workers are killed. Three zeros.
set -eu

treehash=$SHMQ_BUILD_DIR/examples/treehash
[ -x "$treehash" ] || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

: >"$dir/empty"
head -c 3000001 /dev/urandom >"$dir/long"
head -c 65536 /dev/urandom >"$dir/just the arena"
head -c 65537 /dev/urandom >"$dir/one byte more"
printf x >"$dir/new
line"
printf y >"$dir/back\\slash"
printf z >"$dir/ret"$'\r'"urn"
printf w >"$dir/-dash"
ln -s /etc/passwd "$dir/link"
mkfifo "$dir/fifo"
printf secret >"$dir/unreadable"
chmod 0 "$dir/unreadable"
deep=$dir
for i in 1 2 3 4 5 6 7 8 9 10; do
  deep=$deep/$(printf 'directory-with-a-long-name-%0.s' 1 2 3)$i
done
mkdir -p "$deep"
printf deep >"$deep/file"
for i in $(seq 2000); do printf '%s' "$i" >"$dir/file-$i"; done

mkdir "$dir/few"
for i in $(seq 100); do printf '%s' "$i" >"$dir/few/$i"; done

run() { # run ARGUMENT...: three zeros, or the end
  local out last
  out=$("$treehash" --workers 3 "$@")
  last=${out##*$'\n'}
  echo "$last"
  [[ $last == files=*' missing=0 duplicate=0 mismatched=0' ]] || exit 1
}
run --kill 0 "$dir"
run --kill 3 "$dir"
run --kill 1 --ack disk "$dir/few"

# The daemon's worker is killed while long files are read piece by piece: their handles go, their hashes are right.
mkdir "$dir/long files"
for i in $(seq 24); do head -c 4000000 /dev/urandom >"$dir/long files/$i"; done
"$treehash" --workers 2 --kill 0 "$dir/long files" >"$dir/out" &
running=$!
killed=0
for _ in $(seq 400); do
  sleep 0.02
  daemon=$(pgrep -P "$running" -x shmqd) && worker=$(pgrep -P "$daemon" -x shmqd-worker) || continue
  [ "$worker" != "${last_killed:-}" ] && kill -9 "$worker" && last_killed=$worker && killed=$((killed + 1))
  [ "$killed" = 3 ] && break
done
wait "$running"
tail -n 1 "$dir/out"
[[ $(tail -n 1 "$dir/out") == files=24' '*' missing=0 duplicate=0 mismatched=0' ]] || exit 1
grep -q unreadable=0 "$dir/out"
[ "$killed" -ge 1 ] || exit 1 # a fast machine may be done before the third

if "$treehash" --kill x "$dir" 2>/dev/null; then exit 1; fi
if "$treehash" "$dir/nothing" 2>/dev/null; then exit 1; fi
