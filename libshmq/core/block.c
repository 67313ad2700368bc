/* SPDX-License-Identifier: Apache-2.0 */
#include "core/block.h"

#include <errno.h>

#include "core/crashpoint.h"
#include "core/ring.h"
#include "core/wake.h"

int64_t shmq__block_allocate(struct shmq_segment *s) {
  uint32_t n = s->geometry.blocks;
  uint64_t mine = block_make(s->me, BLOCK_NO_RING, 0);
  for (uint32_t i = 0, at = s->block_cursor; i < n; i++, at++) {
    if (at >= n) at = 0;
    uint64_t free_word = 0;
    if (a_load_relaxed(block_word(s, at)) != 0) continue;
    if (!a_cas(block_word(s, at), &free_word, mine)) continue;
    /* If we die here the block names us and no ring: recovery frees it. */
    CRASHPOINT("block.allocated");
    s->block_cursor = at + 1;
    prefetch_to_write(block_word(s, at + 1 < n ? at + 1 : 0));
    return at;
  }
  return -EAGAIN;
}

void shmq__block_take_charge(struct shmq_segment *s, uint32_t index, uint32_t ring,
                             uint64_t position) {
  uint64_t have = a_load(block_word(s, index));
  uint64_t want = block_make(s->me, ring, position);
  /* The reference part must be this cell's; anything else was written by a damaged peer, and then
   * the block is not ours to touch. Once is enough: its former owner is done with it. */
  if (have != want && block_ring(have) == ring &&
      block_position(have) == (position & BLOCK_POSITION_MASK))
    (void)a_cas(block_word(s, index), &have, want);
}

bool shmq__block_free(struct shmq_segment *s, uint32_t index, uint32_t owner, uint32_t ring,
                      uint64_t position) {
  uint64_t have = block_make(owner, ring, position);
  if (!a_cas(block_word(s, index), &have, 0)) return false;
  if (index + 1 == s->block_cursor) s->block_cursor = index; /* our latest: the next is it again, for it is in the caches */
  event_signal(&s->header->block_freed, 1, NULL);
  return true;
}

bool shmq__block_is_referred(const struct shmq_segment *s, uint32_t index, uint64_t b) {
  if (block_ring(b) >= s->geometry.rings) return false;
  const shmq__ring_view *r = &s->rings[block_ring(b)];
  uint64_t p = block_position(b);
  uint64_t w = a_load(cell_word(r, p));
  /* The word keeps 42 bits of the position: compare what the turn and these bits share. */
  uint32_t common = (uint32_t)(BLOCK_POSITION_MASK >> r->shift) & TURN_MASK;
  if (((cell_turn(w) ^ turn_of(r, p)) & common) != 0) return false;
  if (!cell_holds_message(w) || !cell_in_block(w)) return false;
  return block_ref_glance(cell_payload(r, p)).index == index;
}
