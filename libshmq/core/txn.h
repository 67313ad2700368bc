/* SPDX-License-Identifier: Apache-2.0
 *
 * The redo record: several publications and releases as one step.
 *
 *   T1  The entries are written while redo_state is NONE; the store of COMMITTED is the commit.
 *   T2  Past it every entry is applied, by the committer or by recovery, before the state returns to NONE.
 *   T3  Applying an entry twice, or after half an application, changes nothing: a publication acts only on a
 *       cell still FREE of its turn, a release only on one that still holds that turn's message, a block
 *       is freed only from its exact reference.
 */
#ifndef SHMQ_CORE_TXN_H
#define SHMQ_CORE_TXN_H

#include "core/segment.h"

struct shmq__txn_item {
  const shmq__ring_view *ring;
  uint64_t position;
  uint64_t word; /* to publish: the READY word; to release: 0 */
  int64_t block; /* to release: the block to free, or -1 */
};

/* Decide and apply n <= SHMQ_COMMIT_MAX items of participant s->me. Signals nobody. */
void shmq__txn_commit(struct shmq_segment *s, const struct shmq__txn_item *items, uint32_t n);

/* Complete a decided step of participant i, whose lock the caller holds. True when there was one. */
bool shmq__txn_replay(struct shmq_segment *s, uint32_t i);

#endif
