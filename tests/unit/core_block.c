/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks: who answers for one, and that neither a leak nor a double free gets past the exact reference.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

enum { BLOCKS = 4, BLOCK_BYTES = 256, CAPACITY = 4 };
static int fd;

static shmq *begin(void) {
  static const shmq_queue_options queue = {.capacity = CAPACITY, .message_bytes = 16};
  const shmq_options o = {.queues = &queue, .queue_count = 1, .participants = 4, .blocks = BLOCKS,
                          .block_bytes = BLOCK_BYTES};
  fd = fresh_fd(&o);
  shmq *q = peer(fd, NULL);
  MUST(shmq_join_segment(q->segment, NULL, NULL));
  return q;
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}

static int put_large(shmq *q, uint64_t n) {
  unsigned char data[BLOCK_BYTES];
  memset(data, (int)n, sizeof data);
  return shmq_put(q, data, sizeof data, SHMQ_NOWAIT);
}
static void check_large(const shmq_message *m, uint64_t n) {
  cr_assert_eq(m->size, BLOCK_BYTES);
  cr_assert_eq((uintptr_t)m->data % 64, 0);
  for (size_t i = 0; i < m->size; i++) cr_assert_eq(((unsigned char *)m->data)[i], (unsigned char)n);
}

Test(core_block, each_is_allocated_once) {
  shmq *q = begin();
  shmq_segment *s = q->segment;
  bool seen[BLOCKS] = {false};
  for (int i = 0; i < BLOCKS; i++) {
    int64_t b = shmq__block_allocate(s);
    cr_assert(b >= 0 && b < BLOCKS && !seen[b]);
    seen[b] = true;
    cr_assert_eq(block_owner(*block_word(s, (uint32_t)b)), s->me);
    cr_assert_eq(block_ring(*block_word(s, (uint32_t)b)), BLOCK_NO_RING);
  }
  cr_assert_eq(shmq__block_allocate(s), -EAGAIN);
  cr_assert(shmq__block_free(s, 2, s->me, BLOCK_NO_RING, 0));
  cr_assert(!shmq__block_free(s, 2, s->me, BLOCK_NO_RING, 0), "not twice");
  cr_assert_eq(shmq__block_allocate(s), 2);
  end(q);
}

Test(core_block, only_the_exact_reference_frees_or_takes_charge) {
  shmq *q = begin();
  shmq_segment *s = q->segment;
  int64_t b = shmq__block_allocate(s);
  block_refer(s, (uint32_t)b, s->me, 0, 77);
  uint64_t word = *block_word(s, (uint32_t)b);
  cr_assert(!shmq__block_free(s, (uint32_t)b, s->me + 1, 0, 77));
  cr_assert(!shmq__block_free(s, (uint32_t)b, s->me, 1, 77));
  cr_assert(!shmq__block_free(s, (uint32_t)b, s->me, 0, 78));
  shmq__block_take_charge(s, (uint32_t)b, 0, 78);
  cr_assert_eq(*block_word(s, (uint32_t)b), word);
  s->me++;
  shmq__block_take_charge(s, (uint32_t)b, 0, 77);
  cr_assert_eq(block_owner(*block_word(s, (uint32_t)b)), s->me);
  cr_assert(shmq__block_free(s, (uint32_t)b, s->me, 0, 77));
  s->me--;
  end(q);
}

Test(core_block, a_message_in_a_block_goes_round_over_every_wrap) {
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    shmq *q = begin(), *c = peer(fd, NULL);
    wind_to(q->rings, wrap_position(q->rings, wrap));
    for (uint64_t i = 0; i < 5 * CAPACITY; i++) {
      shmq_message m;
      cr_assert_eq(put_large(q, i), 0);
      cr_assert_eq(shmq_lease(c, &m, SHMQ_NOWAIT), 0);
      check_large(&m, i);
      cr_assert_eq(blocks_free(fd), BLOCKS - 1);
      cr_assert_eq(audit(fd).leaked_blocks, 0);
      cr_assert_eq(shmq_ack(c, &m), 0);
      cr_assert_eq(blocks_free(fd), BLOCKS);
    }
    shmq_close(c);
    end(q);
  }
}

