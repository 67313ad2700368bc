/* SPDX-License-Identifier: Apache-2.0
 *
 * The delivery limit: what was delivered too often, or too late, goes to the dead letter queue with the
 * cause, once, and is lost nowhere on its way.
 */
#include <criterion/criterion.h>
#include <sys/wait.h>

#include "support/fresh.h"

enum { BLOCKS = 4, BLOCK_BYTES = 256 };
static int fd;
static shmq *dead;

static shmq *begin(uint32_t max_attempts, uint32_t flags, uint32_t dead_capacity) {
  shmq_queue_options queues[] = {
      {.name = "jobs", .capacity = 8, .message_bytes = 16, .max_attempts = max_attempts,
       .dead_letter = "dead", .flags = flags},
      {.name = "dead", .capacity = dead_capacity, .message_bytes = 16}};
  shmq_options o = {.queues = queues, .queue_count = 2, .participants = 4, .blocks = BLOCKS,
                    .block_bytes = BLOCK_BYTES};
  fd = fresh_fd(&o);
  shmq *q = peer(fd, "jobs");
  dead = opened(q->segment, "dead");
  MUST(shmq_join_segment(q->segment, NULL, NULL));
  return q;
}
static void end(shmq *q) {
  shmq_close(dead);
  shmq_close(q);
  close(fd);
}

static void nack_times(shmq *q, uint64_t number, uint32_t times) {
  shmq_message m;
  for (uint32_t attempt = 1; attempt <= times; attempt++) {
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m), number);
    cr_assert_eq(m.attempts, attempt);
    cr_assert_eq(shmq_nack(q, &m), 0);
  }
}

Test(queue_dead_letter, the_limit_is_the_number_of_deliveries) {
  const uint32_t limits[] = {1, 2, 3, SHMQ_ATTEMPTS_MAX};
  for (unsigned i = 0; i < 4; i++) {
    shmq *q = begin(limits[i], 0, 8);
    shmq_message m;
    cr_assert_eq(put_number(q, 7), 0);
    nack_times(q, 7, limits[i]);
    cr_assert_eq(get_number(q), -EAGAIN, "not delivered once more");
    cr_assert_eq(shmq_lease(dead, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m), 7);
    cr_assert_eq(m.attempts, 1, "of the dead letter");
    shmq_cause cause;
    cr_assert_eq(shmq_message_cause(dead, &m, &cause), 0);
    cr_assert_eq(cause.attempts, limits[i]);
    cr_assert_eq(cause.reason, SHMQ_REASON_NACKED);
    cr_assert_eq(cause.pid, getpid());
    cr_assert_gt(cause.when_ns, 0);
    cr_assert_eq(shmq_ack(dead, &m), 0);
    shmq_queue_info info = queue_info(fd, 0);
    cr_assert_eq(info.dead_lettered, 1);
    cr_assert_eq(info.depth, 0);
    cr_assert_eq(info.gets, 0, "%lu", (unsigned long)info.gets);
    end(q);
  }
}

Test(queue_dead_letter, the_cause_that_a_nack_states_is_kept) {
  shmq *q = begin(2, 0, 8);
  shmq_message m;
  shmq_cause given = {.pid = 4711, .status = 9, .reason = SHMQ_REASON_DIED}, cause;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_message_cause(q, &m, &cause), -ENODATA, "nothing has failed yet");
  cr_assert_eq(shmq_nack_with(q, &m, 0, &given), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_message_cause(q, &m, &cause), 0);
  cr_assert_eq(cause.pid, 4711);
  cr_assert_eq(cause.status, 9);
  cr_assert_eq(cause.attempts, 1);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(shmq_message_cause(q, &m, &cause), -EINVAL, "no message any more");
  end(q);
}

