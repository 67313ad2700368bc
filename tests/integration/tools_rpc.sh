#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq serve, call, cast and pool: answers and errors come back to who asked, and servers and holders may be
# killed.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

start() { # start COMMAND...: in the background, its process in $started
  "$@" &
  started=$!
}
stop() { # stop PID WANTED: end it as a user would
  kill -TERM "$1"
  wait "$1"
  same "$2" $? "the status of what was told to stop"
}

# ---- values ----
expect 3 "$shmq" call "$q" x
says 'no such service'
start "$shmq" serve "$q" -q -j 3 -- tr a-z A-Z
until_true "$shmq" call "$q" x --timeout 1s
expect 0 "$shmq" call "$q" hello
prints HELLO
echo 'from standard input' | expect 0 "$shmq" call "$q" -
prints 'FROM STANDARD INPUT'
expect 0 "$shmq" call "$q" ''
prints ''
expect 0 "$shmq" call "$q" abc --json
json '[.status,.class,.executed,.data]' '[0,"ok","yes","ABC"]'
head -c 150000 /dev/urandom | base64 >"$dir/large"
expect 0 "$shmq" call "$q" -f "$dir/large"
tr a-z A-Z <"$dir/large" | cmp -s - "$dir/out" || report "a large answer"
head -c 300000 /dev/zero | expect 1 "$shmq" call "$q"
says 'message too long'
for i in $(seq 20); do "$shmq" call "$q" "call $i" >"$dir/answer.$i" & calls="${calls:-} $!"; done
for call in $calls; do wait "$call" || report "a call beside others"; done
for i in $(seq 20); do same "CALL $i" "$(cat "$dir/answer.$i")" "the answer of call $i"; done
expect 0 "$shmq" ls --names
same "$q" "$(grep "^$q" "$dir/out")" "queues of a service that are listed"
stop $started 0
expect 5 "$shmq" call "$q" x --timeout 100ms
same no "$(grep -q "^$q/reply" "$dir/out" && echo yes || echo no)" "no answer queues are shown"
"$shmq" rm "$q"

# ---- errors ----
# shellcheck disable=SC2016 # the inner shell expands it
start "$shmq" serve "$q" -q -- sh -c 'read -r what; echo "about $what" >&2; case $what in
  die) kill -KILL $$ ;; sleep) : >"$0/asleep"; exec sleep 20 ;; *) exit 7 ;; esac' "$dir"
until_true "$shmq" info "$q"
expect 1 "$shmq" call "$q" wrong
grep -q 'exit 7' "$dir/err" || report "the exit status does not come back"
grep -q 'about wrong' "$dir/err" || report "the standard error does not come back"
expect 1 "$shmq" call "$q" wrong --json
json '[.domain,.code,.text,.executed]' '["exit",7,"about wrong\n","yes"]'
expect 1 "$shmq" call "$q" die --json
json '[.domain,.code]' '["signal",9]'
# A request that nobody waits for any more ends its command, and the next one is served.
expect 5 "$shmq" call "$q" sleep --timeout 200ms
expect 1 timeout 10 "$shmq" call "$q" again
# SIGTERM cancels a call.
rm -f "$dir/asleep"
"$shmq" call "$q" sleep 2>"$dir/err" &
call=$!
until_true test -e "$dir/asleep" # a request in hand may also be the last one, which is answered before it is acknowledged
kill -TERM $call
wait $call
same 1 $? "a call that was told to stop"
stop $started 0
expect 0 "$shmq" shutdown "$q"
expect 6 "$shmq" call "$q" x
"$shmq" rm "$q"

# ---- casts, in order ----
start "$shmq" serve "$q" -q -- sh -c 'cat >>"$0/cast"; echo >>"$0/cast"' "$dir"
until_true "$shmq" info "$q"
expect 0 "$shmq" cast "$q" first
seq 30 | "$shmq" cast "$q" - -D '\n' || report "cast of a stream"
all_cast() { [ "$(wc -l <"$dir/cast")" -eq 31 ]; }
until_true all_cast
(echo first; seq 30) | cmp -s - "$dir/cast" || report "casts were lost or reordered"
stop $started 0
"$shmq" rm "$q"

