#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Inserts of one row each by N processes: through the owner, and through libsqlite3 by each of them, in turn; the same
# machine, file system, write-ahead log and synchronous=FULL. Prints acknowledged inserts a second, the median of the
# ratios and their range.
#
#   bench/sqlite.sh [PROCESSES [SECONDS [ROUNDS [DEPTH]]]]
#
# 8, 3 s, 5, and 1 insert of each process in flight through the owner. SHMQ_BUILD_DIR says which build, BENCH_DIR where the
# databases are (/var/tmp).
set -eu
cd "$(dirname "$0")/.."
build=${SHMQ_BUILD_DIR:-build/release}
processes=${1:-8}
seconds=${2:-3}
rounds=${3:-5}
depth=${4:-1}
service=bench-sqlite-$$
dir=$(mktemp -d -p "${BENCH_DIR:-/var/tmp}")
owner=
stop_owner() {
  if [ -n "$owner" ]; then kill "$owner" 2>/dev/null; wait "$owner" || :; fi
  owner=
  "$build/tools/shmq" rm "$service" 2>/dev/null || :
}
trap 'stop_owner; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

table='PRAGMA journal_mode = WAL; CREATE TABLE rows (process, number, text)'
rate() { sed -n 's/.* per_second=//p'; }

through_owner() {
  rm -f "$dir"/owner.db*
  sqlite3 "$dir/owner.db" "$table" >/dev/null
  "$build/services/sqlite/shmq-sqlite" serve "$service" "$dir/owner.db" &
  owner=$!
  until "$build/services/sqlite/shmq-sqlite" query "$service" 'SELECT 1' >/dev/null 2>&1; do sleep 0.1; done
  "$build/services/sqlite/sqlite-inserts" owner "$service" "$processes" "$seconds" "$depth" | rate >"$dir/rate"
  stop_owner
}
directly() {
  rm -f "$dir"/direct.db*
  sqlite3 "$dir/direct.db" "$table" >/dev/null
  "$build/services/sqlite/sqlite-inserts" direct "$dir/direct.db" "$processes" "$seconds" | rate
}

for _ in $(seq "$rounds"); do
  through_owner
  printf '%s %s\n' "$(cat "$dir/rate")" "$(directly)"
done | awk '{ printf "owner %d/s, directly %d/s, ratio %.2f\n", $1, $2, $1 / $2; fflush() }' | tee "$dir/ratios"
sed 's/.*ratio //' "$dir/ratios" | sort -n |
  awk '{ r[NR] = $1 } END { printf "median ratio %.2f (%.2f to %.2f)\n", r[int((NR + 1) / 2)], r[1], r[NR] }'
