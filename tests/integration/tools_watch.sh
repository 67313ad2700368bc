#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The commands that look: what they show of messages held by the living, the stopped and the dead, and
# that looking changes nothing.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

hold() { # hold NAME reserve|lease: in the background; $holder is its process
  local pipe="$dir/hold.$RANDOM"
  mkfifo "$pipe" "$pipe.said"
  "$HOLD" "$@" <"$pipe" >"$pipe.said" &
  holder=$!
  exec 8>"$pipe"
  read -r _ <"$pipe.said"
}
let_go() { exec 8>&-; wait "$holder"; }

# ---- peek ----
expect 0 "$shmq" create "$q" --capacity 8 --max-attempts 3 --timed --queue dead:capacity=8
for i in 1 2 3; do "$shmq" put "$q" "message $i"; done
hold "$q" lease
expect 0 "$shmq" peek "$q" --json
json 'map([.state,.data])' '[["leased","message 1"],["ready","message 2"],["ready","message 3"]]'
json '.[0].owner > 0' true
expect 0 "$shmq" info "$q" --json
json '[.depth,.leased]' '[2,1]'
kill -KILL "$holder"
wait "$holder" 2>/dev/null
expect 0 "$shmq" doctor "$q" --repair
expect 0 "$shmq" peek "$q" --json -n 1
json '.[0] | [.state,.attempts,.cause.reason,.cause.pid]' "[\"returned\",1,\"died\",$holder]"
expect 0 "$shmq" peek "$q" -b 4
grep -q 'returned .*died, pid .*mess\.\.\.$' "$dir/out" || report "peek shows no cause or does not cut"
expect 0 "$shmq" get "$q" -e
"$shmq" put "$q" late --delay 1h
expect 0 "$shmq" peek "$q" --json
json '.[0].not_before_ns > 0' true
expect 0 "$shmq" peek "$q" -n 1 -b 0
expect 2 "$shmq" peek "$q" -n 0

# ---- doctor: a message that holds up the queue ----
"$shmq" rm "$q"
"$shmq" create "$q" --capacity 8
hold "$q" reserve
for i in 1 2 3; do "$shmq" put "$q" $i; done
expect 1 "$shmq" doctor "$q" --json
json '[.findings[] | .kind]' '["held-up"]'
json '.findings[0].text | test("pid '"$holder"'.*3 messages")' true
expect 5 "$shmq" get "$q" --timeout 100ms # it really is held up
expect 0 "$shmq" info "$q" --json
json .reserved 1
let_go
expect 0 "$shmq" get "$q" -e
prints "$(seq 3)"
# A dead one is recovered by whoever waits, without a doctor.
hold "$q" reserve
"$shmq" put "$q" behind
kill -KILL "$holder"
wait "$holder" 2>/dev/null
expect 0 timeout 20 "$shmq" get "$q"
prints behind
expect 0 "$shmq" doctor "$q"

# ---- doctor: all segments, notes ----
"$shmq" shutdown "$q"
expect 0 "$shmq" doctor "$q"
grep -q 'note: queue main is shut down' "$dir/out" || report "no note of a queue that is shut down"
"$shmq" create "$q-full" --capacity 2
"$shmq" put "$q-full" 1
"$shmq" put "$q-full" 2
expect 0 "$shmq" doctor "$q-full" --json
json '[.healthy,.findings[0].kind]' '[true,"full"]'
"$shmq" doctor --json >"$dir/out"
json "map(select(.name == \"$q\" or .name == \"$q-full\")) | length" 2

# ---- evict: the pid of another process is left alone ----
expect 0 "$shmq" reopen "$q"
"$shmq" put "$q" held
hold "$q" lease
index=$("$shmq" info "$q" --json | jq ".participants[] | select(.pid == $holder) | .index")
kill -STOP "$holder"
expect 1 "$shmq" evict "$q" "$index"
says 'alive'
expect 0 "$shmq" evict "$q" "$index" --kill
exec 8>&-
wait "$holder" 2>/dev/null
expect 0 "$shmq" get "$q" --timeout 0 # what it held is there at once
prints held
expect 3 "$shmq" evict "$q" "$index"

# ---- tail ----
"$shmq" rm "$q"
"$shmq" create "$q" --capacity 64 --priorities 2
for i in 1 2 3; do "$shmq" put "$q" "old $i"; done
"$shmq" put "$q" "first" -p 1
expect 0 "$shmq" tail "$q" -e
prints "$(printf 'first\nold 1\nold 2\nold 3')"
expect 0 "$shmq" tail "$q" -e -n 2
prints "$(printf 'old 2\nold 3')"
expect 0 "$shmq" tail "$q" -e -n 1 --json
json '[.size,.data]' '[5,"old 3"]'
"$shmq" tail "$q" -n 1 -i 1ms >"$dir/tail" 2>"$dir/err" &
tail=$!
until_true test -s "$dir/tail" # it has looked
for i in 1 2 3; do "$shmq" put "$q" "new $i"; done
"$shmq" put "$q" urgent -p 1
new_ones() { [ "$(wc -l <"$dir/tail")" -eq 5 ]; }
until_true new_ones
kill $tail
wait $tail
same 0 $? "a tail that was told to stop"
same 'new 1,new 2,new 3,old 3,urgent' "$(sort "$dir/tail" | paste -sd ,)" "what tail saw"
expect 0 "$shmq" info "$q" --json
json '[.depth,.gets,.puts]' '[8,0,8]'
"$shmq" tail "$q" -n 1 -i 1h 2>"$dir/err" >"$dir/slow" &
tail=$!
until_true test -s "$dir/slow"
"$shmq" get "$q" -n 8 >/dev/null
"$shmq" put "$q" unseen
"$shmq" get "$q" >/dev/null
kill $tail
wait $tail
says '1 messages were put and taken between two looks'

# ---- top on a terminal ----
if command -v script >/dev/null; then
  script -qec "'$shmq' top '$q' -n 2 -i 50ms" "$dir/typescript" >/dev/null </dev/null
  grep -q "$q" "$dir/typescript" || report "top shows nothing on a terminal"
fi

# ---- looking changes nothing: a segment that may only be read ----
sum() { sha256sum </dev/shm/shmq."$q"; }
before=$(sum)
for command in info peek doctor top; do
  case $command in top) set -- -n 1 ;; *) set -- ;; esac
  expect 0 "$shmq" $command "$q" "$@"
done
expect 0 "$shmq" tail "$q" -e
expect 0 "$shmq" ls
same "$before" "$(sum)" "the segment after it was looked at"

finish
