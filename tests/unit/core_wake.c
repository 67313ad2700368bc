/* SPDX-License-Identifier: Apache-2.0
 *
 * The event count: who is announced is woken, who signals pays nothing when nobody is.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

#include "core/wake.h"
#include "os/futex.h"
#include "support/forbid.h"
#include "support/fresh.h"

Test(core_wake, a_signal_without_sleepers_does_not_touch_the_word) {
  shmq__event event = {.word = 40};
  event_signal(&event, 1, NULL);
  cr_assert_eq(event.word, 40);
}

/* Who announces second must not send the first one round again. */
Test(core_wake, announcing_again_does_not_disturb_the_first) {
  bool ordered;
  shmq__event event = {.word = 40};
  uint32_t a = shmq__event_announce(&event, &ordered);
  cr_assert_eq(a, 40 | EVENT_SLEEPERS | EVENT_FENCED | EVENT_SETTLED);
  cr_assert_eq(shmq__event_announce(&event, &ordered), a);
  cr_assert_eq(event.word, a);
}

Test(core_wake, the_sequence_wraps) {
  bool ordered;
  shmq__event event = {.word = UINT32_MAX & ~7u};
  uint32_t value = shmq__event_announce(&event, &ordered);
  cr_assert_eq(value, UINT32_MAX);
  event_signal(&event, 1, NULL);
  cr_assert_neq(event.word, value);
  cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
}

Test(core_wake, a_signal_that_finds_nobody_ends_the_announcement) {
  bool ordered;
  shmq__event event = {.word = 0};
  (void)shmq__event_announce(&event, &ordered);
  event_signal(&event, 1, NULL);
  cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
}

/* The first who sleeps makes a barrier and tells others to fence; those after it need none. */
Test(core_wake, fences_begin_with_a_sleeper_and_end_without) {
  bool ordered;
  uint32_t fences = 0;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &ordered);
  cr_assert_eq(value & 7, EVENT_SLEEPERS | EVENT_FENCED | EVENT_SETTLED);
  cr_assert_eq(shmq__event_announce(&event, &ordered), value);
  event_signal(&event, 1, &fences); /* finds nobody */
  cr_assert_eq(event.word & 7, EVENT_FENCED | EVENT_SETTLED);
  int signals = 0;
  for (; event.word & EVENT_FENCED; signals++) event_signal(&event, 1, &fences);
  cr_assert_gt(signals, 1);
  cr_assert_eq(event.word & 7, 0, "who relies on fences goes with them");
  uint32_t quiet = event.word;
  event_signal(&event, 1, &fences);
  cr_assert_eq(event.word, quiet);
}

/* A sleeper that found others to be fencing already, and no barrier behind it, has to make its own. */
Test(core_wake, fences_that_have_not_settled_are_settled_by_the_next_sleeper) {
  bool ordered;
  shmq__event event = {.word = EVENT_FENCED | 80};
  cr_assert_eq(shmq__event_announce(&event, &ordered) & 7, EVENT_SLEEPERS | EVENT_FENCED | EVENT_SETTLED);
  cr_assert(ordered);
}

/* Who cannot make a barrier sleeps briefly, unless all others fence already and one was made. */
Test(core_wake, without_a_barrier_only_settled_fences_count) {
  bool ordered;
  if (!forbid(SYS_membarrier)) cr_skip_test("no seccomp");
  for (uint32_t bits = 0; bits < 8; bits++) {
    shmq__event event = {.word = 80 | bits};
    uint32_t value = shmq__event_announce(&event, &ordered);
    cr_assert_eq(ordered, (bits & EVENT_SETTLED) != 0);
    cr_assert_eq(value, 80 | bits | EVENT_SLEEPERS | EVENT_FENCED);
    cr_assert_eq(event.word, value);
  }
}

/* Announced, signalled, and only then asleep: the word has moved, so the sleep ends at once. */
Test(core_wake, a_wake_up_between_announcing_and_sleeping_is_not_lost) {
  bool ordered;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &ordered);
  event_signal(&event, 1, NULL);
  cr_assert_eq(shmq__event_sleep(&event, value, SHMQ_FOREVER), -EAGAIN);
  value = shmq__event_announce(&event, &ordered);
  shmq__event_wake_all(&event);
  cr_assert_eq(shmq__event_sleep(&event, value, SHMQ_FOREVER), -EAGAIN);
}

Test(core_wake, a_sleep_ends_at_its_deadline) {
  bool ordered;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &ordered);
  int64_t deadline = shmq_after_ns(20 * MILLISECOND);
  cr_assert_eq(shmq__event_sleep(&event, value, deadline), -ETIMEDOUT);
  cr_assert_geq(shmq_now_ns(), deadline);
}

struct sleeper {
  pthread_t thread;
  shmq__event *event;
  _Atomic int *announced;
  _Atomic int *woken;
};

static void *sleeper_main(void *argument) {
  struct sleeper *s = argument;
  bool ordered;
  uint32_t value = shmq__event_announce(s->event, &ordered);
  (void)atomic_fetch_add(s->announced, 1);
  while (shmq__event_sleep(s->event, value, SHMQ_FOREVER) == -EINTR) continue;
  (void)atomic_fetch_add(s->woken, 1);
  return NULL;
}

/* However many sleep, one signal each is enough: SLEEPERS stays until nobody is left. */
Test(core_wake, as_many_signals_as_sleepers_wake_all) {
  enum { SLEEPERS = 5 };
  for (int all = 0; all < 2; all++) {
    shmq__event event = {.word = 0};
    _Atomic int announced = 0, woken = 0;
    struct sleeper sleepers[SLEEPERS];
    for (int i = 0; i < SLEEPERS; i++) {
      sleepers[i] = (struct sleeper){.event = &event, .announced = &announced, .woken = &woken};
      pthread_create(&sleepers[i].thread, NULL, sleeper_main, &sleepers[i]);
    }
    while (announced < SLEEPERS) sched_yield();
    if (all)
      shmq__event_wake_all(&event);
    else
      for (int i = 0; i < SLEEPERS; i++) event_signal(&event, 1, NULL);
    for (int i = 0; i < SLEEPERS; i++) pthread_join(sleepers[i].thread, NULL);
    cr_assert_eq(woken, SLEEPERS);
    event_signal(&event, 1, NULL);
    cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
  }
}

Test(core_wake, several_words_at_once) {
  _Atomic uint32_t words[3] = {1, 2, 3};
  struct shmq__futex_item items[3] = {{&words[0], 1}, {&words[1], 9}, {&words[2], 3}};
  int rc = shmq__futex_waitv(items, 3, SHMQ_FOREVER);
  if (rc == -ENOSYS) cr_skip("futex_waitv needs Linux 5.16");
  cr_assert_eq(rc, -EAGAIN, "the second differs");
  items[1].value = 2;
  cr_assert_eq(shmq__futex_waitv(items, 3, shmq_after_ns(MILLISECOND)), -ETIMEDOUT);
  cr_assert_eq(shmq__futex_waitv(items, 0, SHMQ_FOREVER), -EINVAL);
  cr_assert_eq(shmq__futex_waitv(items, 129, SHMQ_FOREVER), -EINVAL);
}
