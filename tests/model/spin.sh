#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Search a Promela model exhaustively: spin.sh [--full] MODEL
#
# MODEL.cases lists one search a line: what must come of it (ok; bug: an error must be found; full: ok, only
# with --full), and the model's switches. A search that does not fit its bounds is a failure, too.
set -eu

full=no optimise=-O0 # most searches take less time than an optimised build of them
[ "${1-}" = --full ] && { full=yes optimise=-O2; shift; }
model=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work"
cp "$here/$model.pml" .

# search WHAT SWITCHES...: prints one line, returns 1 when it is not as it must be.
search() {
  what=$1
  shift
  if ! spin -a "$@" "$model.pml" >spin.out 2>&1; then
    cat spin.out
    return 1
  fi
  cc $optimise -w -DSAFETY -DCOLLAPSE -DMEMLIM=3500 -o pan pan.c
  ./pan -m400000 -n >pan.out 2>&1 || true
  errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
  depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' pan.out)
  found=$(sed -n 's/^pan:1: \(invalid end state\|assertion violated\).*/\1/p' pan.out)
  result=complete
  grep -q 'reached -DMEMLIM\|max search depth too small\|out of memory' pan.out && result='NOT COMPLETE'
  [ "${errors:-1}" = 0 ] || result=${found:-error}
  printf '%-4s %-19s %12s states %7s deep  %s\n' "$what" "$result" "${states:-?}" "${depth:-?}" "$*"
  case $what:$result in
    ok:complete) ;;
    bug:invalid* | bug:assertion*) ;;
    *) return 1 ;;
  esac
}

failed=0
while read -r what switches; do
  case $what in
    '' | '#'*) continue ;;
    full) [ $full = yes ] || continue; what=ok ;;
  esac
  # shellcheck disable=SC2086 # switches are words
  search "$what" $switches </dev/null || failed=$((failed + 1))
done <"$here/$model.cases"
if [ $failed -gt 0 ]; then
  echo "$model: $failed searches not as they must be"
  exit 1
fi
