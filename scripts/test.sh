#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Build and test everything: dev (ASan, UBSan, -Werror), release (-O2, LTO), tsan (thread sanitizer).
#
#   scripts/test.sh [PRESET...]
#
# Installs what it needs (Debian 12). All labels run but crash-full, soak-long, fuzz-long and bench;
# under tsan only the label tsan. Every preset is tried; the exit status is 0 only if all passed.
set -uo pipefail

cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
results=()
failed=0

scripts/install-deps.sh test || exit 1

build() { # build PRESET: quietly, with the log shown when it fails
  local log=build/$1.log
  mkdir -p build
  if cmake --preset "$1" -DSHMQ_TESTS=ON >"$log" 2>&1 &&
    cmake --build --preset "$1" --parallel "$jobs" >>"$log" 2>&1; then
    return 0
  fi
  cat "$log"
  return 1
}

try() { # try PRESET
  local start=$SECONDS result
  echo "== $1: build"
  if build "$1"; then
    echo "== $1: ctest"
    ctest --preset "$1" --parallel $((2 * jobs)) | tee "build/$1-ctest.log"
    result=$(grep -E '^[0-9]+% tests passed' "build/$1-ctest.log" || echo "ctest did not finish")
    grep -q '^100% tests passed' "build/$1-ctest.log" || failed=1
  else
    result="build failed"
    failed=1
  fi
  results+=("$1: $result ($((SECONDS - start)) s)")
}

presets=("$@")
[ ${#presets[@]} -gt 0 ] || presets=(dev release tsan)
for preset in "${presets[@]}"; do
  try "$preset"
done

echo "== summary"
printf '%s\n' "${results[@]}"
exit $failed
