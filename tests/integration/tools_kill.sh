#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of whoever takes part, at any moment, fifty times: the parent of the servers, a server, an asker, the holder of
# a token. Every call of somebody who lives ends with its own answer or is told that its server died, every token comes
# back, and nothing stays behind.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

rounds=50
RANDOM=${1:-7}
server=
trap 'if [ -n "$server" ]; then kill -TERM $server 2>/dev/null; wait $server 2>/dev/null; fi; cleanup' EXIT

begin_service() {
  # shellcheck disable=SC2016 # the inner shell expands it
  "$shmq" serve "$q" -q -j 2 -- sh -c 'read -r text; sleep 0.02; echo "$text"' &
  server=$!
}
begin_calls() { # three at once, the first of them idempotent
  calls=()
  local idempotent=-i
  for i in 0 1 2; do
    "$shmq" call "$q" $idempotent --timeout 60s "round $round call $i" >"$dir/answer.$i" 2>"$dir/err.$i" &
    calls+=($!)
    idempotent=
  done
}
end_calls() {
  local i status
  for i in 0 1 2; do
    wait "${calls[$i]}" 2>/dev/null
    status=$?
    case $status in
      0) same "round $round call $i" "$(cat "$dir/answer.$i")" "the answer of call $i" ;;
      1) same '' "$(cat "$dir/answer.$i")" "the answer of a call that failed" ;;
      137) same "${calls[$i]}" "$victim" "the call that was killed" ;;
      *) report "call $i of round $round ended with $status: $(cat "$dir/err.$i")" ;;
    esac
    ends[status]=$((${ends[$status]:-0} + 1))
  done
}
begin_holder() {
  "$shmq" pool take "$q-pool" --timeout 60s -- sleep 0.05 2>"$dir/err.holder" &
  holder=$!
}
end_holder() {
  wait $holder 2>/dev/null
  local status=$?
  if [ $status -ne 0 ] && { [ $status -ne 137 ] || [ $holder -ne "$victim" ]; }; then
    report "the holder of round $round ended with $status: $(cat "$dir/err.holder")"
  fi
}
choose_victim() {
  case $((RANDOM % 4)) in
    0) victim=$server ;;
    1) victim=$(pgrep -P $server | sed -n "$((RANDOM % 2 + 1))p") ;;
    2) victim=${calls[$((RANDOM % 3))]} ;;
    3) victim=$holder ;;
  esac
}

expect 0 "$shmq" pool park "$q-pool" red green
begin_service
until_true "$shmq" call "$q" hello
ends=()
for round in $(seq $rounds); do
  begin_calls
  begin_holder
  sleep "$(printf '0.%03d' $((RANDOM % 100)))"
  choose_victim
  if [ -n "$victim" ]; then kill -KILL "$victim" 2>/dev/null; fi
  if [ "$victim" = $server ]; then
    wait $server 2>/dev/null
    begin_service
  fi
  end_calls
  end_holder
done
for status in "${!ends[@]}"; do echo "calls that ended with $status: ${ends[$status]}"; done
if [ "${ends[0]:-0}" -lt $rounds ]; then report "most calls failed"; fi

# ---- afterwards ----
for i in $(seq 5); do
  expect 0 "$shmq" call "$q" "after $i" --timeout 60s
  prints "after $i"
done
kill -TERM $server
wait $server
same 0 $? "the servers' status"
server=
expect 0 "$shmq" info "$q" --json
json '[.depth,.leased]' '[0,0]'
for _ in 1 2; do
  expect 0 "$shmq" pool take "$q-pool" --timeout 30s
  cat "$dir/out" >>"$dir/tokens"
done
same 'green red' "$(sort "$dir/tokens" | paste -sd ' ')" "the tokens"
expect 5 "$shmq" pool take "$q-pool" --timeout 0
finish
