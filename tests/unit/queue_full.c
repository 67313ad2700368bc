/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens when a queue is full, and which band is served first.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

static int fd;

static shmq *begin(uint32_t policy, uint32_t priorities) {
  shmq_queue_options o = {.capacity = 4, .message_bytes = 16, .full_policy = policy,
                          .priorities = priorities};
  return fresh_queue(&o, &fd);
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}
static int put_in(shmq *q, uint32_t priority, uint64_t n) {
  shmq_put_options o = {.priority = priority};
  return shmq_put_with(q, &n, sizeof n, &o, SHMQ_NOWAIT);
}

Test(queue_full, block_waits_until_the_deadline) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 1);
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(put_number(q, 4), -EAGAIN);
  cr_assert_eq(shmq_put(q, "x", 1, shmq_after_ns(5 * MILLISECOND)), -ETIMEDOUT);
  cr_assert_eq(queue_info(fd, 0).dropped, 0);
  end(q);
}

Test(queue_full, fail_does_not_wait) {
  shmq *q = begin(SHMQ_FULL_FAIL, 1);
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(shmq_put(q, "x", 1, SHMQ_FOREVER), -EAGAIN);
  cr_assert_eq(get_number(q), 0);
  end(q);
}

Test(queue_full, drop_newest_drops_and_counts_the_new_one) {
  shmq *q = begin(SHMQ_FULL_DROP_NEWEST, 1);
  shmq_message m;
  for (uint64_t i = 0; i < 7; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_FOREVER), -EAGAIN, "there is no room to write in");
  for (int64_t i = 0; i < 4; i++) cr_assert_eq(get_number(q), i);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.dropped, 4);
  cr_assert_eq(info.puts, 4);
  cr_assert_eq(info.gets, 4);
  end(q);
}

Test(queue_full, drop_oldest_makes_room) {
  shmq *q = begin(SHMQ_FULL_DROP_OLDEST, 1);
  for (uint64_t i = 0; i < 11; i++) cr_assert_eq(put_number(q, i), 0);
  for (int64_t i = 7; i < 11; i++) cr_assert_eq(get_number(q), i);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.dropped, 7);
  cr_assert_eq(info.puts, 11);
  cr_assert_eq(info.gets, 4);
  end(q);
}

/* What somebody holds is not dropped. */
Test(queue_full, drop_oldest_leaves_leases_alone) {
  shmq *q = begin(SHMQ_FULL_DROP_OLDEST, 1), *holder = peer(fd, NULL);
  shmq_message m[4];
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(shmq_lease_batch(holder, m, 4, SHMQ_NOWAIT), 4);
  cr_assert_eq(put_number(q, 9), -EAGAIN);
  cr_assert_eq(shmq_ack(holder, &m[0]), 0);
  cr_assert_eq(put_number(q, 9), 0);
  for (int i = 1; i < 4; i++) {
    cr_assert_eq(number_in(&m[i]), (uint64_t)i);
    cr_assert_eq(shmq_ack(holder, &m[i]), 0);
  }
  cr_assert_eq(get_number(q), 9);
  cr_assert_eq(queue_info(fd, 0).dropped, 0);
  shmq_close(holder);
  end(q);
}

/* Dropping what does not stand in the way would lose messages and make no room. */
Test(queue_full, drop_oldest_drops_nothing_when_that_makes_no_room) {
  shmq *q = begin(SHMQ_FULL_DROP_OLDEST, 1);
  shmq_message oldest;
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_in(q, 0, i), 0);
  cr_assert_eq(shmq_lease(q, &oldest, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_in(q, 0, 4), -EAGAIN);
  cr_assert_eq(shmq_depth(q), 3);
  cr_assert_eq(shmq_nack(q, &oldest), 0); /* now it waits for redelivery, and can be dropped */
  cr_assert_eq(put_in(q, 0, 4), 0);
  for (int64_t i = 1; i < 5; i++) cr_assert_eq(get_number(q), i);
  end(q);
}

