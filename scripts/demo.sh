#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demonstration: hash a directory tree with worker processes of which some are killed meanwhile.
#
#   scripts/demo.sh [DIR] [OPTIONS]
#
# DIR defaults to /usr/include; OPTIONS go to build/release/examples/treehash (see its --help).
# Installs what it needs (Debian 12), builds the release preset, runs.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)

dir=/usr/include
case "${1:-}" in
  '' | -*) ;;
  *) dir=$1; shift ;;
esac

"$here/scripts/install-deps.sh" build
(
  cd "$here"
  cmake --preset release -DSHMQ_TESTS=OFF
  cmake --build --preset release --parallel "$(nproc)"
) >"${TMPDIR:-/tmp}/shmq-demo.$$.log" 2>&1 || {
  cat "${TMPDIR:-/tmp}/shmq-demo.$$.log" >&2
  rm -f "${TMPDIR:-/tmp}/shmq-demo.$$.log"
  exit 1
}
rm -f "${TMPDIR:-/tmp}/shmq-demo.$$.log"

exec "$here/build/release/examples/treehash" "$dir" "$@"
