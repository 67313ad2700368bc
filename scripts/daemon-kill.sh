#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kill the daemon's worker, and its clients, while they append numbered records to a log on the disk; then everything.
# Each acknowledged record must be in the log, under its number, and none twice.
#
#   scripts/daemon-kill.sh [RECORDS WORKER_KILLS CLIENT_KILLS]     (1000000 50 50)
#
# PRESET chooses the build (release).
set -eu
cd "$(dirname "$0")/.."
preset=${PRESET:-release}
cmake --preset "$preset" -DSHMQ_TESTS=ON >/dev/null
cmake --build --preset "$preset" --target daemon_kill shmqd >/dev/null
[ $# -gt 0 ] || set -- 1000000 50 50
SHMQ_BUILD_DIR=build/$preset exec "build/$preset/tests/integration/daemon_kill" "$@"
