/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages in place: reserve, commit, abort; lease, ack, nack; and what is not the caller's any more.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

static int fd;

static shmq *begin(uint32_t capacity) {
  shmq_queue_options queue = {.name = "a", .capacity = capacity, .message_bytes = 16};
  shmq_queue_options other = {.name = "b", .capacity = capacity, .message_bytes = 16};
  shmq_options o = {.queues = (shmq_queue_options[]){queue, other}, .queue_count = 2,
                    .participants = 4, .blocks = 2, .block_bytes = 256};
  fd = fresh_fd(&o);
  return peer(fd, "a");
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}

Test(queue_lease, a_reservation_is_invisible_until_committed) {
  shmq *q = begin(4);
  shmq_message m;
  cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq((uintptr_t)m.data % 8, 0);
  cr_assert_eq(m.size, 8);
  cr_assert_eq(m.attempts, 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  memcpy(m.data, &(uint64_t){77}, 8);
  cr_assert_eq(shmq_commit(q, &m), 0);
  cr_assert_eq(m.data, NULL, "cleared");
  cr_assert_eq(shmq_commit(q, &m), -EINVAL, "once");
  cr_assert_eq(get_number(q), 77);
  end(q);
}

Test(queue_lease, a_size_may_be_lowered_not_raised) {
  shmq *q = begin(4);
  shmq_message m;
  unsigned char out[256];
  cr_assert_eq(shmq_reserve(q, 16, &m, SHMQ_NOWAIT), 0);
  m.size = 3;
  cr_assert_eq(shmq_commit(q, &m), 0);
  cr_assert_eq(shmq_get(q, out, sizeof out, SHMQ_NOWAIT), 3);
  cr_assert_eq(shmq_reserve(q, 200, &m, SHMQ_NOWAIT), 0);
  m.size = 0;
  cr_assert_eq(shmq_commit(q, &m), 0);
  cr_assert_eq(shmq_get(q, out, sizeof out, SHMQ_NOWAIT), 0);
  for (size_t size = 16; size <= 200; size += 184) {
    cr_assert_eq(shmq_reserve(q, size, &m, SHMQ_NOWAIT), 0);
    m.size = 257;
    cr_assert_eq(shmq_commit(q, &m), -EMSGSIZE);
    cr_assert_eq(shmq_abort(q, &m), -EMSGSIZE, "abort says so too");
    m.size = size;
    cr_assert_eq(shmq_abort(q, &m), 0);
  }
  cr_assert_eq(blocks_free(fd), 2);
  end(q);
}

Test(queue_lease, an_abort_leaves_a_gap_that_takers_pass) {
  shmq *q = begin(4);
  shmq_message m;
  for (uint64_t i = 0; i < 12; i++) {
    cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(put_number(q, i), 0);
    cr_assert_eq(get_number(q), -EAGAIN);
    cr_assert_eq(shmq_abort(q, &m), 0);
    cr_assert_eq(get_number(q), (int64_t)i);
  }
  cr_assert_eq(queue_info(fd, 0).aborted, 12);
  cr_assert_eq(queue_info(fd, 0).puts, 12);
  end(q);
}

/* Depth is what a taker could get: neither what is only reserved nor what was given up. */
Test(queue_lease, depth_counts_messages_only) {
  shmq *q = begin(8);
  shmq_message m[3];
  for (int i = 0; i < 3; i++) cr_assert_eq(shmq_reserve(q, 8, &m[i], SHMQ_NOWAIT), 0);
  cr_assert_eq(queue_info(fd, 0).depth, 0);
  cr_assert_eq(queue_info(fd, 0).reserved, 3);
  cr_assert_eq(shmq_depth(q), 0, "reserved: %ld", (long)shmq_depth(q));
  cr_assert_eq(shmq_abort(q, &m[0]), 0);
  cr_assert_eq(shmq_commit(q, &m[1]), 0);
  cr_assert_eq(shmq_depth(q), 1, "given up: %ld", (long)shmq_depth(q));
  cr_assert_eq(queue_info(fd, 0).depth, 1);
  cr_assert_eq(shmq_commit(q, &m[2]), 0);
  cr_assert_eq(shmq_depth(q), 2);
  cr_assert_eq(shmq_lease(q, &m[0], SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_depth(q), 1, "leased");
  cr_assert_eq(shmq_nack(q, &m[0]), 0);
  cr_assert_eq(shmq_depth(q), 2, "returned");
  end(q);
}

Test(queue_lease, leased_messages_are_delivered_to_nobody_else) {
  shmq *q = begin(4), *other = peer(fd, "a");
  shmq_message m, n;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(other, &n, SHMQ_NOWAIT), 0);
  cr_assert_eq(number_in(&m), 1);
  cr_assert_eq(number_in(&n), 2);
  cr_assert_eq(shmq_lease(other, &n, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(queue_info(fd, 0).leased, 2);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(shmq_ack(q, &m), -EINVAL, "once");
  shmq_close(other);
  end(q);
}

Test(queue_lease, acks_in_any_order_free_the_ring_in_order) {
  shmq *q = begin(4);
  for (int lap = 0; lap < 5; lap++) {
    shmq_message m[4];
    for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
    cr_assert_eq(shmq_lease_batch(q, m, 4, SHMQ_NOWAIT), 4);
    for (int i = 3; i > 0; i--) {
      cr_assert_eq(shmq_ack(q, &m[i]), 0);
      cr_assert_eq(put_number(q, 9), -EAGAIN, "the oldest is still held");
    }
    cr_assert_eq(shmq_ack(q, &m[0]), 0);
  }
  end(q);
}

Test(queue_lease, nacked_messages_come_first_and_count_attempts) {
  shmq *q = begin(4);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  for (uint32_t attempt = 1; attempt <= 70; attempt++) {
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m), 1);
    cr_assert_eq(m.attempts, attempt > 64 ? 64 : attempt, "saturates: %u", m.attempts);
    cr_assert_eq(shmq_nack(q, &m), 0);
  }
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(get_number(q), 2);
  cr_assert_eq(queue_info(fd, 0).redeliveries, 70);
  end(q);
}

/* Returned cells anywhere behind head, in every combination, are found, each once. */
Test(queue_lease, every_pattern_of_nacks_is_redelivered) {
  for (unsigned nacked = 0; nacked < 64; nacked++) {
    shmq *q = begin(8);
    wind_to(q->rings, wrap_position(q->rings, nacked));
    shmq_message m[6];
    for (uint64_t i = 0; i < 6; i++) cr_assert_eq(put_number(q, i), 0);
    cr_assert_eq(shmq_lease_batch(q, m, 6, SHMQ_NOWAIT), 6);
    for (int i = 0; i < 6; i++)
      cr_assert_eq(nacked >> i & 1 ? shmq_nack(q, &m[i]) : shmq_ack(q, &m[i]), 0);
    cr_assert_eq(shmq_depth(q), __builtin_popcount(nacked));
    unsigned seen = 0;
    int64_t n;
    while ((n = get_number(q)) >= 0) seen |= 1u << n;
    cr_assert_eq(n, -EAGAIN);
    cr_assert_eq(seen, nacked);
    cr_assert_eq(q->queue->returned_seen, q->queue->returned_seq, "the next take need not scan");
    end(q);
  }
}

Test(queue_lease, closing_gives_back_what_the_handle_held) {
  shmq *q = begin(4), *closing = peer(fd, "a");
  shmq_message m;
  MUST(shmq_join_segment(q->segment, NULL, NULL));
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(closing, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(closing, 8, &(shmq_message){0}, SHMQ_NOWAIT), 0);
  shmq_close(closing);
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(shmq_depth(q), 0);
  end(q);
}

/* Of several handles in one attachment, the one that closes gives back its own queue's only. */
Test(queue_lease, closing_one_queue_leaves_the_others) {
  shmq *q = begin(4);
  shmq *b = opened(q->segment, "b");
  shmq_message m, n;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(b, 2), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(b, &n, SHMQ_NOWAIT), 0);
  shmq_close(b);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(queue_info(fd, 1).returned, 1);
  end(q);
}

