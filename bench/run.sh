#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Build a release and take the figures; nothing else should run meanwhile.
#
#   bench/run.sh [--quick] [--only TEXT] [--windows N] [--dir DIR] --json FILE
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: bench/run.sh [--quick] [--only TEXT] [--windows N] [--dir DIR] --json FILE" >&2; exit 2; }
scripts/install-deps.sh all
cmake --preset release >/dev/null
cmake --build build/release --target shmq-bench shmq-recovery-time shmqd >/dev/null
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
exec build/release/bench/shmq-bench "$@"
