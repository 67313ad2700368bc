#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kill every call at every instruction, in every state and mode, and every recovery too.
#
#   scripts/crash-full.sh [OPTIONS OF tests/crash]
#
# Writes build/PRESET/crash-report.json and crash-table.md (the kill table of
# docs/design/crash-safety.md). PRESET chooses the build (release).
set -eu
cd "$(dirname "$0")/.."
preset=${PRESET:-release}
cmake --preset "$preset" -DSHMQ_TESTS=ON >/dev/null
cmake --build --preset "$preset" --target crash >/dev/null
exec "build/$preset/tests/crash/crash" --full --report "build/$preset/crash-report.json" \
  --markdown "build/$preset/crash-table.md" "$@"