/* Two handles of one queue in one attachment: closing one must not rob the other of what it holds. */
Test(queue_lease, closing_one_handle_of_a_queue_keeps_the_others_messages) {
  shmq *q = begin(4), *second = opened(q->segment, "a");
  shmq_message m, n;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(second, &n, SHMQ_NOWAIT), 0);
  shmq_close(second);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(shmq_ack(q, &n), 0, "what the closed one held is the other's now");
  cr_assert_eq(put_number(q, 3), 0);
  second = opened(q->segment, "a");
  cr_assert_eq(shmq_lease(second, &m, SHMQ_NOWAIT), 0);
  shmq_close(second);
  shmq_close(opened(q->segment, "b"));
  shmq *b = opened(q->segment, "b");
  shmq_close(q);
  cr_assert_eq(queue_info(fd, 0).returned, 1, "with the last handle it is given back");
  q = b;
  end(q);
}

/* And must not give its role to another participant while it goes on. */
Test(queue_lease, closing_one_handle_of_a_queue_keeps_the_role_safe) {
  shmq_queue_options o = {.capacity = 4, .message_bytes = 8,
                          .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
  shmq *q = fresh_queue(&o, &fd), *second = opened(q->segment, NULL), *other = peer(fd, NULL);
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(second, 2), 0);
  shmq_close(second);
  cr_assert_eq(put_number(other, 3), -EBUSY, "two producers at once");
  cr_assert_eq(put_number(q, 3), 0);
  shmq *third = opened(q->segment, NULL);
  shmq_close(q);
  cr_assert_eq(put_number(other, 4), -EBUSY);
  cr_assert_eq(put_number(third, 4), 0);
  cr_assert_eq(get_number(third), 1);
  shmq_close(third);
  cr_assert_eq(put_number(other, 5), 0, "the last one has closed");
  shmq_close(other);
  close(fd);
}

