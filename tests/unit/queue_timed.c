/* SPDX-License-Identifier: Apache-2.0
 *
 * Not-before, expiry and nack with a delay. Times are only ever compared with the clock that the library
 * uses, so a slow machine makes these tests late and not wrong.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

static int fd;

static shmq *begin(int64_t ttl_ns, uint32_t flags) {
  shmq_queue_options o = {.capacity = 8, .message_bytes = 16, .flags = flags, .ttl_ns = ttl_ns};
  return fresh_queue(&o, &fd);
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}
static int put_timed(shmq *q, uint64_t n, int64_t not_before, int64_t expires) {
  shmq_put_options o = {.not_before_ns = not_before, .expires_ns = expires};
  return shmq_put_with(q, &n, sizeof n, &o, SHMQ_NOWAIT);
}
static void sleep_until(int64_t when) {
  while (shmq_now_ns() < when) usleep(1000);
}

Test(queue_timed, times_need_the_flag) {
  shmq *q = begin(0, 0);
  cr_assert_eq(put_timed(q, 1, 1, 0), -EOPNOTSUPP);
  cr_assert_eq(put_timed(q, 1, 0, 1), -EOPNOTSUPP);
  cr_assert_eq(put_timed(q, 1, 0, 0), 0);
  end(q);
  q = begin(0, SHMQ_TIMED);
  cr_assert_eq(put_timed(q, 1, -1, 0), -EINVAL);
  cr_assert_eq(put_timed(q, 1, 0, -1), -EINVAL);
  end(q);
}

Test(queue_timed, nothing_is_delivered_before_its_time) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t due = shmq_after_ns(60 * MILLISECOND);
  uint64_t n;
  cr_assert_eq(put_timed(q, 1, due, 0), 0);
  cr_assert_eq(put_timed(q, 2, 0, 0), 0);
  for (int i = 0; i < 2; i++) { /* those behind are not held up; on a slow machine the first is due first */
    cr_assert_eq(shmq_get(q, &n, sizeof n, PATIENCE), 8);
    if (n == 1) cr_assert_geq(shmq_now_ns(), due);
  }
  cr_assert_eq(get_number(q), -EAGAIN);
  end(q);
}

/* A sleeper wakes for the earliest of several, and delivers each in its time. */
Test(queue_timed, delayed_messages_come_in_the_order_of_their_times) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t now = shmq_now_ns();
  const int64_t delays[] = {90, 30, 60};
  for (uint64_t i = 0; i < 3; i++)
    cr_assert_eq(put_timed(q, i, now + delays[i] * MILLISECOND, 0), 0);
  for (uint64_t i = 0; i < 3; i++) {
    uint64_t n;
    cr_assert_eq(shmq_get(q, &n, sizeof n, PATIENCE), 8);
    cr_assert_geq(shmq_now_ns(), now + delays[n] * MILLISECOND);
  }
  cr_assert_eq(get_number(q), -EAGAIN);
  end(q);
}

Test(queue_timed, a_delayed_message_counts_its_first_delivery_as_first) {
  shmq *q = begin(0, SHMQ_TIMED);
  shmq_message m;
  cr_assert_eq(put_timed(q, 1, shmq_after_ns(5 * MILLISECOND), 0), 0);
  cr_assert_eq(shmq_lease(q, &m, PATIENCE), 0);
  cr_assert_eq(m.attempts, 1);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(queue_info(fd, 0).redeliveries, 0);
  end(q);
}

Test(queue_timed, nack_with_a_delay) {
  shmq *q = begin(0, SHMQ_TIMED);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  int64_t before = shmq_now_ns();
  cr_assert_eq(shmq_nack_with(q, &m, 40 * MILLISECOND, NULL), 0);
  cr_assert_eq(shmq_lease(q, &m, PATIENCE), 0);
  cr_assert_geq(shmq_now_ns(), before + 40 * MILLISECOND);
  cr_assert_eq(m.attempts, 2);
  cr_assert_eq(shmq_ack(q, &m), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(q->queue->next_due_ns, 0, "nothing is due any more");
  end(q);
}

/* An undelayed message that comes back does not wait for the delayed ones. */
Test(queue_timed, delayed_and_returned_messages_do_not_mix) {
  shmq *q = begin(0, SHMQ_TIMED);
  shmq_message m;
  cr_assert_eq(put_timed(q, 1, shmq_after_ns(INT64_C(3600000000000)), 0), 0);
  cr_assert_eq(put_number(q, 2), 0);
  for (uint32_t attempt = 1; attempt < 5; attempt++) {
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m), 2);
    cr_assert_eq(m.attempts, attempt);
    cr_assert_eq(shmq_nack(q, &m), 0);
  }
  cr_assert_eq(get_number(q), 2);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(queue_info(fd, 0).delayed, 1);
  cr_assert_eq(queue_info(fd, 0).depth, 1);
  end(q);
}

