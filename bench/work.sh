#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What running a command on each of many messages costs: shmq work against xargs -P4 and GNU parallel, in turn, on the
# same jobs. Prints medians of the time and the processor time of a job, the medians of both's ratios to xargs and
# their ranges.
#
#   bench/work.sh [JOBS [ROUNDS [PROGRAM [PEERS]]]]    10000, 5, sh and 'xargs parallel'
#
# PROGRAM is sh, which prints the job's number (every round checks that each job ran exactly once), or true, which
# does nothing. SHMQ_BUILD_DIR says which build, build/release by default.
set -eu
cd "$(dirname "$0")/.."
shmq=${SHMQ_BUILD_DIR:-build/release}/tools/shmq
jobs=${1:-10000}
rounds=${2:-5}
program=${3:-sh}
peers=${4:-xargs parallel}
queue=bench-work-$$
dir=$(mktemp -d)
trap '"$shmq" rm "$queue" 2>/dev/null || :; rm -rf "$dir"' EXIT
TIMEFORMAT='%R %U %S'

# shellcheck disable=SC2016 # the inner shell expands it
case $program in
  sh) command=(sh -c 'echo "$1"' -) builtin=echo ;;
  true) command=(true) builtin=true ;;
  *) echo "work.sh: '$program' is neither sh nor true" >&2; exit 2 ;;
esac
by_shmq() { "$shmq" work "$queue" -q -e -j 4 -- "${command[@]}" '{}'; }
by_xargs() { xargs -P 4 -n 1 "${command[@]}" <"$dir/jobs"; }
by_parallel() { SHELL=/bin/sh parallel -j 4 $builtin <"$dir/jobs"; } # runs a shell in any case

check() {
  if [ "$program" = sh ] && ! sort -n "$dir/out" | cmp -s - "$dir/jobs"; then
    echo "$1: not every job ran exactly once" >&2
    exit 1
  fi
}
round() { # round NAME: one run, timed and checked
  { time "by_$1" >"$dir/out" 2>"$dir/err"; } 2>>"$dir/times.$1" || { cat "$dir/err" >&2; exit 1; }
  check "$1"
}

# summary NAME: the rounds' times of NAME beside those of xargs
summary() {
  paste -d ' ' "$dir/times.$1" "$dir/times.xargs" | awk -v name="$1" -v jobs="$jobs" '
    function sorted(v, n,  i, j, t) {
      for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    }
    { wall[NR] = $1 * 1e6 / jobs; cpu[NR] = ($2 + $3) * 1e6 / jobs; r[NR] = $1 / $4; s[NR] = ($2 + $3) / ($5 + $6) }
    END {
      sorted(wall, NR); sorted(cpu, NR); sorted(r, NR); sorted(s, NR); m = int((NR + 1) / 2)
      printf "%-8s %6d us a job, ratio %.2f (%.2f to %.2f); %6d us of processor time, ratio %.2f (%.2f to %.2f)\n",
        name, wall[m], r[m], r[1], r[NR], cpu[m], s[m], s[1], s[NR] }'
}

names=shmq
for peer in $peers; do
  if command -v "$peer" >/dev/null; then names="$names $peer"; fi
done
seq "$jobs" >"$dir/jobs"
"$shmq" create "$queue" --capacity "$jobs"
for _ in $(seq "$rounds"); do
  "$shmq" put "$queue" -f "$dir/jobs" -D '\n'
  for name in $names; do round "$name"; done
done
for name in $names; do summary "$name"; done
