#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What do priorities, times, delivery limits and policies cost a queue that uses none of them? Builds the library a
# second time with their tests taken out of the fast path (the two lines below) and times put and get of both in
# turn; then the same queue with each of them in use. Nothing else should run meanwhile.
#
#   bench/feature_cost.sh [ROUNDS]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-15}
without=$(mktemp -d)
trap 'rm -rf "$without"' EXIT
cmake --preset release >/dev/null
cmake --build build/release --target shmq shmq-put-get >/dev/null
cp -r CMakeLists.txt cmake libshmq "$without"
sed -i 's/likely(q->plain_room) ? get_cell(q, &limit) : -EAGAIN/get_cell(q, \&limit)/' "$without/libshmq/get.c"
sed -i 's/  if (likely(q->plain_room)) return false;/  return false;/' "$without/libshmq/queue.h"
for file in get.c queue.h; do
  ! cmp -s "libshmq/$file" "$without/libshmq/$file" || { echo "feature_cost: $file: nothing to take out" >&2; exit 1; }
done
cmake -S "$without" -B "$without/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG" \
  -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON -DSHMQ_TESTS=OFF >/dev/null
cmake --build "$without/build" --target shmq >/dev/null
program=build/release/bench/shmq-put-get
pair() { LD_LIBRARY_PATH=$1 "$program" "${2:-plain}"; }
for _ in $(seq "$rounds"); do
  echo "plain-without $(pair "$without/build/libshmq") plain $(pair build/release/libshmq)" \
    "timed $(pair build/release/libshmq timed) bands $(pair build/release/libshmq bands)" \
    "attempts $(pair build/release/libshmq attempts)"
done | awk '
  { for (i = 1; i < NF; i += 2) { name[i] = $i; ns[i, NR] = $(i + 1); ratio[i, NR] = $(i + 1) / $2 } }
  function median(a, i, n,   k, j, t, v) {
    for (k = 1; k <= n; k++) v[k] = a[i, k]
    for (k = 1; k <= n; k++) for (j = k + 1; j <= n; j++) if (v[j] < v[k]) { t = v[k]; v[k] = v[j]; v[j] = t }
    least = v[1]; most = v[n]
    return v[int((n + 1) / 2)]
  }
  END {
    print "put and get in one process, 8 bytes      ns   ratio to the first (range)"
    for (i = 1; i < 2 * 5; i += 2) {
      m = median(ns, i, NR); r = median(ratio, i, NR)
      printf "%-36s %6.1f   %.3f (%.3f to %.3f)\n", name[i], m, r, least, most
    }
  }'
