#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq work: every job is done, exactly once when nothing is killed, at least once when workers are; failures
# are tried again and end among the dead letters; SIGTERM finishes what runs.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

# ---- once each ----
expect 0 "$shmq" create "$q" --capacity 1024
seq 200 | "$shmq" put "$q" - -D '\n'
# shellcheck disable=SC2016 # the inner shell expands it
expect 0 "$shmq" work "$q" -j 4 -e -- sh -c 'echo "$(cat)"'
sort -n "$dir/out" | cmp -s - <(seq 200) || report "not every job once"
grep -q '^done=200 failed=0 dead=0 replaced=0 seconds=' "$dir/err" || report "no summary"
seq 20 | "$shmq" put "$q" - -D '\n'
expect 0 "$shmq" work "$q" -j 2 -e -q -- echo 'job {} of {}'
sort "$dir/out" | cmp -s - <(seq -f 'job %.0f of %.0f' 1 20 2>/dev/null | sort || true) ||
  sort "$dir/out" | cmp -s - <(for i in $(seq 20); do echo "job $i of $i"; done | sort) ||
  report "the message in place of {}"
[ -s "$dir/err" ] && report "--quiet says something"
expect 0 "$shmq" work "$q" -e -- true # nothing to do

# ---- large, binary and empty messages ----
expect 0 "$shmq" create "$q-large" --blocks 4 --block-size 1M
head -c 1000000 /dev/urandom >"$dir/large"
expect 0 "$shmq" put "$q-large" -f "$dir/large"
expect 0 "$shmq" work "$q-large" -e -q -- cat
cmp -s "$dir/large" "$dir/out" || report "a large message changed on its way"
expect 0 "$shmq" put "$q-large" ''
expect 0 "$shmq" work "$q-large" -e -q -- wc -c
prints 0

# ---- failures ----
expect 0 "$shmq" create "$q-fail" --max-attempts 3 --timed
for i in good bad; do "$shmq" put "$q-fail" $i; done
# shellcheck disable=SC2016
expect 1 "$shmq" work "$q-fail" -e -- sh -c 'read -r job; echo "$job"; [ "$job" = good ] || exit 7'
same 'bad bad bad good' "$(sort "$dir/out" | paste -sd ' ')" "attempts"
grep -q '^done=1 failed=3 dead=1 ' "$dir/err" || report "the summary of failures"
expect 0 "$shmq" get "$q-fail/dead" --json
json '[.data,.cause.reason,.cause.status,.cause.attempts]' "[\"bad\",\"nacked\",$((7 << 8)),3]"
"$shmq" put "$q-fail" again
expect 1 "$shmq" work "$q-fail" -e -q --max-attempts 1 -- false
expect 0 "$shmq" requeue "$q-fail"
prints '1 moved'
expect 0 "$shmq" work "$q-fail" -e -q --retry-delay 50ms -- cat
prints again
"$shmq" put "$q-fail" later
expect 1 "$shmq" work "$q-fail" -e -q --retry-delay 50ms -- false
# A command killed by a signal: its wait status is the cause.
"$shmq" get "$q-fail/dead" -e >/dev/null
"$shmq" put "$q-fail" killed
# shellcheck disable=SC2016
expect 1 "$shmq" work "$q-fail" -e -q -- sh -c 'kill -SEGV $$'
expect 0 "$shmq" get "$q-fail/dead" --json
json .cause.status 11
# What cannot be an argument counts as a failure.
printf 'a\0b' | "$shmq" put "$q-fail" -
expect 1 "$shmq" work "$q-fail" -e -q -- echo {}
grep -q 'NUL byte' "$dir/err" || report "a NUL byte in an argument"

# ---- a job that fails keeps nobody from the others ----
for i in bad worse one two three; do "$shmq" put "$q" $i; done
: >"$dir/others"
# shellcheck disable=SC2016
expect 0 timeout 60 "$shmq" work "$q" -e -q -- sh -c 'read -r job; case $job in bad | worse) [ "$(wc -l <"$0")" = 3 ] ;;
  *) echo "$job" >>"$0" ;; esac' "$dir/others"