Test(core_block, no_block_is_as_full_as_no_cell) {
  shmq *q = begin();
  for (int i = 0; i < BLOCKS; i++) cr_assert_eq(shmq__block_allocate(q->segment), i);
  cr_assert_eq(put_large(q, 1), -EAGAIN);
  cr_assert_eq(put_number(q, 1), 0, "small ones need none");
  int64_t until = shmq_after_ns(5 * MILLISECOND);
  unsigned char data[BLOCK_BYTES] = {0};
  cr_assert_eq(shmq_put(q, data, sizeof data, until), -ETIMEDOUT);
  end(q);
}

Test(core_block, a_full_ring_keeps_no_block) {
  shmq *q = begin();
  for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(put_large(q, 9), -EAGAIN);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end(q);
}

Test(core_block, too_long_for_a_block) {
  shmq *q = begin();
  unsigned char data[BLOCK_BYTES + 1] = {0};
  cr_assert_eq(shmq_put(q, data, sizeof data, SHMQ_NOWAIT), -EMSGSIZE);
  cr_assert_eq(shmq_message_limit(q), BLOCK_BYTES);
  end(q);
}

Test(core_block, abort_and_nack_keep_the_balance) {
  shmq *q = begin();
  shmq_message m;
  cr_assert_eq(shmq_reserve(q, 200, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  cr_assert_eq(shmq_abort(q, &m), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  cr_assert_eq(put_large(q, 3), 0);
  for (uint32_t attempt = 1; attempt < 5; attempt++) {
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(m.attempts, attempt);
    check_large(&m, 3);
    cr_assert_eq(shmq_nack(q, &m), 0);
    cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  }
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end(q);
}

/* What the dead answered for: allocated only, reserved, published and not taken, leased. */
Test(core_block, the_deads_blocks_are_freed_unless_a_cell_refers_to_them) {
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    shmq *q = begin(), *c = peer(fd, NULL);
    wind_to(q->rings, wrap_position(q->rings, wrap));
    shmq_message m;
    cr_assert_eq(put_large(c, 1), 0);
    cr_assert_eq(put_large(c, 2), 0);
    cr_assert_eq(shmq_reserve(c, 200, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_lease(c, &m, SHMQ_NOWAIT), 0);
    cr_assert_geq(shmq__block_allocate(c->segment), 0);
    cr_assert_eq(blocks_free(fd), 0);
    die(c);
    cr_assert_eq(audit(fd).held_by_dead, 4, "two cells, and two blocks that no cell refers to");
    cr_assert_eq(shmq_recover(q->segment), 1);
    cr_assert_eq(blocks_free(fd), 2);
    for (uint64_t n = 1; n <= 2; n++) {
      cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
      check_large(&m, n);
      cr_assert_eq(m.attempts, n == 1 ? 2 : 1);
      cr_assert_eq(shmq_ack(q, &m), 0);
    }
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), -EAGAIN);
    cr_assert_eq(blocks_free(fd), BLOCKS);
    end(q);
  }
}

/* Freed the cell, and died before it freed the block. */
Test(core_block, a_block_without_its_cell_is_garbage) {
  shmq *q = begin(), *c = peer(fd, NULL);
  shmq_message m;
  struct shmq__held held;
  cr_assert_eq(put_large(q, 1), 0);
  cr_assert_eq(shmq_lease(c, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq__message_held(c, &m, HOLD_LEASED, &held), 0);
  atomic_store(cell_word(held.ring, held.position), cell_free(next_turn(held.ring, held.position)));
  die(c);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  cr_assert_eq(shmq_depth(q), 0);
  end(q);
}

/* Shared bytes that make no sense: an error, nothing outside is read, and what is behind is delivered. */
Test(core_block, a_damaged_reference_does_not_stop_those_behind) {
  const struct shmq__block_ref bad[] = {{BLOCKS, 8}, {UINT32_MAX, 8}, {0, BLOCK_BYTES + 1},
                                        {0, UINT32_MAX}};
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
    shmq *q = begin();
    shmq_message m;
    cr_assert_eq(put_large(q, 1), 0);
    cr_assert_eq(put_number(q, 5), 0);
    memcpy(cell_payload(q->rings, 0), &bad[i], sizeof bad[i]);
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), -EBADMSG);
    cr_assert_eq(get_number(q), 5);
    end(q);
  }
}
