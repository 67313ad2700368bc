/* SPDX-License-Identifier: Apache-2.0
 *
 * Shutdown, reopening, drain, join, and waiting on several queues.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "support/fresh.h"

static int fd;

static shmq *begin(uint32_t flags) {
  shmq_queue_options o = {.capacity = 4, .message_bytes = 16, .flags = flags};
  return fresh_queue(&o, &fd);
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}

static const uint32_t modes[] = {0, SHMQ_SINGLE_PRODUCER, SHMQ_SINGLE_CONSUMER,
                                 SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER, SHMQ_TIMED};

Test(queue_state, after_shutdown_what_is_left_is_delivered_and_then_epipe) {
  for (unsigned mode = 0; mode < 5; mode++) {
    shmq *q = begin(modes[mode]);
    struct iovec one = {&fd, sizeof fd};
    shmq_message m;
    cr_assert_eq(put_number(q, 1), 0);
    cr_assert_eq(put_number(q, 2), 0);
    cr_assert_eq(shmq_shutdown(q), 0);
    cr_assert_eq(shmq_shutdown(q), 0, "idempotent");
    cr_assert_eq(put_number(q, 3), -EPIPE);
    cr_assert_eq(shmq_put(q, NULL, 0, SHMQ_FOREVER), -EPIPE);
    cr_assert_eq(shmq_put_batch(q, &one, 1, SHMQ_NOWAIT), -EPIPE);
    cr_assert_eq(shmq_reserve(q, 1, &m, SHMQ_FOREVER), -EPIPE);
    cr_assert_eq(get_number(q), 1);
    cr_assert_eq(get_number(q), 2);
    cr_assert_eq(get_number(q), -EPIPE);
    cr_assert_eq(shmq_get(q, &m, sizeof m, SHMQ_FOREVER), -EPIPE);
    cr_assert_eq(shmq_lease(q, &m, SHMQ_FOREVER), -EPIPE);
    cr_assert_eq(queue_info(fd, 0).shut_down, 1);
    cr_assert_eq(shmq_reopen(q), 0);
    cr_assert_eq(put_number(q, 4), 0);
    cr_assert_eq(get_number(q), 4);
    cr_assert_eq(get_number(q), -EAGAIN);
    end(q);
  }
}

Test(queue_state, what_was_reserved_before_the_shutdown_may_be_committed) {
  shmq *q = begin(0);
  shmq_message m;
  cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_shutdown(q), 0);
  cr_assert_eq(get_number(q), -EAGAIN, "it may still come");
  memcpy(m.data, &(uint64_t){5}, 8);
  cr_assert_eq(shmq_commit(q, &m), 0);
  cr_assert_eq(get_number(q), 5);
  cr_assert_eq(get_number(q), -EPIPE);
  end(q);
}

Test(queue_state, a_returned_message_is_delivered_after_shutdown) {
  shmq *q = begin(0);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_shutdown(q), 0);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(get_number(q), -EPIPE);
  end(q);
}

/* ---- somebody sleeps ---- */

struct actor {
  pthread_t thread;
  int (*act)(struct actor *);
  shmq *q;
  int result;
};
static void *actor_main(void *argument) {
  struct actor *a = argument;
  a->q = peer(fd, NULL);
  a->result = a->act(a);
  shmq_close(a->q);
  return NULL;
}
static void start(struct actor *a, int (*act)(struct actor *)) {
  *a = (struct actor){.act = act};
  pthread_create(&a->thread, NULL, actor_main, a);
}
static int result_of(struct actor *a) {
  pthread_join(a->thread, NULL);
  return a->result;
}
static int act_get(struct actor *a) {
  char data[16];
  return (int)shmq_get(a->q, data, sizeof data, SHMQ_FOREVER);
}
static int act_put(struct actor *a) { return shmq_put(a->q, "12345", 5, SHMQ_FOREVER); }
static int act_drain(struct actor *a) { return shmq_drain(a->q, SHMQ_FOREVER); }
static int act_join(struct actor *a) { return shmq_join(a->q, SHMQ_FOREVER); }
static int act_wait(struct actor *a) {
  shmq_wait_item item = {.queue = a->q, .want = SHMQ_READABLE};
  return shmq_wait(&item, 1, SHMQ_FOREVER);
}

static void until_asleep(const shmq__event *event) {
  while (!(atomic_load(&event->word) & EVENT_SLEEPERS)) usleep(200);
}

