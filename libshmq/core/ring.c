/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ring.h"

void shmq__ring_record_run(_Atomic uint64_t *records, uint64_t mask, _Atomic uint64_t *index,
                           uint64_t x) {
  uint32_t owner = index_owner(x), run = index_run(x);
  uint64_t end = index_position(x);
  if (owner == 0) return; /* nothing was ever taken */
  uint64_t last = position_sub(end, 1);
  /* Recorded in ascending order by everybody, so the last one stands for all. */
  if (a_load(&records[last & mask]) == record_make(last, owner)) return;
  for (uint32_t i = run; i > 0; i--) {
    uint64_t p = position_sub(end, i);
    uint64_t want = record_make(p, owner);
    uint64_t have = a_load(&records[p & mask]);
    if (have == want) continue;
    /* `have` was read while *index was x, so it is from an earlier lap. If *index moves on after this
     * check, the record is `want` by then (R2) and the compare-and-swap fails: a helper that stalls
     * here for any time cannot write an old record over a new one. */
    if (a_load(index) != x) return;
    CRASHPOINT("ring.helping");
    (void)a_cas(&records[p & mask], &have, want);
  }
}
