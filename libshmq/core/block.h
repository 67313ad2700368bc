/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks for messages longer than a cell. A block's word names who answers for it and the cell that
 * refers to it.
 *
 *   B1  Whoever takes charge of a message in a block writes itself into the block's word before it can free
 *       the cell.
 *   B2  A block is garbage if and only if its owner is dead and the cell named in its word does not refer
 *       to it. Freeing the cell comes first and freeing the block after, so no cell ever refers to a
 *       free block.
 *   B3  Every change is a compare-and-swap from the exact reference, or a store by the living owner of a
 *       block that no cell refers to yet.
 */
#ifndef SHMQ_CORE_BLOCK_H
#define SHMQ_CORE_BLOCK_H

#include "core/segment.h"

/* Allocate a block for this participant. Returns its index or -EAGAIN. O(blocks) at worst. */
int64_t shmq__block_allocate(struct shmq_segment *s);

/* Name the cell that will refer to a block of the caller's, before the cell is published. */
static inline void block_refer(struct shmq_segment *s, uint32_t index, uint32_t owner, uint32_t ring,
                               uint64_t position) {
  a_store(block_word(s, index), block_make(owner, ring, position));
}

/* B1: the caller has taken the message at (ring, position). */
void shmq__block_take_charge(struct shmq_segment *s, uint32_t index, uint32_t ring,
                             uint64_t position);

/* Free a block that `owner` answers for through (ring, position), after the cell was freed; no effect
 * when the block has moved on. Returns true when it was freed. */
bool shmq__block_free(struct shmq_segment *s, uint32_t index, uint32_t owner, uint32_t ring,
                      uint64_t position);

/* Does the cell that word `b` names refer to block `index`? */
bool shmq__block_is_referred(const struct shmq_segment *s, uint32_t index, uint64_t b);

static inline unsigned char *block_memory(const struct shmq_segment *s, uint32_t index) {
  return s->blocks + (uint64_t)index * s->geometry.block_bytes;
}

#endif