Test(queue_state, shutdown_wakes_sleeping_takers_and_putters) {
  shmq *q = begin(0);
  struct actor takers[3], putter;
  for (int i = 0; i < 3; i++) start(&takers[i], act_get);
  until_asleep(&q->queue->not_empty);
  shmq_shutdown(q);
  for (int i = 0; i < 3; i++) cr_assert_eq(result_of(&takers[i]), -EPIPE);
  shmq_reopen(q);
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  start(&putter, act_put);
  until_asleep(&q->queue->not_full);
  shmq_shutdown(q);
  cr_assert_eq(result_of(&putter), -EPIPE);
  end(q);
}

Test(queue_state, each_put_wakes_a_sleeping_taker) {
  shmq *q = begin(0);
  struct actor takers[4];
  for (int i = 0; i < 4; i++) start(&takers[i], act_get);
  until_asleep(&q->queue->not_empty);
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  for (int i = 0; i < 4; i++) cr_assert_eq(result_of(&takers[i]), 8);
  end(q);
}

Test(queue_state, a_nack_and_an_abort_wake_too) {
  shmq *q = begin(0);
  struct actor taker;
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  start(&taker, act_get);
  until_asleep(&q->queue->not_empty);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(result_of(&taker), 8);
  cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_number(q, 2), 0);
  start(&taker, act_get);
  until_asleep(&q->queue->not_empty);
  cr_assert_eq(shmq_abort(q, &m), 0);
  cr_assert_eq(result_of(&taker), 8);
  end(q);
}

Test(queue_state, freeing_a_cell_wakes_a_sleeping_putter) {
  shmq *q = begin(0);
  struct actor putters[3];
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  for (int i = 0; i < 3; i++) start(&putters[i], act_put);
  until_asleep(&q->queue->not_full);
  for (int64_t i = 0; i < 3; i++) cr_assert_eq(get_number(q), i);
  for (int i = 0; i < 3; i++) cr_assert_eq(result_of(&putters[i]), 0);
  end(q);
}

/* ---- drain and join ---- */

