#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq topo: what it prints of described machines, and the status it exits with.
#
#   topo.sh SHMQ
set -u

shmq=$1
failures=0
export HWLOC_SYNTHETIC='package:2 [numa] l3:2 l2:2 core:1 pu:2'

fail() { printf '%s\n' "$*"; failures=$((failures + 1)); }

status_is() { # status_is STATUS ARGUMENTS...: and a complaint of one line when it is not 0
  local expected=$1 lines
  shift
  "$shmq" topo "$@" >/dev/null 2>"$complaints"
  local got=$?
  [ $got -eq "$expected" ] || fail "topo $*: status $got, expected $expected"
  lines=$(wc -l <"$complaints")
  [ "$expected" -eq 0 ] || [ "$lines" -eq 1 ] || fail "topo $*: $lines lines of complaint"
}

prints() { # prints TEXT ARGUMENTS...
  local text=$1
  shift
  "$shmq" topo "$@" 2>/dev/null | grep -qxF -- "$text" || fail "topo $*: no line '$text' in:" "$("$shmq" topo "$@" 2>&1)"
}

complaints=$(mktemp)
trap 'rm -f "$complaints"' EXIT

prints '  package:1 numa:1        8-15'
prints '      l2:4 (4.0M) core:4  8-9'
prints '        pu:15             15'
prints '    1 2       0 package:0 l3:0 l2:1 core:1 pu:2  no' pair:l3
prints '    1 4-5      0 package:0 l3:1 l2:2 core:2 no' core:all '~core:0' '~core:3' -n 5
prints '    8 0-1      0 package:0 l3:0 l2:0 core:0 yes' -n 9 core:all
prints '{"real":false,"places":[{"place":0,"cpu":8,"cpus":1,"list":"8","node":1,"where":"package:1 l3:2 l2:4 core:4 pu:8","shared":false}]}' \
  --json pu:8
prints '{"real":false,"places":[{"place":0,"cpu":-1,"cpus":16,"list":"0-15","node":-1,"where":"machine:0","shared":false}]}' \
  --json none
"$shmq" topo --json | grep -q '^{"real":false,"objects":\[{"name":"machine:0","depth":0,.*{"name":"pu:15",.*"list":"15"}\]}$' ||
  fail "topo --json: $("$shmq" topo --json)"

status_is 0
status_is 0 spread
status_is 0 --help
status_is 2 nonsense
status_is 2 ''
status_is 2 core:5-2
status_is 2 --members 0 all
status_is 2 --members 2
status_is 2 --nonsense
status_is 2 --json 'pair:l9'
status_is 2 "$(printf 'core:0 %.0s' {1..600})"
status_is 3 core:8
status_is 3 --json package:0.core:4
status_is 1 0x10000
status_is 1 core:0 '~core:0'
HWLOC_SYNTHETIC='pu:1' status_is 1 pair:l2
HWLOC_SYNTHETIC='nonsense' status_is 1

# The machine at hand: as many places as CPUs that this process may use; one of them after taskset.
unset HWLOC_SYNTHETIC
[ "$("$shmq" topo spread | tail -n +2 | wc -l)" -eq "$(nproc)" ] || fail "spread has not $(nproc) places"
cpu=$(taskset -cp $$ | sed 's/.*[ ,-]//')
[ "$(taskset -c "$cpu" "$shmq" topo all | tail -n 1 | awk '{print $2}')" = "$cpu" ] || fail "taskset -c $cpu is not respected"

[ $failures -eq 0 ] || { echo "$failures failures"; exit 1; }