Test(queue_timed, expired_messages_are_dropped_and_counted) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t past = shmq_now_ns() - 1;
  cr_assert_eq(put_timed(q, 1, 0, past), 0);
  cr_assert_eq(put_timed(q, 2, 0, shmq_after_ns(INT64_C(3600000000000))), 0);
  cr_assert_eq(put_timed(q, 3, 0, past), 0);
  cr_assert_eq(get_number(q), 2);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.expired, 2);
  cr_assert_eq(info.gets, 1);
  cr_assert_eq(info.depth, 0);
  end(q);
}

Test(queue_timed, a_queues_ttl_is_for_messages_that_state_none) {
  shmq *q = begin(20 * MILLISECOND, 0);
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_timed(q, 2, 0, shmq_after_ns(INT64_C(3600000000000))), 0);
  int64_t wait = shmq_after_ns(20 * MILLISECOND);
  sleep_until(wait);
  cr_assert_eq(get_number(q), 2);
  cr_assert_eq(queue_info(fd, 0).expired, 1);
  end(q);
}

/* Empty messages go the same way as all others. */
Test(queue_timed, a_ttl_holds_for_empty_messages_and_batches) {
  shmq *q = begin(20 * MILLISECOND, 0);
  char x = 1;
  struct iovec two[] = {{NULL, 0}, {&x, 1}};
  cr_assert_eq(shmq_put(q, NULL, 0, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_put_batch(q, two, 2, SHMQ_NOWAIT), 2);
  sleep_until(shmq_after_ns(20 * MILLISECOND));
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(queue_info(fd, 0).expired, 3);
  end(q);
}

/* Nor do they inherit the stamp of an earlier lap. */
Test(queue_timed, a_cell_forgets_the_stamp_of_its_last_message) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t past = shmq_now_ns() - 1;
  for (uint64_t i = 0; i < 8; i++) cr_assert_eq(put_timed(q, i, 0, past), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  for (int i = 0; i < 8; i++) cr_assert_eq(shmq_put(q, NULL, 0, SHMQ_NOWAIT), 0);
  for (int i = 0; i < 8; i++) cr_assert_eq(shmq_get(q, NULL, 0, SHMQ_NOWAIT), 0);
  cr_assert_eq(queue_info(fd, 0).expired, 8);
  end(q);
}

Test(queue_timed, a_message_given_back_after_its_time_is_not_delivered_again) {
  shmq *q = begin(0, SHMQ_TIMED);
  shmq_message m;
  int64_t expires = shmq_after_ns(30 * MILLISECOND);
  cr_assert_eq(put_timed(q, 1, 0, expires), 0);
  int rc = shmq_lease(q, &m, SHMQ_NOWAIT);
  if (rc == -EAGAIN) { /* this machine took longer than that */
    end(q);
    cr_skip("too slow");
  }
  sleep_until(expires);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(queue_info(fd, 0).expired, 1);
  cr_assert_eq(queue_info(fd, 0).depth, 0);
  end(q);
}

/* Parked until its not-before; by the time somebody takes it, it has expired. */
Test(queue_timed, a_parked_message_expires_too) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t due = shmq_after_ns(20 * MILLISECOND), expires = due + 20 * MILLISECOND;
  cr_assert_eq(put_timed(q, 1, due, expires), 0);
  int64_t first = get_number(q);
  cr_assert(first == -EAGAIN || first == 1);
  sleep_until(expires);
  cr_assert_eq(get_number(q), -EAGAIN);
  end(q);
}

/* While a taker sleeps until a far not-before, a nearer message must wake it. */
Test(queue_timed, readable_tells_when_a_delayed_message_is_due) {
  shmq *q = begin(0, SHMQ_TIMED);
  int64_t due = shmq_after_ns(30 * MILLISECOND);
  shmq_wait_item item = {.queue = q, .want = SHMQ_READABLE};
  cr_assert_eq(put_timed(q, 1, due, 0), 0);
  if (get_number(q) == 1) { /* which parks it, unless this took longer than that */
    end(q);
    cr_skip("too slow");
  }
  cr_assert_eq(shmq_wait(&item, 1, PATIENCE), 1);
  cr_assert_eq(item.ready, SHMQ_READABLE);
  cr_assert_geq(shmq_now_ns(), due);
  cr_assert_eq(get_number(q), 1);
  end(q);
}