/* Who died holding it, and how: the status of a zombie is its parent's to see, and ours. */
Test(queue_dead_letter, the_cause_names_the_process_that_died) {
  shmq *q = begin(1, 0, 8);
  cr_assert_eq(put_number(q, 1), 0);
  pid_t child = fork();
  if (child == 0) {
    shmq *mine = peer(fd, "jobs");
    shmq_message m;
    MUST(shmq_lease(mine, &m, SHMQ_NOWAIT));
    kill(getpid(), SIGKILL);
  }
  siginfo_t end_of_it;
  cr_assert_eq(waitid(P_PID, (id_t)child, &end_of_it, WEXITED | WNOWAIT), 0);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_message m;
  shmq_cause cause;
  cr_assert_eq(shmq_lease(dead, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_message_cause(dead, &m, &cause), 0);
  cr_assert_eq(cause.pid, child);
  cr_assert_eq(cause.reason, SHMQ_REASON_DIED);
  cr_assert(WIFSIGNALED(cause.status) && WTERMSIG(cause.status) == SIGKILL, "%d", cause.status);
  cr_assert_eq(shmq_ack(dead, &m), 0);
  waitpid(child, NULL, 0);
  end(q);
}

Test(queue_dead_letter, a_message_in_a_block_takes_its_block_along) {
  shmq *q = begin(1, 0, 8);
  unsigned char large[200], out[BLOCK_BYTES];
  memset(large, 0x5c, sizeof large);
  shmq_message m;
  cr_assert_eq(shmq_put(q, large, sizeof large, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  const void *where = m.data;
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  cr_assert_eq(shmq_lease(dead, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(m.data, where, "not copied");
  cr_assert_eq(m.size, sizeof large);
  cr_assert_arr_eq(m.data, large, sizeof large);
  cr_assert_eq(shmq_nack(dead, &m), 0);
  cr_assert_eq(shmq_get(dead, out, sizeof out, SHMQ_NOWAIT), sizeof large);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end(q);
}

/* No room for the dead: they wait, undelivered, and go when there is room. */
Test(queue_dead_letter, a_full_dead_letter_queue_loses_nothing) {
  shmq *q = begin(1, 0, 2);
  shmq_message m;
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  for (uint64_t i = 0; i < 4; i++) {
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m), i);
    cr_assert_eq(shmq_nack(q, &m), 0);
  }
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(shmq_depth(dead), 2);
  cr_assert_eq(queue_info(fd, 0).dead_lettered, 2);
  cr_assert_eq(put_number(q, 9), 0);
  cr_assert_eq(get_number(q), 9, "the living are not held up");
  unsigned seen = 0;
  int64_t n;
  for (int round = 0; round < 3; round++) {
    while ((n = get_number(dead)) >= 0) seen |= 1u << n;
    shmq__sweep_dead_letters(q); /* a waiting taker's bounded look */
  }
  cr_assert_eq(seen, 15);
  cr_assert_eq(queue_info(fd, 0).dead_lettered, 4);
  cr_assert_eq(shmq_depth(q), 0);
  end(q);
}

Test(queue_dead_letter, expired_messages_are_dead_letters_too) {
  shmq *q = begin(3, SHMQ_TIMED, 8);
  shmq_put_options late = {.expires_ns = shmq_now_ns() - 1};
  uint64_t n = 5;
  cr_assert_eq(shmq_put_with(q, &n, sizeof n, &late, SHMQ_NOWAIT), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_message m;
  shmq_cause cause;
  cr_assert_eq(shmq_lease(dead, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(number_in(&m), 5);
  cr_assert_eq(shmq_message_cause(dead, &m, &cause), 0);
  cr_assert_eq(cause.reason, SHMQ_REASON_EXPIRED);
  cr_assert_eq(cause.attempts, 0);
  cr_assert_eq(shmq_ack(dead, &m), 0);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.expired + info.dead_lettered, 1, "counted once");
  cr_assert_eq(info.gets, 0, "%lu", (unsigned long)info.gets);
  end(q);
}

/* The undertaker is killed with the message in its hands: between the leases of a dead message and
 * the step that moves it, it is the dead's and comes back. */
Test(queue_dead_letter, a_dead_letter_survives_its_undertaker) {
  shmq *q = begin(1, 0, 8), *victim = peer(fd, "jobs");
  shmq_message m;
  cr_assert_eq(put_number(q, 3), 0);
  nack_times(q, 3, 1);
  MUST(shmq_join_segment(victim->segment, NULL, NULL));
  uint64_t w = atomic_load(cell_word(q->rings, 0));
  cr_assert_eq(cell_kind(w), CELL_RETURNED);
  slot_of(q->segment, victim->segment->me)->redelivers = 1;
  atomic_store(cell_word(q->rings, 0), cell_become(w, CELL_LEASED, victim->segment->me, 1));
  die(victim);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(shmq_lease(dead, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(number_in(&m), 3);
  cr_assert_eq(shmq_ack(dead, &m), 0);
  cr_assert_eq(get_number(dead), -EAGAIN);
  end(q);
}

Test(queue_dead_letter, options_that_cannot_work_are_refused) {
  shmq_queue_options two[2] = {{.name = "a", .message_bytes = 100}, {.name = "b", .message_bytes = 99}};
  shmq_options o = {.queues = two, .queue_count = 2};
  two[0].max_attempts = 2;
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL, "a limit without a queue for the dead");
  two[0].dead_letter = "none";
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
  two[0].dead_letter = "a";
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL, "itself");
  two[0].dead_letter = "b";
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL, "cells too small for its messages");
  two[1].message_bytes = 100;
  cr_assert_gt(shmq_segment_bytes(&o), 0);
  two[1].flags = SHMQ_SINGLE_PRODUCER;
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL, "every taker is its producer");
  two[1].flags = 0;
  two[0].max_attempts = SHMQ_ATTEMPTS_MAX + 1;
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
}
