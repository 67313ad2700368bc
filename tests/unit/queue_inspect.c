/* SPDX-License-Identifier: Apache-2.0
 *
 * Read-only views: every state that a cell can be in, who owns it, and what an audit says of it. Looking
 * changes nothing and needs nobody's consent.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "support/fresh.h"

enum { BLOCK_BYTES = 256 };
static int fd;

static shmq *begin(void) {
  static const shmq_queue_options queue = {.capacity = 8, .message_bytes = 16, .flags = SHMQ_TIMED,
                                           .priorities = 2};
  const shmq_options o = {.queues = &queue, .queue_count = 1, .participants = 4, .blocks = 2,
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

Test(queue_inspect, every_state_is_told) {
  shmq *q = begin(), *other = peer(fd, NULL);
  shmq_put_options high = {.priority = 1};
  int64_t later = shmq_after_ns(INT64_C(3600000000000));
  shmq_put_options delayed = {.not_before_ns = later};
  unsigned char large[200];
  memset(large, 9, sizeof large);
  shmq_message leased, again, reserved, given_up;
  uint64_t n = 1;
  cr_assert_eq(put_number(q, 1), 0);                                            /* will be leased */
  cr_assert_eq(put_number(q, 2), 0);                                            /* leased again */
  cr_assert_eq(shmq_lease(other, &leased, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(q, &again, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_nack(q, &again), 0);
  cr_assert_eq(shmq_lease(q, &again, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_put_with(q, &n, 8, &delayed, SHMQ_NOWAIT), 0);
  cr_assert_eq(get_number(q), -EAGAIN, "parked");
  cr_assert_eq(shmq_reserve(other, 8, &reserved, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(q, 8, &given_up, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_abort(q, &given_up), 0);
  cr_assert_eq(shmq_put(q, large, sizeof large, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_put_with(q, &n, 8, &high, SHMQ_NOWAIT), 0);

  const struct {
    enum shmq_cell_state state;
    uint32_t owner;
    uint64_t size;
  } expected[] = {{SHMQ_CELL_READY, 0, 8},
                  {SHMQ_CELL_LEASED, other->segment->me, 8},
                  {SHMQ_CELL_LEASED, q->segment->me, 8},
                  {SHMQ_CELL_RETURNED, 0, 8},
                  {SHMQ_CELL_RESERVED, other->segment->me, 0},
                  {SHMQ_CELL_TOMBSTONE, 0, 0},
                  {SHMQ_CELL_READY, 0, 200}};
  shmq_view *view;
  MUST(shmq_view_open_fd(&view, fd));
  shmq_cell_info cell;
  uint64_t cursor = 0;
  unsigned char data[300];
  for (unsigned i = 0; i < 7; i++) {
    memset(data, 0, sizeof data);
    cr_assert_eq(shmq_view_next(view, 0, &cursor, &cell, data, sizeof data), 1);
    cr_assert_eq(cell.state, expected[i].state, "cell %u is in state %d", i, cell.state);
    cr_assert_eq(cell.owner, expected[i].owner, "cell %u", i);
    cr_assert_eq(cell.size, expected[i].size, "cell %u", i);
    if (cell.size == 200) cr_assert_arr_eq(data, large, 200);
    cr_assert_eq(cell.in_block, cell.size == 200);
    if (i == 3) cr_assert_eq(cell.not_before_ns, later);
    if (i == 2) cr_assert_eq(cell.attempts, 1);
  }
  cr_assert_eq(shmq_view_next(view, 0, &cursor, &cell, NULL, 0), 0);
  cr_assert_eq(shmq_view_next(view, 1, &cursor, &cell, NULL, 0), -ENOENT);

  shmq_queue_info info;
  MUST(shmq_view_queue(view, 0, &info));
  cr_assert_eq(info.depth, 3);
  cr_assert_eq(info.leased, 2);
  cr_assert_eq(info.reserved, 1);
  cr_assert_eq(info.returned, 1);
  cr_assert_eq(info.delayed, 1);
  cr_assert_eq(info.aborted, 1);
  cr_assert_eq(info.redeliveries, 1);
  cr_assert_eq(info.damaged, 0);
  cr_assert_eq(shmq_view_queue(view, 1, &info), -ENOENT);
  cr_assert_eq(shmq_ack(q, &again), 0);
  cr_assert_eq(shmq_ack(other, &leased), 0);
  cr_assert_eq(shmq_abort(other, &reserved), 0);
  shmq_view_close(view);
  shmq_close(other);
  end(q);
}

/* A view's mapping cannot be written, and looking at everything leaves every byte as it was. */
Test(queue_inspect, looking_changes_nothing) {
  shmq *q = begin(), *victim = peer(fd, NULL);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  cr_assert_eq(shmq_lease(victim, &m, SHMQ_NOWAIT), 0);
  die(victim);
  size_t bytes;
  const void *memory = shmq_segment_memory(q->segment, &bytes);
  unsigned char *before = malloc(bytes);
  memcpy(before, memory, bytes);
  shmq_audit a = audit(fd);
  cr_assert_eq(a.dead_participants, 1);
  cr_assert_eq(a.held_by_dead, 1);
  cr_assert_eq(a.unexplained, 0);
  (void)queue_info(fd, 0);
  (void)blocks_free(fd);
  cr_assert_eq(memcmp(before, memory, bytes), 0);
  free(before);
  cr_assert_eq(shmq_recover(q->segment), 1);
  a = audit(fd);
  cr_assert_eq(a.dead_participants + a.held_by_dead, 0);
  end(q);
}

/* Words that no protocol writes are damage, and cells that nobody owns are unexplained. */
Test(queue_inspect, damage_is_told) {
  shmq *q = begin();
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  atomic_store(cell_word(q->rings, 0), cell_make(0, 8, 0, 0, false, (enum shmq__kind)6));
  atomic_store(cell_word(q->rings, 1), cell_make(99, 8, 0, 0, false, CELL_READY));
  cr_assert_eq(audit(fd).damaged, 2);
  cr_assert_eq(queue_info(fd, 0).damaged, 2);
  atomic_store(cell_word(q->rings, 0), cell_make(0, 8, 3, 0, false, CELL_LEASED));
  atomic_store(cell_word(q->rings, 1), cell_make(0, 8, 1000, 0, false, CELL_LEASED));
  cr_assert_eq(audit(fd).unexplained, 2, "leased to slots that are empty, or are not");
  end(q);
}

Test(queue_inspect, a_leaked_block_is_told_and_mended_by_nobody_alive) {
  shmq *q = begin();
  atomic_store(block_word(q->segment, 1), block_make(3, BLOCK_NO_RING, 0));
  cr_assert_eq(audit(fd).leaked_blocks, 1);
  atomic_store(block_word(q->segment, 1), block_make(q->segment->me, BLOCK_NO_RING, 0));
  cr_assert_eq(audit(fd).leaked_blocks, 0, "its owner lives and may be about to use it");
  atomic_store(block_word(q->segment, 1), 0);
  end(q);
}

static int note(const char *found, void *ctx) { return strcmp(found, ctx) == 0 ? 42 : 0; }

Test(queue_inspect, segments_are_listed) {
  char name[64];
  snprintf(name, sizeof name, "t-inspect-%d", getpid());
  cr_assert_eq(shmq_list(NULL, NULL), -EINVAL);
  cr_assert_eq(shmq_list(note, name), 0);
  cr_assert_eq(shmq_create(name, NULL), 0);
  cr_assert_eq(shmq_list(note, name), 42);
  shmq_view *view;
  int rc = shmq_view_open(&view, name);
  cr_assert_eq(shmq_unlink(name), 0);
  cr_assert_eq(rc, 0);
  shmq_segment_info info;
  cr_assert_eq(shmq_view_segment(view, &info), 0);
  cr_assert_eq(info.mode, 0600);
  cr_assert_eq(info.queues, 1);
  cr_assert_eq(info.participants, 0);
  cr_assert_eq(info.participants_max, 64);
  cr_assert_eq((int64_t)info.bytes, shmq_segment_bytes(NULL));
  cr_assert_gt(info.created_ns, 0);
  shmq_view_close(view);
  cr_assert_eq(shmq_view_open(&view, name), -ENOENT);
  cr_assert_eq(shmq_view_open(&view, "a/b"), -EINVAL);
  shmq_view_close(NULL);
}
