/* SPDX-License-Identifier: Apache-2.0
 *
 * A wake-up that reaches somebody who has no use for it goes on to somebody who has. A guard is there, so that nobody
 * wakes by himself in time.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>

#include "pollable.h"
#include "support/fresh.h"

enum { LONG = 500, SETTLE_US = 50000 };
static int fd;
static shmq *guard;

static shmq *begin_with(const shmq_queue_options *queues, uint32_t n) {
  shmq_options o = {.queues = queues, .queue_count = n, .participants = 8, .blocks = 1,
                    .block_bytes = LONG};
  int64_t next;
  fd = fresh_fd(&o);
  guard = peer(fd, NULL);
  MUST(shmq_guard(guard->segment, &next));
  return peer(fd, NULL);
}
static shmq *begin(void) {
  return begin_with(&(shmq_queue_options){.capacity = 4, .message_bytes = 16}, 1);
}
static void end(shmq *q) {
  shmq_close(q);
  shmq_close(guard);
  close(fd);
}

struct actor {
  pthread_t thread;
  int (*act)(shmq *q);
  int result;
};
static void *actor_main(void *argument) {
  struct actor *a = argument;
  shmq *q = peer(fd, NULL);
  a->result = a->act(q);
  shmq_close(q);
  return NULL;
}
/* Returns when it sleeps, most probably: those who sleep are woken in this order. */
static void start(struct actor *a, int (*act)(shmq *q)) {
  *a = (struct actor){.act = act};
  cr_assert_eq(pthread_create(&a->thread, NULL, actor_main, a), 0);
  usleep(SETTLE_US);
}
/* At its deadline it looks once more, and that is too late. */
static int result_of(struct actor *a) {
  int64_t late = shmq_after_ns(10000 * MILLISECOND);
  pthread_join(a->thread, NULL);
  return shmq_now_ns() < late ? a->result : -ETIMEDOUT;
}

static int put_long(shmq *q) { return shmq_put(q, (char[LONG]){0}, LONG, PATIENCE); }
static int put_short(shmq *q) { return shmq_put(q, "1", 1, PATIENCE); }
static int get_any(shmq *q) {
  char data[LONG];
  return (int)shmq_get(q, data, sizeof data, PATIENCE);
}
static int drain(shmq *q) { return shmq_drain(q, PATIENCE); }

/* Whoever waits for both a cell and a block takes no cell's wake-up along to where it waits for the block. */
Test(queue_passing, room_for_a_short_message_reaches_who_has_one) {
  shmq *q = begin();
  struct actor with_long, with_short;
  cr_assert_eq(put_short(q), 0);
  cr_assert_eq(put_long(q), 0);
  cr_assert_eq(put_short(q), 0);
  cr_assert_eq(put_short(q), 0);
  start(&with_long, put_long);
  start(&with_short, put_short);
  cr_assert_eq(get_any(q), 1);
  cr_assert_eq(result_of(&with_short), 0);
  cr_assert_eq(get_any(q), LONG);
  cr_assert_eq(result_of(&with_long), 0);
  end(q);
}

static int forward(shmq *unused) {
  (void)unused;
  shmq *wide = peer(fd, "wide"), *narrow = opened(wide->segment, "narrow");
  shmq_message m;
  MUST(shmq_lease(wide, &m, SHMQ_NOWAIT));
  int rc = shmq_forward(wide, &m, narrow, PATIENCE);
  shmq_close(narrow);
  shmq_close(wide);
  return rc;
}

/* What a cell there does not hold needs a block there, and waits for one. */
Test(queue_passing, a_block_reaches_who_forwards) {
  shmq_queue_options queues[] = {{.name = "wide", .capacity = 4, .message_bytes = 200},
                                 {.name = "narrow", .capacity = 4, .message_bytes = 16}};
  shmq *q = begin_with(queues, 2);
  struct actor forwarder;
  cr_assert_eq(shmq_put(q, (char[100]){0}, 100, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_long(q), 0);
  start(&forwarder, forward);
  cr_assert_eq(get_any(q), LONG);
  cr_assert_eq(result_of(&forwarder), 0);
  end(q);
}

/* What was delivered before counts as taken, too, when it is taken again. */
Test(queue_passing, the_taking_of_what_came_back_wakes_who_drains) {
  shmq *q = begin();
  struct actor drainer;
  shmq_message m;
  cr_assert_eq(put_short(q), 0);
  MUST(shmq_lease(q, &m, SHMQ_NOWAIT));
  cr_assert_eq(shmq_nack(q, &m), 0);
  start(&drainer, drain);
  MUST(shmq_lease(q, &m, SHMQ_NOWAIT));
  cr_assert_eq(result_of(&drainer), 0);
  cr_assert_eq(shmq_ack(q, &m), 0);
  end(q);
}

/* An event loop that was told of a message and goes away without it. */
Test(queue_passing, who_closes_a_descriptor_passes_its_wake_up_on) {
  shmq *q = begin(), *loop = peer(fd, NULL);
  struct actor taker;
  struct pollfd p = {.fd = shmq_event_fd(loop), .events = POLLIN};
  MUST(p.fd);
  cr_assert_eq(shmq_event_arm(loop), 0);
  start(&taker, get_any);
  cr_assert_eq(put_short(q), 0);
  usleep(SETTLE_US);
  shmq_close(loop);
  cr_assert_eq(result_of(&taker), 1);
  end(q);
}

/* Nor does a descriptor that is closed go on catching wake-ups for a while. */
Test(queue_passing, a_closed_descriptor_is_woken_no_more) {
  shmq *q = begin(), *loop = peer(fd, NULL);
  struct actor taker;
  for (int round = 0; round < 10; round++) {
    MUST(shmq_event_fd(loop));
    cr_assert_eq(shmq_event_arm(loop), 0);
    start(&taker, get_any);
    shmq__pollable_free(loop);
    cr_assert_eq(put_short(q), 0);
    cr_assert_eq(result_of(&taker), 1);
  }
  shmq_close(loop);
  end(q);
}
