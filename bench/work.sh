#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What running a command on each of many messages costs: shmq work against xargs -P4 and GNU parallel, in turn, on the
# same jobs. Prints medians of the time and the processor time of a job, and their ratio to those of xargs.
# Every round checks that each job ran exactly once.
#
#   bench/work.sh [JOBS [ROUNDS]]         10000 and 5; SHMQ_BUILD_DIR says which build, build/release by default
set -eu
cd "$(dirname "$0")/.."
shmq=${SHMQ_BUILD_DIR:-build/release}/tools/shmq
jobs=${1:-10000}
rounds=${2:-5}
queue=bench-work-$$
dir=$(mktemp -d)
trap '"$shmq" rm "$queue" 2>/dev/null || :; rm -rf "$dir"' EXIT
TIMEFORMAT='%R %U %S'

by_shmq() {
  # shellcheck disable=SC2016 # the inner shell expands it
  "$shmq" work "$queue" -q -e -j 4 -- sh -c 'echo "$1"' - '{}'
}
by_xargs() {
  # shellcheck disable=SC2016
  xargs -P 4 -n 1 sh -c 'echo "$1"' - <"$dir/jobs"
}
by_parallel() { SHELL=/bin/sh parallel -j 4 echo <"$dir/jobs"; }

round() { # round NAME: one run, timed and checked
  { time "by_$1" >"$dir/out" 2>"$dir/err"; } 2>>"$dir/times.$1" || { cat "$dir/err" >&2; exit 1; }
  if ! sort -n "$dir/out" | cmp -s - "$dir/jobs"; then
    echo "$1: not every job ran exactly once" >&2
    exit 1
  fi
}

median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.0f\n", v[int((NR + 1) / 2)] }'; }
wall() { awk -v jobs="$jobs" '{ print $1 * 1e6 / jobs }' "$dir/times.$1" | median; }        # us of a job
cpu() { awk -v jobs="$jobs" '{ print ($2 + $3) * 1e6 / jobs }' "$dir/times.$1" | median; } # and of the processor

others='xargs'
if command -v parallel >/dev/null; then others="xargs parallel"; fi
seq "$jobs" >"$dir/jobs"
"$shmq" create "$queue" --capacity "$jobs"
for _ in $(seq "$rounds"); do
  "$shmq" put "$queue" -f "$dir/jobs" -D '\n'
  round shmq
  for other in $others; do round "$other"; done
done
for name in shmq $others; do
  awk -v name="$name" -v a="$(wall "$name")" -v b="$(wall xargs)" -v c="$(cpu "$name")" -v d="$(cpu xargs)" 'BEGIN {
    printf "%-8s %6d us a job, ratio %.2f; %6d us of processor time, ratio %.2f\n", name, a, a / b, c, c / d }'
done
