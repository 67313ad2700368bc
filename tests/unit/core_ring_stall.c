/* SPDX-License-Identifier: Apache-2.0
 *
 * A helper that stands still between its look at the index and its write of the record, for a whole lap. The
 * ring is compiled here with its crash points, which is where it is made to stand.
 */
#define SHMQ_CRASHPOINTS
#include "core/ring.c"

#include <criterion/criterion.h>

#include "support/fresh.h"

void (*shmq__crashpoint_hook)(const char *name);

enum { CAPACITY = 4, TAKER = 3, NEXT = 5 };
static const shmq__ring_view *ring;
static int stood;

/* While the helper stands, others record the run, come round, and take the same cell a lap later. */
static void a_lap_passes(const char *name) {
  if (strcmp(name, "ring.helping") != 0) return;
  stood++;
  shmq__crashpoint_hook = NULL;
  atomic_store(&ring->producer_records[0], record_make(0, TAKER));
  atomic_store(&ring->index->tail, index_make(CAPACITY + 1, 1, NEXT));
  atomic_store(&ring->producer_records[0], record_make(CAPACITY, NEXT));
}

Test(core_ring_stall, a_helper_that_stood_for_a_lap_writes_nothing) {
  int fd;
  shmq_queue_options o = {.capacity = CAPACITY, .message_bytes = 8};
  shmq *q = fresh_queue(&o, &fd);
  ring = q->rings;
  uint64_t x = index_make(1, 1, TAKER);
  atomic_store(&ring->index->tail, x);
  shmq__crashpoint_hook = a_lap_passes;
  shmq__ring_record_run(ring->producer_records, ring->mask, &ring->index->tail, x);
  cr_assert_eq(stood, 1);
  cr_assert_eq(ring->producer_records[0], record_make(CAPACITY, NEXT));
  shmq_close(q);
  close(fd);
}