Test(queue_state, drain_waits_for_the_taking_join_for_the_acks) {
  shmq *q = begin(0);
  shmq_message m;
  cr_assert_eq(shmq_drain(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_join(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_drain(q, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(shmq_join(q, shmq_after_ns(MILLISECOND)), -ETIMEDOUT);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_drain(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_join(q, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(shmq_drain(q, SHMQ_NOWAIT), -EAGAIN, "it waits again");
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_join(q, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(shmq_join(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_drain(NULL, SHMQ_NOWAIT), -EINVAL);
  end(q);
}

/* What was reserved, or given up, is no message. */
Test(queue_state, gaps_do_not_hold_up_drain_and_join) {
  shmq *q = begin(0);
  shmq_message m, open;
  cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(q, 8, &open, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_abort(q, &m), 0);
  cr_assert_eq(shmq_drain(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_join(q, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_abort(q, &open), 0);
  end(q);
}

Test(queue_state, drain_and_join_are_woken) {
  for (unsigned mode = 0; mode < 5; mode++) {
    shmq *q = begin(modes[mode]);
    struct actor drainer, joiner;
    shmq_message m[2];
    cr_assert_eq(put_number(q, 1), 0);
    cr_assert_eq(put_number(q, 2), 0);
    start(&drainer, act_drain);
    until_asleep(&q->queue->idle);
    cr_assert_eq(shmq_lease(q, &m[0], SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_lease(q, &m[1], SHMQ_NOWAIT), 0);
    cr_assert_eq(result_of(&drainer), 0);
    start(&joiner, act_join);
    until_asleep(&q->queue->idle);
    cr_assert_eq(shmq_ack(q, &m[1]), 0);
    cr_assert_eq(shmq_ack(q, &m[0]), 0);
    cr_assert_eq(result_of(&joiner), 0);
    end(q);
  }
}

Test(queue_state, join_is_over_when_the_holder_died_and_another_acked) {
  shmq *q = begin(0), *victim = peer(fd, NULL);
  struct actor joiner;
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  MUST(shmq_lease(victim, &m, SHMQ_NOWAIT));
  start(&joiner, act_join);
  until_asleep(&q->queue->idle);
  die(victim);
  uint64_t n;
  cr_assert_eq(shmq_get(q, &n, sizeof n, PATIENCE), 8);
  cr_assert_eq(result_of(&joiner), 0);
  end(q);
}

/* ---- several queues ---- */

Test(queue_state, wait_says_which_are_ready) {
  int fds[2];
  shmq_queue_options o = {.capacity = 2, .message_bytes = 8};
  shmq *a = fresh_queue(&o, &fds[0]), *b = fresh_queue(&o, &fds[1]);
  shmq_wait_item items[] = {{a, SHMQ_READABLE, 9}, {b, SHMQ_READABLE | SHMQ_WRITABLE, 9}};
  cr_assert_eq(shmq_wait(items, 1, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(items[0].ready, 0);
  int64_t deadline = shmq_after_ns(10 * MILLISECOND);
  cr_assert_eq(shmq_wait(items, 1, deadline), -ETIMEDOUT);
  cr_assert_geq(shmq_now_ns(), deadline);
  cr_assert_eq(shmq_wait(items, 2, SHMQ_FOREVER), 1);
  cr_assert_eq(items[1].ready, SHMQ_WRITABLE);
  cr_assert_eq(put_number(b, 1), 0);
  cr_assert_eq(put_number(b, 2), 0);
  cr_assert_eq(shmq_wait(items, 2, SHMQ_NOWAIT), 1);
  cr_assert_eq(items[1].ready, SHMQ_READABLE);
  cr_assert_eq(put_number(a, 3), 0);
  cr_assert_eq(shmq_wait(items, 2, SHMQ_FOREVER), 2);
  cr_assert_eq(get_number(a), 3);
  shmq_shutdown(a);
  cr_assert_eq(shmq_wait(items, 1, SHMQ_NOWAIT), 1, "-EPIPE is to be read");
  cr_assert_eq(shmq_wait(NULL, 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_wait(items, 0, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_wait(items, 65, SHMQ_NOWAIT), -EINVAL);
  items[0].want = 0;
  cr_assert_eq(shmq_wait(items, 1, SHMQ_NOWAIT), -EINVAL);
  items[0].want = 4;
  cr_assert_eq(shmq_wait(items, 1, SHMQ_NOWAIT), -EINVAL);
  shmq_close(a);
  shmq_close(b);
  close(fds[0]);
  close(fds[1]);
}

Test(queue_state, wait_is_woken_by_a_put_a_nack_and_a_shutdown) {
  shmq *q = begin(0);
  shmq_message m;
  struct actor waiter;
  for (int how = 0; how < 3; how++) {
    if (how == 1) cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    start(&waiter, act_wait);
    until_asleep(&q->queue->not_empty);
    if (how == 0) cr_assert_eq(put_number(q, 1), 0);
    if (how == 1) cr_assert_eq(shmq_nack(q, &m), 0);
    if (how == 2) cr_assert_eq(shmq_shutdown(q), 0);
    cr_assert_eq(result_of(&waiter), 1);
    if (how == 1) cr_assert_eq(get_number(q), 1);
    if (how == 1) cr_assert_eq(get_number(q), -EAGAIN, "after which nothing looks returned");
  }
  end(q);
}

Test(queue_state, a_leave_with_nothing_to_return_makes_nobody_look) {
  shmq *q = begin(0);
  shmq_wait_item item = {.queue = q, .want = SHMQ_READABLE};
  for (uint64_t i = 0; i < 3; i++) {
    shmq *other = peer(fd, NULL);
    cr_assert_eq(put_number(other, i), 0);
    shmq_close(other);
    cr_assert_eq(get_number(q), (int64_t)i);
    cr_expect_eq(shmq_wait(&item, 1, SHMQ_NOWAIT), -EAGAIN);
  }
  end(q);
}

Test(queue_state, sixty_four_queues_at_once) {
  shmq_queue_options queues[64] = {{0}};
  char names[64][8];
  for (int i = 0; i < 64; i++) {
    snprintf(names[i], sizeof names[i], "q%d", i);
    queues[i] = (shmq_queue_options){.name = names[i], .capacity = 2, .message_bytes = 8};
  }
  shmq_options o = {.queues = queues, .queue_count = 64};
  fd = fresh_fd(&o);
  shmq_segment *s = attached(fd);
  shmq_wait_item items[64];
  for (int i = 0; i < 64; i++)
    items[i] = (shmq_wait_item){.queue = opened(s, names[i]), .want = SHMQ_READABLE | SHMQ_WRITABLE};
  cr_assert_eq(shmq_wait(items, 64, SHMQ_FOREVER), 64);
  for (int i = 0; i < 64; i++) {
    items[i].want = SHMQ_READABLE;
    cr_assert_eq(put_number(items[i].queue, 1), 0);
    cr_assert_eq(get_number(items[i].queue), 1);
  }
  cr_assert_eq(shmq_wait(items, 64, shmq_after_ns(10 * MILLISECOND)), -ETIMEDOUT);
  for (int i = 0; i < 64; i++) shmq_close(items[i].queue);
  shmq_detach(s);
  close(fd);
}
