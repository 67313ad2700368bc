#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The examples do what they say, with processes killed on the way.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

examples=$SHMQ_BUILD_DIR/examples
owner=
trap 'kill -KILL $owner 2>/dev/null; cleanup' EXIT

# ---- lru: an owner ----
start_cache() {
  "$examples/lru" "$q" 3 &
  owner=$!
  until_true "$shmq" call "$q" --op 1 "ready=$1" --timeout 1s
}
put() { expect 0 "$shmq" call "$q" --op 1 "$1"; }
start_cache 1
same 1 $(($(wc -l <"${SHMQ_SOURCE_DIR:-$(dirname "$0")/../..}/examples/lru.c") < 100)) "lru.c has less than 100 lines"
put a=1
put b=2
expect 0 "$shmq" call "$q" --op 2 a
prints 1
put c=3 # ready goes
put d=4 # b goes: a was used later
expect 3 "$shmq" call "$q" --op 2 b --json
json '[.class,.executed]' '["not-found","yes"]'
for pair in a=1 c=3 d=4; do
  expect 0 "$shmq" call "$q" --op 2 "${pair%=*}"
  prints "${pair#*=}"
done
put 'a=another = value'
expect 0 "$shmq" call "$q" --op 2 a
prints 'another = value'
expect 1 "$shmq" call "$q" --op 1 'no value'
expect 1 "$shmq" call "$q" --op 7 x
# Eight at a time, and nobody has locked anything.
for asker in 1 2 3 4 5 6 7 8; do
  (for i in 1 2 3 4 5; do "$shmq" call "$q" --op 1 "k$asker=$i" && "$shmq" call "$q" --op 2 d; done) >/dev/null 2>&1 &
  askers="${askers:-} $!"
done
for asker in $askers; do wait "$asker"; done
expect 0 "$shmq" call "$q" --op 1 last=1
kill -KILL "$owner"
wait "$owner" 2>/dev/null
start_cache 2 # the next owner serves the same askers, from an empty cache
expect 3 "$shmq" call "$q" --op 2 last
"$shmq" shutdown "$q"
wait "$owner"
same 0 $? "the owner's status after shutdown"
owner=

# ---- pipeline: three stages ----
if [ -x "$examples/pipeline" ] && command -v zstd >/dev/null; then
  mkdir "$dir/in" "$dir/packed"
  for i in $(seq 40); do
    head -c $((i * 7000)) /dev/urandom | base64 >"$dir/in/random.$i"
    seq $((i * 300)) >"$dir/in/numbers.$i"
  done
  : >"$dir/in/empty"
  expect 0 timeout 100 "$examples/pipeline" -k 12 "$dir/packed" "$dir"/in/*
  (cd "$dir/in" && printf '%s\n' "$dir"/in/* | sort) >"$dir/want"
  sort "$dir/out" | cmp - "$dir/want" || report "not every file came out exactly once"
  for file in "$dir"/in/*; do
    zstd -qdc "$dir/packed/${file##*/}.zst" | cmp - "$file" || report "${file##*/} is not what went in"
  done
  same 81 "$(find "$dir/packed" -type f | wc -l)" "files in the folder"
  head -c 2000000 /dev/zero >"$dir/large"
  expect 1 timeout 60 "$examples/pipeline" "$dir/packed" "$dir/large" "$dir/absent" "$dir/in/numbers.1"
  same 3 "$(wc -l <"$dir/out")" "results"
  grep -q 'large: File too large' "$dir/out" || report "a file that is too large"
  grep -q 'absent: No such file' "$dir/out" || report "a file that is not there"
fi

# ---- parked: connections ----
expect 0 timeout 60 "$examples/parked"
prints '3 connections, 8 workers, 0 killed, 0 failed'
expect 0 timeout 60 "$examples/parked" -k 5
prints '3 connections, 8 workers, 5 killed, 0 failed'
# Its process's number ends each name: what a living one has in use is another test's.
for segment in /dev/shm/shmq.pipeline.* /dev/shm/shmq.parked.*; do
  [ ! -e "$segment" ] || [ -d "/proc/${segment##*.}" ] || [ "$segment" -ot "$dir" ] || report "$segment is left behind"
done

finish