/* ---- messages shown to the wrong call ---- */

Test(queue_lease, calls_refuse_messages_in_the_wrong_state) {
  shmq *q = begin(4);
  shmq_message none = {0}, lease, reservation;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(q, 8, &reservation, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_ack(q, &none), -EINVAL);
  cr_assert_eq(shmq_ack(q, &reservation), -EINVAL);
  cr_assert_eq(shmq_nack(q, &reservation), -EINVAL);
  cr_assert_eq(shmq_commit(q, &lease), -EINVAL);
  cr_assert_eq(shmq_abort(q, &lease), -EINVAL);
  cr_assert_eq(shmq_ack(q, NULL), -EINVAL);
  cr_assert_eq(shmq_ack(NULL, &lease), -EINVAL);
  cr_assert_eq(shmq_nack_with(q, &lease, -1, NULL), -EINVAL);
  cr_assert_eq(shmq_nack_with(q, &lease, 1, NULL), -EOPNOTSUPP, "not timed");
  cr_assert_eq(shmq_reserve(q, 8, NULL, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_lease(q, NULL, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_lease_batch(q, &lease, 0, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_commit(q, &reservation), 0);
  cr_assert_eq(shmq_ack(q, &lease), 0);
  end(q);
}

/* Positions and words of two queues look alike; a message of one must not settle a cell of the other. */
Test(queue_lease, a_message_of_another_queue_is_refused) {
  shmq *q = begin(4), *b = opened(q->segment, "b");
  shmq_message m, n;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(b, 2), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_ack(b, &m), -EINVAL);
  cr_assert_eq(shmq_nack(b, &m), -EINVAL);
  cr_assert_eq(shmq_reserve(q, 8, &n, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_commit(b, &n), -EINVAL);
  cr_assert_eq(shmq_abort(b, &n), -EINVAL);
  cr_assert_eq(shmq_abort(q, &n), 0);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(get_number(b), 2);
  shmq_close(b);
  end(q);
}

/* Nor may another attachment settle what this one holds. */
Test(queue_lease, a_message_of_another_attachment_is_refused) {
  shmq *q = begin(4), *other = peer(fd, "a");
  shmq_message m, n;
  MUST(shmq_join_segment(other->segment, NULL, NULL));
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(q, 8, &n, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_ack(other, &m), -ESTALE);
  cr_assert_eq(shmq_commit(other, &n), -ESTALE);
  cr_assert_eq(shmq_abort(q, &n), 0);
  cr_assert_eq(shmq_ack(q, &m), 0);
  shmq_close(other);
  end(q);
}
