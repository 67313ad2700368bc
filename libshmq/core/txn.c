/* SPDX-License-Identifier: Apache-2.0 */
#include "core/txn.h"

#include <string.h>

#include "core/block.h"
#include "core/crashpoint.h"

static uint64_t where_make(const shmq__ring_view *r, uint64_t position, unsigned what) {
  return (position & POSITION_MASK) << 16 | (uint64_t)r->id << 1 | what;
}

static void publish(struct shmq_segment *s, const shmq__ring_view *r, uint64_t p, uint64_t word,
                    uint32_t owner) {
  uint64_t free_word = cell_free(turn_of(r, p));
  if (a_load(cell_word(r, p)) != free_word) return;
  if (cell_in_block(word)) {
    struct shmq__block_ref ref;
    memcpy(&ref, cell_payload(r, p), sizeof ref);
    if (ref.index >= s->geometry.blocks) return;
    /* A forwarded block still names its old cell. Before the publication it is the committer's. */
    uint64_t have = a_load(block_word(s, ref.index));
    if (block_owner(have) == owner)
      (void)a_cas(block_word(s, ref.index), &have, block_make(owner, r->id, p));
  }
  CRASHPOINT("txn.publish");
  (void)a_cas(cell_word(r, p), &free_word, word);
}

static void release(struct shmq_segment *s, const shmq__ring_view *r, uint64_t p, uint64_t block,
                    uint32_t owner) {
  uint64_t w = a_load(cell_word(r, p));
  bool held = cell_kind(w) == CELL_READY || (cell_kind(w) == CELL_LEASED && cell_owner(w) == owner);
  if (held && cell_turn(w) == turn_of(r, p)) (void)a_cas(cell_word(r, p), &w, cell_free(next_turn(r, p)));
  CRASHPOINT("txn.released");
  if (block > 0 && block <= s->geometry.blocks)
    (void)shmq__block_free(s, (uint32_t)(block - 1), owner, r->id, p);
}

static void apply_entry(struct shmq_segment *s, uint32_t i, uint32_t k, unsigned what) {
  struct shmq__slot *slot = slot_of(s, i);
  uint64_t where = a_load(&slot->redo[k].where), word = a_load(&slot->redo[k].word);
  uint32_t ring = (uint32_t)(where >> 1) & 0xfffu;
  if ((where & 1) != what || ring >= s->geometry.rings) return;
  if (what == REDO_PUBLISH)
    publish(s, &s->rings[ring], where >> 16, word, i);
  else
    release(s, &s->rings[ring], where >> 16, word, i);
}

/* Publications first: whoever sees an input gone sees the outputs there. */
static void apply(struct shmq_segment *s, uint32_t i) {
  struct shmq__slot *slot = slot_of(s, i);
  uint32_t n = a_load(&slot->redo_count);
  if (n > SHMQ_COMMIT_MAX) n = SHMQ_COMMIT_MAX;
  for (uint32_t k = 0; k < n; k++) apply_entry(s, i, k, REDO_PUBLISH);
  for (uint32_t k = 0; k < n; k++) apply_entry(s, i, k, REDO_FREE);
  a_store(&slot->redo_state, (uint32_t)REDO_NONE);
}

void shmq__txn_commit(struct shmq_segment *s, const struct shmq__txn_item *items, uint32_t n) {
  struct shmq__slot *slot = s->mine;
  for (uint32_t k = 0; k < n; k++) {
    const struct shmq__txn_item *item = &items[k];
    unsigned what = item->word ? REDO_PUBLISH : REDO_FREE;
    a_store_relaxed(&slot->redo[k].where, where_make(item->ring, item->position, what));
    a_store_relaxed(&slot->redo[k].word, item->word ? item->word : (uint64_t)(item->block + 1));
  }
  a_store_relaxed(&slot->redo_count, n);
  CRASHPOINT("txn.written"); /* death here rolls back */
  a_store(&slot->redo_state, (uint32_t)REDO_COMMITTED);
  CRASHPOINT("txn.committed"); /* death from here on rolls forward */
  apply(s, s->me);
}

bool shmq__txn_replay(struct shmq_segment *s, uint32_t i) {
  if (a_load(&slot_of(s, i)->redo_state) != REDO_COMMITTED) return false;
  apply(s, i);
  return true;
}
