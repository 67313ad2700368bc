#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq bench: it runs, and what it prints can be read. How fast it is, is not asked.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

expect 0 "$shmq" bench --quick --json --only 'one to one'
json '.figures | length' 4
json '[.figures[] | .value > 0] | all' true
json '[.figures[].name]' '["one to one 8 B","one to one 64 B","one to one 64 B, batches of 32","one to one 1 KiB"]'
json '[.figures[] | (has("ratio_min") and has("ratio_max") and has("placement") and has("windows") and has("met"))] | all' true
json '.figures[0].reference' null
json '.figures[3].reference' memcpy
json '.figures[3].ratio > 0' true
json '.environment.cpus > 0' true

if command -v python3 >/dev/null; then
  cp "$dir/out" "$dir/figures.json"
  expect 0 "$SHMQ_SOURCE_DIR/bench/report" "$dir/figures.json"
  same 4 "$(grep -c '^| one to one' "$dir/out")" "rows of the table"
  expect 2 "$SHMQ_SOURCE_DIR/bench/report" "$dir/figures.json" --svg
fi

expect 0 "$shmq" bench --quick --only sleeping
checks=$((checks + 1))
grep -q '^round trip 64 B, sleeping .* futex ' "$dir/out" || report "no line for the sleeping round trip"
grep -q '^4 x 4, 64 B, sleeping ' "$dir/out" || report "no line for four and four"

expect 0 "$shmq" bench --quick --json --only '4 x 4' --bind pu:0
json '.environment.cpus' 1
expect 2 "$shmq" bench --bind 'nonsense:7'
expect 2 "$shmq" bench what
expect 1 "$shmq" bench --quick --only 'no such figure'
says 'nothing was measured'


finish
