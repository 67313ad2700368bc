/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place that repairs. Recovering participant i needs lock byte i: having it proves that i is dead
 * (or is the caller, leaving) and that nobody else repairs i; a recoverer that dies drops it too.
 *
 * Each step is a compare-and-swap from a word that only i could have left, so recovering twice, or after
 * half a recovery, changes nothing. The slot turns clean last: a recoverer's death leaves it dirty and the
 * next one starts over.
 */
#ifndef SHMQ_CORE_RECOVER_H
#define SHMQ_CORE_RECOVER_H

#include "core/segment.h"

/* Settle everything participant i holds in the whole segment, roles included, and mark its slot clean. */
void shmq__recover(struct shmq_segment *s, uint32_t i, enum shmq_reason reason);

/* The same for one queue of the living caller, whose handle closes, and the blocks that it has reserved there; the slot
 * stays as it is. */
void shmq__recover_queue(struct shmq_segment *s, uint32_t i, uint32_t queue, enum shmq_reason reason);

#endif
