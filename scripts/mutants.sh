#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Apply each mutant of tests/mutants/mutants.txt to a scratch copy, build it, and run tests until one fails.
#
#   scripts/mutants.sh [--stages "model unit ..."] [--write] [NAME...]
#
# Stages, in this order unless stated: random unit integration model race crash soak fuzz. --write puts the table into
# docs/design/mutants.md. Exit status 0: at least 95 % of the mutants were caught.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
stages="random unit integration model race crash soak fuzz"
write=no
while [[ ${1-} == --* ]]; do
  case $1 in
    --stages) stages=$2; shift 2 ;;
    --write) write=yes; shift ;;
    *) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
(cd "$root" && git ls-files -z --cached --others --exclude-standard |
  perl -0ne 'chomp; print "$_\0" if -e' | tar -c --null -T - -f -) | tar -x -C "$scratch" -f -
build=$scratch/build/mutants
cmake -S "$scratch" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2" \
  >"$scratch/log" 2>&1 || { tail -20 "$scratch/log"; exit 1; }

units="core_ring core_ring_stall core_recover core_wake core_wake_stall core_txn core_block core_participant
  queue_lease queue_step queue_full queue_state queue_copy queue_dead_letter"

# run LIMIT COMMAND...: in the scratch folder; what hangs has failed. A mutant may not take the machine along.
run() {
  local limit=$1
  shift
  (cd "$scratch" && ulimit -c 0 && timeout -k 5 "$limit" "$@") >"$scratch/log" 2>&1
}
need() { # a build that fails, too, is a catch, but a poor one
  ninja -C "$build" -j2 "$@" >"$scratch/log" 2>&1
}

# Each stage returns 0 when all its tests pass, and says in $by what failed.
stage_random() {
  by="model, build"; need model_core || return 1
  by="model, at random"; run 300 "$build/tests/model/model_core" -r 3000 || return 1
}
stage_model() {
  by="model, build"; need model_core || return 1
  by="model, search"; run 600 "$build/tests/model/model_core" || return 1
}
# shellcheck disable=SC2086 # units are words
stage_unit() {
  by="unit, build"; need $units || return 1
  for test in $units; do
    by="unit, $test"; run 120 "$build/tests/unit/$test" || return 1
  done
}
stage_integration() {
  by="integration, build"; need queue_event || return 1
  by="integration, queue_event"; run 120 "$build/tests/integration/queue_event" || return 1
}
stage_race() {
  by="race, build"; need race || return 1
  for case in mpmc spsc lease blocks stages recovery recovery-spsc recovery-stages shutdown; do
    by="race, $case"; run 120 "$build/tests/race/race" $case || return 1
  done
}
stage_crash() {
  by="crash, build"; need crash || return 1
  by="crash"; run 900 "$build/tests/crash/crash" --report "$scratch/crash.json" --markdown "$scratch/crash.md" || return 1
}
stage_soak() {
  by="soak, build"; need soak || return 1
  by="soak"; run 180 "$build/tests/soak/soak" --seconds 30 --seed 1 --ledger "$scratch" || return 1
}
stage_fuzz() {
  by="fuzz, build"; need fuzz_hostile || return 1
  by="fuzz, hostile"; run 300 "$build/tests/fuzz/fuzz_hostile" || return 1
}

# Sets $by to what caught the present state of the scratch copy, or returns 1.
caught() {
  for stage in $stages; do
    "stage_$stage" || return 0
  done
  return 1
}

by=
if caught; then
  echo "without any mutant, this fails: $by"
  cat "$scratch/log"
  exit 1
fi

# mutant NAME FIELD: file, what, old or new.
mutant() {
  NAME=$1 FIELD=$2 perl -0777 -ne '
    for (split /^== /m) {
      next unless /^(\S+)\n(.*)\n(.*)\n<\n(.*?)\n=\n(?:(.*?)\n)?>\n/s && $1 eq $ENV{NAME};
      print {file => $2, what => $3, old => $4, new => $5 // ""}->{$ENV{FIELD}};
    }' "$root/tests/mutants/mutants.txt"
}

names=("$@")
[[ ${#names[@]} -gt 0 ]] || mapfile -t names < <(sed -n 's/^== //p' "$root/tests/mutants/mutants.txt")
total=0 found=0
table=$scratch/table
printf '| mutant | file | what it does | caught by |\n|---|---|---|---|\n' >"$table"
for name in "${names[@]}"; do
  file=$(mutant "$name" file)
  OLD=$(mutant "$name" old) NEW=$(mutant "$name" new) perl -0777 -i -pe '
    my $n = () = /\Q$ENV{OLD}\E/g;
    die "the text is there $n times\n" unless $n == 1;
    s/\Q$ENV{OLD}\E/$ENV{NEW}/' "$scratch/$file" || { echo "$name does not apply"; exit 1; }
  total=$((total + 1))
  if caught; then
    found=$((found + 1))
  else
    by="**survived**"
  fi
  printf '%-26s %s\n' "$name" "$by"
  printf '| %s | %s | %s | %s |\n' "$name" "${file#libshmq/}" "$(mutant "$name" what)" "$by" >>"$table"
  cp "$root/$file" "$scratch/$file"
done
echo "$found of $total caught"
if [[ $write == yes ]]; then
  {
    printf '# Mutants\n\nEach mutant takes one step of the protocols away (tests/mutants/mutants.txt).\n'
    printf 'scripts/mutants.sh --write builds each and runs tests until one fails: %s, in this order.\n' "$stages"
    printf 'What is named is the first test that failed, not the only one.\n\n'
    cat "$table"
    printf '\n%d of %d caught.\n' "$found" "$total"
  } >"$root/docs/design/mutants.md"
fi
((found * 100 >= total * 95))
