/* SPDX-License-Identifier: Apache-2.0
 *
 * The event count: who is announced is woken, who signals pays nothing when nobody is.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

#include "core/wake.h"
#include "os/futex.h"
#include "support/fresh.h"

Test(core_wake, a_signal_without_sleepers_does_not_touch_the_word) {
  shmq__event event = {.word = 40};
  event_signal(&event, 1);
  cr_assert_eq(event.word, 40);
}

/* Who announces second must not send the first one round again. */
Test(core_wake, announcing_again_does_not_disturb_the_first) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = 40};
  uint32_t a = shmq__event_announce(&event, &known, &ordered);
  cr_assert_eq(a, 41);
  cr_assert_eq(shmq__event_announce(&event, &known, &ordered), a);
  cr_assert_eq(event.word, a);
}

Test(core_wake, the_sequence_wraps) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = UINT32_MAX - 1};
  uint32_t value = shmq__event_announce(&event, &known, &ordered);
  cr_assert_eq(value, UINT32_MAX);
  event_signal(&event, 1);
  cr_assert_neq(event.word, value);
  cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
}

Test(core_wake, a_signal_that_finds_nobody_ends_the_announcement) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = 0};
  (void)shmq__event_announce(&event, &known, &ordered);
  event_signal(&event, 1);
  cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
  uint32_t quiet = event.word;
  event_signal(&event, 1);
  cr_assert_eq(event.word, quiet);
}

/* However the raise and the clearing lie about an announcement, the next one can tell: it is remembered as standing only
 * while the bit stayed. */
Test(core_wake, a_clearing_moves_the_word_further_than_a_raise) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &known, &ordered);
  shmq__event_wake_all(&event);
  cr_assert_leq(event.word - value, 2);
  uint32_t raised = shmq__event_announce(&event, &known, &ordered);
  event_signal(&event, 1); /* finds nobody */
  cr_assert_gt(event.word - raised, 2);
  cr_assert_gt(event.word - (raised + 2), 2, "a clearing alone");
}

/* Announced, signalled, and only then asleep: the word has moved, so the sleep ends at once. */
Test(core_wake, a_wake_up_between_announcing_and_sleeping_is_not_lost) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &known, &ordered);
  event_signal(&event, 1);
  cr_assert_eq(shmq__event_sleep(&event, value, SHMQ_FOREVER), -EAGAIN);
  value = shmq__event_announce(&event, &known, &ordered);
  shmq__event_wake_all(&event);
  cr_assert_eq(shmq__event_sleep(&event, value, SHMQ_FOREVER), -EAGAIN);
}

Test(core_wake, a_sleep_ends_at_its_deadline) {
  bool ordered;
  uint32_t known = 0;
  shmq__event event = {.word = 0};
  uint32_t value = shmq__event_announce(&event, &known, &ordered);
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
  uint32_t known = 0;
  uint32_t value = shmq__event_announce(s->event, &known, &ordered);
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
      for (int i = 0; i < SLEEPERS; i++) event_signal(&event, 1);
    for (int i = 0; i < SLEEPERS; i++) pthread_join(sleepers[i].thread, NULL);
    cr_assert_eq(woken, SLEEPERS);
    event_signal(&event, 1);
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