# ---- servers killed: no call is left without an end ----
start "$shmq" serve "$q" -q -j 2 -- sh -c 'sleep 0.1; cat'
until_true "$shmq" call "$q" x
calls=
for i in $(seq 12); do
  (timeout 60 "$shmq" call "$q" -i "$i" >"$dir/answer.$i" 2>/dev/null; echo $? >"$dir/status.$i") &
  calls="$calls $!"
done
for _ in 1 2 3; do
  sleep 0.15
  victim=$("$shmq" info "$q" --json | jq '[.participants[] | select(.role == "server" and .alive) | .pid] | .[0] // 0')
  if [ "$victim" -gt 1 ]; then kill -KILL "$victim" 2>/dev/null; fi
done
for call in $calls; do wait "$call"; done
for i in $(seq 12); do # they are idempotent: another server repeats them, at most three times in all
  case $(cat "$dir/status.$i") in
    0) same "$i" "$(cat "$dir/answer.$i")" "the answer of call $i" ;;
    1) same '' "$(cat "$dir/answer.$i")" "the answer of a call that failed" ;;
    *) report "call $i ended with $(cat "$dir/status.$i")" ;;
  esac
done
stop $started 0

# ---- a plain queue is no service ----
expect 0 "$shmq" create "$q-plain"
expect 1 "$shmq" call "$q-plain" x
says 'not a service'
expect 1 "$shmq" serve "$q-plain" -- cat
says 'not a service'
expect 3 "$shmq" serve "$q-new" -- no-such-command-anywhere
expect 3 "$shmq" info "$q-new"
for value in 0 501 x; do expect 2 "$shmq" serve "$q-new" --askers "$value" -- cat; done
expect 2 "$shmq" call "$q" a -f /dev/null
expect 2 "$shmq" call "$q" a --op 65536

# ---- pool ----
expect 0 "$shmq" pool park "$q-pool" red green
# shellcheck disable=SC2016
expect 7 "$shmq" pool take "$q-pool" -- sh -c 'echo "$SHMQ_TOKEN $1"; exit 7' - '{}'
prints 'red red'
expect 143 "$shmq" pool take "$q-pool" -- sh -c 'kill -TERM $$'
echo typed | expect 0 "$shmq" pool take "$q-pool" -- cat
prints typed
start "$shmq" pool take "$q-pool" -- sleep 30
taken() { "$shmq" pool ls "$q-pool" --json | jq -e 'map(select(.free | not)) | length == 1'; }
until_true taken
expect 0 "$shmq" pool ls "$q-pool" --json
json "[.[] | select(.free | not) | .holder.pid, .holder.label]" "[$started,\"sleep\"]"
expect 0 "$shmq" pool ls "$q-pool"
grep -q " taken .* sleep$" "$dir/out" || report "pool ls does not show the holder"
expect 0 "$shmq" pool take "$q-pool"
free=$(cat "$dir/out")
expect 5 "$shmq" pool take "$q-pool" --timeout 50ms
kill -KILL $started
wait $started 2>/dev/null
expect 0 "$shmq" pool take "$q-pool" --timeout 10s # the dead holder's token comes back
same "green red" "$(printf '%s\n' "$free" "$(cat "$dir/out")" | sort | paste -sd ' ')" "both tokens"
expect 0 "$shmq" pool give "$q-pool" red
expect 0 "$shmq" pool ls "$q-pool" --json
json 'map(.token)' '["red"]'
expect 2 "$shmq" pool lend "$q-pool"
expect 2 "$shmq" pool park "$q-pool"
expect 3 "$shmq" pool give "$q-absent" x
expect 3 "$shmq" pool take "$q-pool" -- no-such-command-anywhere
# Who is told to end tells the command.
# shellcheck disable=SC2016
start "$shmq" pool take "$q-pool" -- sh -c 'trap "exit 9" TERM; : >"$0"; while :; do sleep 0.05; done' "$dir/trapped"
until_true test -e "$dir/trapped"
kill -TERM "$started"
wait "$started"
same 9 $? "the status of a command that was told to end"
free() { ! taken; }
expect 0 free

finish
