#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Commands that wait: a signal ends them whenever it comes, and until one comes they sleep.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

kept= # to be killed in any case, as is what runs just now
pids=
trap 'kill -KILL $pids 2>/dev/null; cleanup' EXIT

gone() { ! kill -0 "$1" 2>/dev/null; }

# ends COMMAND...: with SIGTERM after 0 to 70 ms, which is before, in and after the first wait
ends() {
  local delay pid
  for delay in 0 01 02 03 04 05 06 07; do
    "$@" >"$dir/out" 2>"$dir/err" &
    pid=$!
    pids="$kept $pid"
    sleep "0.$delay"
    kill -TERM $pid 2>/dev/null
    checks=$((checks + 1))
    until_true gone $pid || kill -KILL $pid
    wait $pid
  done
}

expect 0 "$shmq" create "$q"
expect 0 "$shmq" create "$q-full" --capacity 2
seq 2 | "$shmq" put "$q-full" - -D '\n'
expect 0 "$shmq" pool park "$q-pool" token
expect 0 "$shmq" pool take "$q-pool"

# ---- idle ----
"$shmq" get "$q" -n 0 >/dev/null &
get=$!
"$shmq" work "$q" -q -j 2 -- true &
work=$!
"$shmq" serve "$q-service" -q -- cat &
serve=$!
pids="$get $work $serve"
workers() { [ "$(pgrep -P $work | wc -l)" -eq 2 ] && [ "$(pgrep -P $serve | wc -l)" -eq 1 ]; }
until_true workers
until_true "$shmq" call "$q-service" x
sleep 2 # the library's looks for the dead are a second apart by then, unless somebody was slow to begin
wakes() { # of all of them together
  local pid files=()
  for pid in $get $work $serve $(pgrep -P $work) $(pgrep -P $serve); do files+=("/proc/$pid/status"); done
  awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }' "${files[@]}"
}
checks=$((checks + 1))
for _ in 1 2 3; do
  before=$(wakes)
  sleep 3
  woken=$(($(wakes) - before))
  [ $woken -gt 20 ] || break
done
# Four that wait for a queue, each looking three or four times; two parents that wait for them.
if [ $woken -gt 20 ]; then report "$woken wakes in three seconds of idleness"; fi
kill -TERM $get $work $serve
for pid in $get $work $serve; do wait "$pid"; same 0 $? "the status of what was told to stop"; done
pids=

# ---- a signal at any moment ----
ends "$shmq" get "$q"
ends "$shmq" work "$q" -q -j 2 -- true
ends "$shmq" serve "$q-service" -q -- cat
ends "$shmq" call "$q-service" x # nobody serves it
ends "$shmq" call "$q-service" -i x
ends "$shmq" wait "$q"
ends "$shmq" wait "$q-full" --for drained
ends "$shmq" wait "$q" "$q-pool"
ends "$shmq" put "$q-full" more
ends "$shmq" forward "$q" "$q-full"
ends "$shmq" pool take "$q-pool" -- true
ends "$shmq" shutdown "$q-full" --wait
mkfifo "$dir/never"
sleep 60 >"$dir/never" & # somebody has it open and writes nothing
kept=$!
ends "$shmq" put "$q" -f "$dir/never" -D '\n'

kill -KILL "$kept"
pids=
finish
