/* SPDX-License-Identifier: Apache-2.0
 *
 * The packed words: every field survives its neighbours, and arithmetic wraps where it must.
 */
#include <criterion/criterion.h>

#include "core/word.h"

Test(core_word, cell_fields_do_not_touch_each_other) {
  const uint32_t turns[] = {0, 1, 0x155555, TURN_MASK};
  const uint32_t lengths[] = {0, 1, 0x2aaaaa, LENGTH_MASK};
  const uint32_t owners[] = {0, 1, 0x155, 1023};
  const uint32_t attempts[] = {0, 1, 42, 63};
  for (unsigned i = 0; i < 4 * 4 * 4 * 4 * 2 * 5; i++) {
    uint32_t t = turns[i & 3], l = lengths[i >> 2 & 3], o = owners[i >> 4 & 3];
    uint32_t a = attempts[i >> 6 & 3];
    bool b = i >> 8 & 1;
    enum shmq__kind k = (enum shmq__kind)(i >> 9);
    uint64_t w = cell_make(t, l, o, a, b, k);
    cr_assert_eq(cell_turn(w), t);
    cr_assert_eq(cell_length(w), l);
    cr_assert_eq(cell_owner(w), o);
    cr_assert_eq(cell_attempts(w), a);
    cr_assert_eq(cell_in_block(w), b);
    cr_assert_eq(cell_kind(w), k);
  }
}

Test(core_word, a_new_cell_is_free_of_turn_0) {
  cr_assert_eq(cell_free(0), 0);
  cr_assert_eq(cell_free(TURN_MASK + 1), 0, "the turn wraps");
  cr_assert_neq(cell_free(1), cell_tombstone(1));
}

Test(core_word, becoming_keeps_the_message_and_saturates_attempts) {
  uint64_t ready = cell_make(7, 300, 0, 5, true, CELL_READY);
  uint64_t leased = cell_become(ready, CELL_LEASED, 9, 6);
  cr_assert_eq(leased, cell_make(7, 300, 9, 6, true, CELL_LEASED));
  cr_assert_eq(cell_attempts(cell_become(ready, CELL_RETURNED, 0, 64)), ATTEMPTS_LIMIT);
  cr_assert_eq(cell_turn(cell_become(ready, CELL_RETURNED, 0, 1000)), 7, "no carry into the turn");
}

Test(core_word, kinds_that_hold_a_message) {
  const bool holds[] = {[CELL_READY] = true, [CELL_RETURNED] = true, [CELL_LEASED] = true, [7] = false};
  for (unsigned k = 0; k < 8; k++) cr_assert_eq(cell_holds_message(k), holds[k], "kind %u", k);
}

Test(core_word, index_holds_position_run_and_owner) {
  for (uint32_t run = 1; run <= 64; run++) {
    uint64_t x = index_make(POSITION_MASK, run, 1023);
    cr_assert_eq(index_position(x), POSITION_MASK);
    cr_assert_eq(index_run(x), run);
    cr_assert_eq(index_owner(x), 1023);
    x = index_make(0, run, 0);
    cr_assert_eq(index_position(x), 0);
    cr_assert_eq(index_run(x), run);
    cr_assert_eq(index_owner(x), 0);
  }
  cr_assert_eq(index_position(index_make(POSITION_MASK + 1, 1, 1)), 0, "a position wraps");
  cr_assert_eq(index_owner(0), 0, "a new index word names nobody");
}

Test(core_word, positions_wrap_both_ways) {
  cr_assert_eq(position_add(POSITION_MASK, 1), 0);
  cr_assert_eq(position_sub(0, 1), POSITION_MASK);
  cr_assert_eq(position_sub(3, POSITION_MASK), 4);
  cr_assert_eq(position_sub(position_add(POSITION_MASK - 5, 64), 64), POSITION_MASK - 5);
}

Test(core_word, record_and_block_words) {
  uint64_t r = record_make(POSITION_MASK - 1, 1023);
  cr_assert_eq(record_position(r), POSITION_MASK - 1);
  cr_assert_eq(record_owner(r), 1023);
  uint64_t b = block_make(1023, 1023, BLOCK_POSITION_MASK);
  cr_assert_eq(block_owner(b), 1023);
  cr_assert_eq(block_ring(b), 1023);
  cr_assert_eq(block_position(b), BLOCK_POSITION_MASK);
  b = block_make(1, BLOCK_NO_RING, 0);
  cr_assert_eq(block_ring(b), BLOCK_NO_RING);
  cr_assert_neq(b, 0, "an allocated block is not a free one");
  cr_assert_eq(block_position(block_make(1, 0, BLOCK_POSITION_MASK + 1)), 0, "42 bits, no carry");
}
