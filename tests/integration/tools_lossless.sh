#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq put and get lose nothing: when standard output fails, when they are told to stop, when they are
# killed. What was put is printed at least once, and exactly once when nobody was killed.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

depth() { "$shmq" info "$q" --json | jq .depth; }

# ---- output that fails ----
expect 0 "$shmq" create "$q" --capacity 4096
seq 100 | "$shmq" put "$q" - -D '\n'
if [ -w /dev/full ]; then
  expect 1 bash -c "'$shmq' get '$q' -e >/dev/full"
  says 'No space left on device'
  same 100 "$(depth)" "messages after a full disk"
fi
mkfifo "$dir/fifo"
exec 9<>"$dir/fifo" 8>"$dir/fifo" 9<&- # a pipe whose reader has gone
expect 1 bash -c "'$shmq' get '$q' -e >&8"
says 'Broken pipe'
exec 8>&-
same 100 "$(depth)" "messages after the reader has gone"
expect 0 "$shmq" get "$q" -e
sort -n "$dir/out" | cmp -s - <(seq 100) || report "not each message once after two failures"
same 0 "$(depth)" "messages left"

# A pipe that nobody reads: SIGTERM while the write blocks. What was not written whole is still there.
"$shmq" rm "$q"
expect 0 "$shmq" create "$q" --capacity 4096 --message-size 1000
for i in $(seq 500); do printf '%0999d\n' "$i"; done >"$dir/lines"
"$shmq" put "$q" -f "$dir/lines" -D '\n'
exec 9<>"$dir/fifo"
"$shmq" get "$q" -e >"$dir/fifo" 9<&- 2>"$dir/err" &
getter=$!
# The first batch fits into the pipe, the second does not, and is leased when all of the first is acknowledged.
blocked() { "$shmq" info "$q" --json | jq -e '.gets == 64 and .leased == 64'; }
until_true blocked
kill -TERM $getter
wait $getter
same 1 $? "the status of an interrupted get"
says 'were given back'
exec 8<"$dir/fifo" 9<&- # nobody writes any more: what is read ends
cat <&8 >"$dir/piped"
exec 8<&-
# What lies in the pipe ends within a message at most; that one is delivered again, whole.
head -c $(($(wc -c <"$dir/piped") / 1000 * 1000)) "$dir/piped" >"$dir/got"
"$shmq" get "$q" -e >>"$dir/got"
sort "$dir/got" | cmp -s - "$dir/lines" || report "interrupted: not each message exactly once"

# ---- SIGTERM while it waits ----
"$shmq" get "$q" -n 0 >"$dir/endless" &
getter=$!
"$shmq" put "$q" first
until_true test -s "$dir/endless"
kill -TERM $getter
wait $getter
same 0 $? "the status of an endless get that was told to stop"
env --default-signal=INT "$shmq" get "$q" -n 2 >"$dir/two" & # the shell ignores it in the background
getter=$!
"$shmq" put "$q" one
until_true test -s "$dir/two"
kill -INT $getter
wait $getter
same 1 $? "the status of a get that was told to stop before it had all"
same 0 "$(depth)" "messages left"

# ---- a large stream, both ends at once, and exactly ----
"$shmq" rm "$q"
expect 0 "$shmq" create "$q" --capacity 1024 --message-size 32
count=200000
if [ -n "${SHMQ_SANITIZE:-}" ]; then count=50000; fi
"$shmq" get "$q" -n $count >"$dir/got" &
getter=$!
seq $count | "$shmq" put "$q" - -D '\n' || report "put of a large stream"
wait $getter
same 0 $? "get of a large stream"
seq $count | cmp -s - "$dir/got" || report "a stream was changed or reordered"

# ---- many getters, some killed ----
"$shmq" rm "$q"
expect 0 "$shmq" create "$q" --capacity 256 --message-size 32
count=20000
for i in 1 2 3 4; do
  ( # a getter that is replaced when it is killed
    until "$shmq" get "$q" -n 0 >"$dir/part.$i.$BASHPID.$RANDOM"; do :; done
  ) 2>/dev/null &
  getters="${getters:-} $!"
done
(seq $count | "$shmq" put "$q" - -D '\n') &
putter=$!
for _ in $(seq 10); do
  sleep 0.1
  victim=$("$shmq" info "$q" --json | jq '[.participants[] | select(.role == "get" and .alive) | .pid] | .[0] // 0')
  if [ "$victim" -gt 1 ]; then kill -KILL "$victim" 2>/dev/null; fi
done
wait $putter || report "put beside getters that are killed"
expect 0 "$shmq" wait "$q" --for 'done' --timeout 30s
"$shmq" shutdown "$q"
# The getters end with status 6 and are started again until they are told to stop.
for getter in $getters; do kill "$getter" 2>/dev/null; done
wait 2>/dev/null
for pid in $("$shmq" info "$q" --json | jq '.participants[] | select(.alive) | .pid'); do kill "$pid"; done
cat "$dir"/part.* | grep -a '^[0-9]*$' | sort -nu >"$dir/got"
# A killed getter may leave a line cut short in its file, which then looks like a smaller number or is
# joined by nothing: each number must be there whole all the same.
seq $count | comm -23 --nocheck-order <(seq $count | sort) <(sort "$dir/got") >"$dir/missing"
same 0 "$(wc -l <"$dir/missing")" "messages lost beside killed getters"
expect 0 "$shmq" doctor "$q" --repair
expect 0 "$shmq" doctor "$q"

# ---- putters killed: what each said was put is there ----
"$shmq" rm "$q"
expect 0 "$shmq" create "$q" --capacity 4096 --message-size 32
for round in $(seq 5); do
  (while :; do echo "$round"; done) | "$shmq" put "$q" - -D '\n' &
  sleep 0.1
  kill -KILL $! 2>/dev/null
  wait $! 2>/dev/null
done
expect 0 "$shmq" doctor "$q" --repair
"$shmq" get "$q" -e >"$dir/out" || report "get behind putters that were killed"
grep -qv '^[1-5]$' "$dir/out" && report "a message that nobody put"
same 0 "$(depth)" "messages left behind killed putters"
expect 0 "$shmq" put "$q" alive --timeout 5s
expect 0 "$shmq" get "$q" --timeout 5s
prints alive

finish
