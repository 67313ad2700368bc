#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every command of shmq does what its help says, with the exit status that it promises.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

# ---- help ----
expect 0 "$shmq" --help
commands=$(sed -n '/^Commands:/,/^$/p' "$dir/out" | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(echo "$commands" | wc -l)" -ge 17 ] || report "the list of commands is too short"
for command in $commands; do
  expect 0 "$shmq" "$command" --help
  grep -q "^Usage: shmq $command" "$dir/out" || report "help of $command has no usage"
  expect 0 "$shmq" help "$command"
  expect 2 "$shmq" "$command" --no-such-flag
  says "shmq $command --help"
done
expect 0 "$shmq" --version
expect 2 "$shmq"
expect 2 "$shmq" frobnicate
says "unknown command 'frobnicate'"

# ---- create, put, get ----
expect 0 "$shmq" create "$q"
expect 1 "$shmq" create "$q"
says "exists already"
expect 0 "$shmq" put "$q" hello
expect 0 "$shmq" put "$q" -- -dash
expect 0 "$shmq" put "$q" ''
expect 0 "$shmq" info "$q" --json
json '[.depth,.puts,.gets,.leased,.redeliveries]' '[3,3,0,0,0]'
expect 0 "$shmq" get "$q"
prints hello
expect 0 "$shmq" get "$q" -n 2
prints '-dash'
expect 0 "$shmq" get "$q" -e
prints ''
expect 5 "$shmq" get "$q" --timeout 0
says empty
expect 5 "$shmq" get "$q" --timeout 30ms
expect 0 "$shmq" info "$q/main" --json
json '[.depth,.puts,.gets,.capacity,.message_size]' '[0,3,3,1024,1024]'

# Streams, delimiters, files.
seq 1000 | "$shmq" put "$q" - -D '\n' || report "put of a stream"
expect 0 "$shmq" get "$q" -n 10
prints "$(seq 10)"
expect 0 "$shmq" get "$q" -e
prints "$(seq 11 1000)"
printf 'a b||c|||d' | "$shmq" put "$q" - -D '||'
expect 0 "$shmq" get "$q" -e -D ','
prints 'a b,c,|d,'
printf 'x\0y\0\0z' | "$shmq" put "$q" -D '\0'
expect 0 "$shmq" get "$q" -e -D ';'
prints 'x;y;;z;'
printf 'one\ntwo\n' >"$dir/file"
expect 0 "$shmq" put "$q" -f "$dir/file"
expect 0 "$shmq" get "$q" -D ''
cmp -s "$dir/file" "$dir/out" || report "a file is put whole"
expect 0 "$shmq" put "$q" -f "$dir/file" -D '\x0a'
expect 0 "$shmq" get "$q" -e
prints "$(printf 'one\ntwo')"
expect 3 "$shmq" put "$q" -f "$dir/no-such-file"
"$shmq" put "$q" - </dev/null || report "an empty message"
expect 0 "$shmq" info "$q" --json
json .depth 1
expect 0 "$shmq" get "$q" -e --json
json '[.size,.attempts,.data]' '[0,1,""]'

# JSON: text as text, other bytes as base64.
expect 0 "$shmq" put "$q" $'tab\t"quote" \\ \xc3\xa4'
printf '\377\0\1' | "$shmq" put "$q" -
expect 0 "$shmq" get "$q" -n 2 --json
checks=$((checks + 1))
got=$(jq -rc '.data // .data_base64' "$dir/out" | tr '\n' '|')
same "$(printf 'tab\t"quote" \\ \303\244|/wAB|')" "$got" "data in JSON"

# ---- full, shut down, drained ----
expect 0 "$shmq" create "$q-small" --capacity 2 --message-size 8
expect 0 "$shmq" put "$q-small" 1
expect 0 "$shmq" put "$q-small" 2
expect 5 "$shmq" put "$q-small" 3 --timeout 0
says full
expect 5 "$shmq" put "$q-small" 3 --timeout 20ms
expect 1 "$shmq" put "$q-small" 123456789
says 'at most 8 bytes'
expect 5 "$shmq" wait "$q-small" --for writable --timeout 10ms
expect 0 "$shmq" wait "$q-small" "$q" --timeout 1s
prints "$q-small"
expect 5 "$shmq" wait "$q" --timeout 100ms
expect 5 "$shmq" wait "$q-small" --for 'done' --timeout 10ms
expect 0 "$shmq" shutdown "$q-small"
expect 6 "$shmq" put "$q-small" 3
says reopen
expect 5 "$shmq" shutdown "$q-small" --wait --timeout 10ms
expect 0 "$shmq" get "$q-small" -n 2
expect 6 "$shmq" get "$q-small"
expect 0 "$shmq" get "$q-small" -e
expect 0 "$shmq" shutdown "$q-small" --wait
expect 0 "$shmq" wait "$q-small" --for drained
expect 0 "$shmq" reopen "$q-small"
expect 0 "$shmq" put "$q-small" 3
expect 0 "$shmq" get "$q-small"
prints 3

# A waiting get is served; a waiting put goes on.
"$shmq" get "$q-small" >"$dir/late" &
waiting=$!
sleep 0.1
expect 0 "$shmq" put "$q-small" late
wait $waiting || report "a waiting get"
same late "$(cat "$dir/late")" "a waiting get"

# ---- ls, info, peek, top, tail ----
expect 0 "$shmq" put "$q-small" 7
expect 0 "$shmq" ls
grep -q "^$q-small " "$dir/out" || report "ls does not list it"
expect 0 "$shmq" ls --json
json ".[] | select(.name == \"$q-small\") | [.state, .queues[0].depth, .queues[0].capacity]" '["ok",1,2]'
expect 0 "$shmq" ls --names
grep -qx "$q-small" "$dir/out" || report "ls --names does not list it"
expect 0 "$shmq" info "$q-small"
grep -q 'depth  *1$' "$dir/out" || report "info shows no depth"
expect 0 "$shmq" peek "$q-small"
grep -q 'ready.* 7$' "$dir/out" || report "peek shows no message"
expect 0 "$shmq" peek "$q-small" --json
json '.[0] | [.state,.size,.data,.complete]' '["ready",1,"7",true]'
expect 0 "$shmq" top "$q-small" -n 2 -i 50ms --json
json '.[0].name' "$(printf '%s\n%s' "$q-small" "$q-small")"
expect 0 "$shmq" top -n 1
expect 0 "$shmq" tail "$q-small" -e
prints 7
expect 0 "$shmq" info "$q-small" --json
json '[.depth,.gets,.redeliveries]' '[1,4,0]'
expect 0 "$shmq" doctor "$q-small"
prints "$q-small: healthy"

# ---- several queues, forward ----
expect 0 "$shmq" create "$q-two" --capacity 8 --queue "b:capacity=4,message-size=2K" --queue c
expect 0 "$shmq" info "$q-two" --json
json '[.queues[] | [.queue,.capacity,.message_size]]' '[["main",8,1024],["b",4,2048],["c",8,1024]]'
for i in 1 2 3; do "$shmq" put "$q-two" $i; done
expect 0 "$shmq" forward "$q-two" b -n 2
expect 0 "$shmq" forward "$q-two" "$q-two/c" -e
expect 0 "$shmq" get "$q-two/b" -e
prints "$(seq 2)"
expect 0 "$shmq" get "$q-two/c" -e
prints 3
expect 2 "$shmq" forward "$q-two" "$q/main" -e
expect 3 "$shmq" forward "$q-two" nowhere -e
expect 2 "$shmq" forward "$q-two" main -e

# ---- delivery: attempts, dead letters, priorities, times, policies ----
expect 0 "$shmq" create "$q-mail" --max-attempts 2 --timed --priorities 3 --capacity 8
expect 0 "$shmq" info "$q-mail" --json
json '[.max_attempts,.dead_letter,.priorities,.timed]' '[2,"dead",3,true]'
expect 0 "$shmq" put "$q-mail" low
expect 0 "$shmq" put "$q-mail" high --priority 2
expect 0 "$shmq" put "$q-mail" middle -p 1
expect 0 "$shmq" get "$q-mail" -e
prints "$(printf 'high\nmiddle\nlow')"
expect 0 "$shmq" put "$q-mail" much-later --delay 1h
expect 5 "$shmq" get "$q-mail" --timeout 0
expect 0 "$shmq" info "$q-mail" --json
json '[.depth,.delayed]' '[1,1]'
expect 0 "$shmq" put "$q-mail" later --delay 200ms
expect 0 "$shmq" get "$q-mail" --timeout 1m
prints later
expect 0 "$shmq" put "$q-mail" gone --ttl 10ms
sleep 0.05
expect 5 "$shmq" get "$q-mail" --timeout 0
expect 0 "$shmq" requeue "$q-mail"
prints '1 moved'
expect 0 "$shmq" get "$q-mail" -e
prints gone
expect 1 "$shmq" put "$q" x --delay 1s
says timed
for policy in fail drop-oldest drop-newest; do
  expect 0 "$shmq" create "$q-$policy" --capacity 2 --when-full $policy
  "$shmq" put "$q-$policy" 1 && "$shmq" put "$q-$policy" 2
done
expect 5 "$shmq" put "$q-fail" 3
expect 0 "$shmq" put "$q-drop-oldest" 3
expect 0 "$shmq" get "$q-drop-oldest" -e
prints "$(printf '2\n3')"
expect 0 "$shmq" put "$q-drop-newest" 3
expect 0 "$shmq" get "$q-drop-newest" -e
prints "$(printf '1\n2')"
expect 0 "$shmq" info "$q-drop-newest" --json
json .dropped 1

# ---- blocks ----
expect 0 "$shmq" create "$q-blocks" --blocks 4 --block-size 1M --message-size 64
head -c 1000000 /dev/urandom >"$dir/large"
expect 0 "$shmq" put "$q-blocks" -f "$dir/large"
expect 0 "$shmq" get "$q-blocks" -D ''
cmp -s "$dir/large" "$dir/out" || report "a message in a block came back changed"
head -c 1100000 /dev/urandom >"$dir/large"
expect 1 "$shmq" put "$q-blocks" -f "$dir/large"
says 'at most 1048576 bytes'

# ---- doctor and evict ----
"$shmq" get "$q" >/dev/null &
stopped=$!
joined() { "$shmq" info "$q" --json | jq -e ".participants[] | select(.pid == $1)"; }
until_true joined $stopped
kill -STOP $stopped
until_true eval "! '$shmq' doctor '$q'"
expect 1 "$shmq" doctor "$q"
grep -q "pid $stopped.* is stopped" "$dir/out" || report "doctor does not name who is stopped"
grep -q "kill -CONT $stopped" "$dir/out" || report "doctor does not say what to do"
expect 1 "$shmq" doctor "$q" --json
json '[.healthy,.findings[0].kind]' '[false,"stopped"]'
index=$("$shmq" info "$q" --json | jq ".participants[] | select(.pid == $stopped) | .index")
expect 1 "$shmq" evict "$q" "$index"
says alive
expect 0 "$shmq" evict "$q" "$index" --kill
wait $stopped 2>/dev/null
same 137 $? "an evicted process"
expect 0 "$shmq" doctor "$q"
expect 3 "$shmq" evict "$q" 1000
"$shmq" get "$q" >/dev/null &
killed=$!
until_true joined $killed
kill -KILL $killed
wait $killed 2>/dev/null
expect 1 "$shmq" doctor "$q"
grep -q "pid $killed.* is dead" "$dir/out" || report "doctor does not name who is dead"
expect 0 "$shmq" doctor "$q" --repair
grep -q '1 dead participant' "$dir/out" || report "repair does not say what it did"
expect 0 "$shmq" doctor "$q"

# ---- rm ----
expect 0 "$shmq" rm "$q-small" "$q-two"
expect 3 "$shmq" rm "$q-small" "$q-mail"
expect 3 "$shmq" info "$q-mail"
expect 0 "$shmq" rm -f "$q-small"

finish