same 'one two three' "$(paste -sd ' ' "$dir/others")" "the others"
# What rests is given back at the end, and is done after a shutdown, too.
for i in bad worse; do "$shmq" put "$q" $i; done
: >"$dir/tried"
# shellcheck disable=SC2016
"$shmq" work "$q" -q -- sh -c 'cat >>"$0"; echo >>"$0"; exit 1' "$dir/tried" &
pool=$!
tried() { [ "$(wc -l <"$dir/tried")" -ge 6 ]; }
until_true tried
kill -TERM $pool
wait $pool
expect 0 "$shmq" get "$q" -e
same 'bad worse' "$(sort "$dir/out" | paste -sd ' ')" "what rested when the pool was stopped"
expect 0 "$shmq" create "$q-shut"
"$shmq" put "$q-shut" bad
expect 0 "$shmq" shutdown "$q-shut"
: >"$dir/tried"
# shellcheck disable=SC2016
expect 0 timeout 60 "$shmq" work "$q-shut" -q -- sh -c 'echo >>"$0"; [ "$(wc -l <"$0")" = 4 ]' "$dir/tried"
same 4 "$(wc -l <"$dir/tried")" "attempts after the shutdown"

# ---- SIGTERM finishes what runs ----
for i in 1 2 3 4; do "$shmq" put "$q" "$i"; done
# shellcheck disable=SC2016
"$shmq" work "$q" -j 2 -- sh -c 'read -r i; : >"$0/begun.$i"; until [ -e "$0/go-on" ]; do sleep 0.05; done
  : >"$0/ended.$i"' "$dir" 2>"$dir/err" &
pool=$!
begun() { [ "$(find "$dir" -name 'begun.*' | wc -l)" -ge 2 ]; }
told() { # every worker has caught its SIGTERM, and does not catch another
  local pid mask
  for pid in $(pgrep -P $pool); do
    mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status")
    (((16#$mask & 0x4000) == 0)) || return 1
  done
}
until_true begun
kill -TERM $pool
until_true told
: >"$dir/go-on"
wait $pool
same 0 $? "a pool that was told to stop"
same 2 "$(find "$dir" -name 'ended.*' | wc -l)" "jobs finished after SIGTERM"
expect 0 "$shmq" get "$q" -e
prints "$(printf '3\n4')"

# ---- a second one ends it, with all that the commands have started ----
"$shmq" get "$q" -e >/dev/null
"$shmq" put "$q" once
# shellcheck disable=SC2016
"$shmq" work "$q" -q -- sh -c 'sleep 300 & echo $! >"$0"; wait' "$dir/started" &
pool=$!
until_true test -s "$dir/started"
while kill -TERM $pool 2>/dev/null; do sleep 0.2; done
wait $pool
same 1 $? "a pool that was killed"
gone() { ! kill -0 "$(cat "$dir/started")" 2>/dev/null; }
until_true gone
expect 0 "$shmq" get "$q" -e
prints once

# ---- who started it wants it to ignore a hangup, as nohup does ----
(trap '' HUP INT; exec "$shmq" work "$q" -q -- sh -c 'echo "$(cat)" >>"$0"' "$dir/kept") &
pool=$!
"$shmq" put "$q" first
kept() { [ "$(paste -sd ' ' "$dir/kept" 2>/dev/null)" = "$1" ]; }
until_true kept first
kill -HUP $pool
kill -INT $pool
sleep 0.3
"$shmq" put "$q" second
until_true kept 'first second'
kill -TERM $pool
wait $pool
same 0 $? "a pool that ignored a hangup"

# ---- workers killed, and the parent ----
seq 60 | "$shmq" put "$q" - -D '\n'
"$shmq" work "$q" -j 3 -e -- sh -c 'sleep 0.05; echo "$(cat)"' >"$dir/out" 2>"$dir/err" &
pool=$!
for _ in 1 2 3; do
  sleep 0.3
  victim=$("$shmq" info "$q" --json | jq '[.participants[] | select(.role == "work" and .alive) | .pid] | .[0] // 0')
  if [ "$victim" -gt 1 ]; then kill -KILL "$victim" 2>/dev/null; fi
done
wait $pool
same 0 $? "a pool whose workers are killed"
sort -nu "$dir/out" | cmp -s - <(seq 60) || report "a job was not done beside killed workers"
grep -q ' replaced=[1-3] ' "$dir/err" || report "no worker was replaced"
seq 3 | "$shmq" put "$q" - -D '\n'
"$shmq" work "$q" -j 2 -- sleep 0.2 2>/dev/null &
pool=$!
until_true eval "'$shmq' info '$q' --json | jq -e '[.participants[] | select(.role == \"work\")] | length == 2'"
kill -KILL $pool
wait $pool 2>/dev/null
alone() { "$shmq" info "$q" --json | jq -e '[.participants[] | select(.alive)] | length == 0'; }
until_true alone || report "workers without a parent go on"

# ---- places ----
seq 3 | "$shmq" put "$q" - -D '\n'
expect 0 "$shmq" work "$q" -e -q -j 2 --bind spread -- cat
expect 2 "$shmq" work "$q" -e --bind 'nonsense:x' -- cat

finish
