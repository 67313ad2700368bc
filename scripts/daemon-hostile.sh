#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Hostile clients of the daemon, in a build with the address and undefined-behaviour sanitizers. The daemon lives,
# nothing is left of them, and a client beside them is answered right and in its time.
#
#   scripts/daemon-hostile.sh [SECONDS [SEED [ATTACK]]]     (600 1, all)
#
# SHMQD_DAEMON_IO chooses the rung (auto). PRESET chooses the build (dev). Exit status 77: what a client notices could
# not be judged, because the machine did other things as well.
set -eu
cd "$(dirname "$0")/.."
preset=${PRESET:-dev}
cmake --preset "$preset" -DSHMQ_TESTS=ON >/dev/null
cmake --build --preset "$preset" --target hostile shmqd >/dev/null
[ $# -gt 0 ] || set -- 600

# The sanitizers fail at random where the kernel scatters mappings over more than 28 bits.
launch=
if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ]; then
  launch='setarch --addr-no-randomize'
fi
# shellcheck disable=SC2086 # words
SHMQ_BUILD_DIR=build/$preset exec $launch "build/$preset/tests/hostile/hostile" --judge "$@"
