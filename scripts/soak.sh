#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kill and stop producers, stages and consumers at random, for as long as you like.
#
#   scripts/soak.sh [--seconds N] [--seed S] [--ledger DIR]
#
# The last line printed is JSON: kills, messages, recoveries, lost, duplicated, leaked,
# worst_recovery_ms and more.
# PRESET chooses the build (release).
set -eu
cd "$(dirname "$0")/.."
preset=${PRESET:-release}
cmake --preset "$preset" -DSHMQ_TESTS=ON >/dev/null
cmake --build --preset "$preset" --target soak >/dev/null
exec "build/$preset/tests/soak/soak" "$@"