Test(queue_full, options_that_cannot_work_are_refused) {
  shmq_queue_options queue = {.full_policy = SHMQ_FULL_DROP_OLDEST, .flags = SHMQ_SINGLE_CONSUMER};
  shmq_options o = {.queues = &queue, .queue_count = 1};
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
  queue = (shmq_queue_options){.full_policy = 4};
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
  queue = (shmq_queue_options){.priorities = 9};
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
}

/* ---- bands ---- */

Test(queue_full, the_highest_band_is_served_first) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 8);
  for (uint32_t priority = 0; priority < 8; priority++)
    for (uint64_t i = 0; i < 3; i++) cr_assert_eq(put_in(q, priority, priority * 10 + i), 0);
  cr_assert_eq(put_in(q, 99, 73), 0, "clamped to the highest");
  cr_assert_eq(shmq_depth(q), 25);
  for (uint32_t priority = 8; priority-- > 0;)
    for (int64_t i = 0; i < (priority == 7 ? 4 : 3); i++)
      cr_assert_eq(get_number(q), priority * 10 + i);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.puts, 25);
  cr_assert_eq(info.gets, 25);
  end(q);
}

Test(queue_full, a_plain_put_goes_to_the_lowest_band) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 3);
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_put(q, NULL, 0, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_in(q, 1, 2), 0);
  cr_assert_eq(get_number(q), 2);
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(shmq_get(q, NULL, 0, SHMQ_NOWAIT), 0);
  end(q);
}

Test(queue_full, bands_fill_on_their_own) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 2);
  for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_in(q, 0, i), 0);
  cr_assert_eq(put_in(q, 0, 4), -EAGAIN);
  cr_assert_eq(put_in(q, 1, 5), 0);
  end(q);
}

Test(queue_full, bands_recover_and_identify_on_their_own) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 3), *victim = peer(fd, NULL);
  MUST(shmq_join_segment(q->segment, NULL, NULL));
  shmq_message m[3];
  shmq_id ids[3], again;
  for (uint32_t band = 0; band < 3; band++) cr_assert_eq(put_in(q, band, band), 0);
  for (uint32_t i = 0; i < 3; i++) {
    cr_assert_eq(shmq_lease(victim, &m[i], SHMQ_NOWAIT), 0);
    shmq_message_id(victim, &m[i], &ids[i]);
    cr_assert_eq(ids[i].queue, (2 - i) << 16);
  }
  die(victim);
  cr_assert_eq(shmq_recover(q->segment), 1);
  for (uint32_t i = 0; i < 3; i++) {
    cr_assert_eq(shmq_lease(q, &m[i], SHMQ_NOWAIT), 0);
    cr_assert_eq(number_in(&m[i]), 2 - i, "redeliveries too from the highest");
    shmq_message_id(q, &m[i], &again);
    cr_assert_eq(memcmp(&again, &ids[i], sizeof again), 0);
    cr_assert_eq(shmq_ack(q, &m[i]), 0);
  }
  end(q);
}

/* Room for an unimportant message is not made at the cost of important ones. */
Test(queue_full, drop_oldest_drops_from_the_band_that_is_full) {
  shmq *q = begin(SHMQ_FULL_DROP_OLDEST, 2);
  cr_assert_eq(put_in(q, 1, 100), 0);
  for (uint64_t i = 0; i < 6; i++) cr_assert_eq(put_in(q, 0, i), 0);
  cr_assert_eq(queue_info(fd, 0).dropped, 2);
  cr_assert_eq(get_number(q), 100);
  for (int64_t i = 2; i < 6; i++) cr_assert_eq(get_number(q), i);
  end(q);
}

/* Takers do not pass by a lower band because the higher one only holds reservations. */
Test(queue_full, an_open_reservation_above_does_not_hide_what_is_below) {
  shmq *q = begin(SHMQ_FULL_BLOCK, 2);
  shmq_message m;
  shmq_put_options high = {.priority = 1};
  cr_assert_eq(shmq_reserve_with(q, 8, &m, &high, SHMQ_NOWAIT), 0);
  cr_assert_eq(put_in(q, 0, 4), 0);
  cr_assert_eq(get_number(q), 4);
  cr_assert_eq(shmq_abort(q, &m), 0);
  cr_assert_eq(get_number(q), -EAGAIN);
  end(q);
}
