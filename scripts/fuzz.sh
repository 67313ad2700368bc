#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Run the fuzz targets of tests/fuzz for a while each: the libFuzzer ones, then the hostile peer.
#
#   scripts/fuzz.sh [--build] [--seconds N] [--seed S] [TARGET...]
#
# --build: nothing but build them.
# TARGET: segment image request config arguments hostile; all of them by default. N: 60, or $SHMQ_FUZZ_SECONDS.
# S: libFuzzer's; by chance when none is given. The test suite gives one, so that it does not depend on the day.
# Needs clang 14 (exit status 77 without it) and builds into build/fuzz. Inputs start from
# tests/fuzz/corpus; new ones are kept in build/fuzz/corpus, what fails in build/fuzz/found, and
# build/fuzz/tests/fuzz/fuzz_TARGET FILE tries it again.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

seconds=${SHMQ_FUZZ_SECONDS:-60}
seed=0 targets=() only_build=no
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --build) only_build=yes ;;
    --seed) seed=${2:?--seed needs a number}; shift ;;
    -*) sed -n 's/^#   //p' "$0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || targets=(segment image request config arguments hostile)

clang=$(command -v clang-14) || { echo "no clang-14 here; scripts/install-deps.sh test installs it"; exit 77; }
build=build/fuzz
mkdir -p $build/found

make_all() ( # one at a time, for the targets' tests run beside each other; the lock goes with the subshell
  exec 9>$build/lock
  flock 9
  CFLAGS='' cmake -S . -B $build -G Ninja -DCMAKE_C_COMPILER="$clang" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -gline-tables-only" -DSHMQ_SANITIZE=address,undefined,fuzzer-no-link -DSHMQ_TESTS=ON &&
    cmake --build $build --target "${targets[@]/#/fuzz_}"
)
if ! make_all >$build/build.log 2>&1; then
  cat $build/build.log
  exit 1
fi

[ $only_build = no ] || exit 0

# The sanitizers fail at random where the kernel scatters mappings over more than 28 bits.
launch=()
if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ]; then
  launch=(setarch --addr-no-randomize)
fi
export ASAN_OPTIONS=quarantine_size_mb=16:handle_abort=1:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

run() { # run TARGET
  local program=$build/tests/fuzz/fuzz_$1 log=$build/$1.log options=(-max_len=1024 "-seed=$seed")
  [ -x "$program" ] || { echo "there is no target $1"; return 2; }
  if [ "$1" = hostile ]; then
    "${launch[@]}" "$program" --seconds "$seconds"
    return
  fi
  [ "$1" != image ] || options=(-max_len=40000 "-seed=$seed")
  local leaks=1
  [ "$1" != arguments ] || leaks=0 # the program keeps its arguments to its end
  mkdir -p "$build/corpus/$1"
  # The limit of an input: it makes up to 200 calls, each of which may wait for a bounded look.
  if ! ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=$leaks "${launch[@]}" "$program" -max_total_time="$seconds" -timeout=120 -len_control=0 -print_final_stats=1 \
    -artifact_prefix="$build/found/$1-" "${options[@]}" "$build/corpus/$1" "tests/fuzz/corpus/$1" >"$log" 2>&1; then
    grep -vE '^#[0-9]|NEW_FUNC' "$log" | tail -n 80
    return 1
  fi
  echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs," \
    "$(grep -oE 'cov: [0-9]+' "$log" | tail -1), corpus $(find "$build/corpus/$1" -type f | wc -l)"
}

failed=0
for target in "${targets[@]}"; do
  run "$target" || failed=1
done
exit $failed
