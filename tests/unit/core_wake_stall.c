/* SPDX-License-Identifier: Apache-2.0
 *
 * Who stands still in the middle of waking or announcing while others go on. The event count is compiled here with its
 * crash points, which is where it is made to stand.
 */
#define SHMQ_CRASHPOINTS
#include "core/wake.c"

#include <criterion/criterion.h>
#include <string.h>

void (*shmq__crashpoint_hook)(const char *name);

static shmq__event event;
static uint32_t announced_between;
static bool ordered;

static void a_sleeper_announces(const char *name) {
  if (strcmp(name, "wake.raised") != 0) return;
  shmq__crashpoint_hook = NULL;
  announced_between = shmq__event_announce(&event, &ordered);
}

/* Announced between the raise and the clearing, and not asleep yet: it may not find its word again, though the next
 * sleeper announces the same bits. Its announcement is gone. */
Test(core_wake_stall, a_clearing_and_a_new_announcement_do_not_bring_the_word_back) {
  (void)shmq__event_announce(&event, &ordered);
  shmq__crashpoint_hook = a_sleeper_announces;
  event_signal(&event, 1, NULL); /* finds nobody asleep */
  cr_assert(announced_between & EVENT_SLEEPERS);
  cr_assert_eq(event.word & EVENT_SLEEPERS, 0);
  cr_assert_neq(shmq__event_announce(&event, &ordered), announced_between);
}

static void fences_end_and_begin(const char *name) {
  if (strcmp(name, "wake.ordered") != 0) return;
  shmq__crashpoint_hook = NULL;
  event_signal(&event, 1, NULL); /* ends the announcement */
  event_signal(&event, 1, NULL); /* and then the fences */
  cr_assert_eq(event.word & (EVENT_SLEEPERS | EVENT_FENCED), 0);
  (void)a_or(&event.word, EVENT_SLEEPERS | EVENT_FENCED); /* and the next sleeper's barrier is still to come */
}

/* A barrier settles the fences that had begun before it, and none that began after. */
Test(core_wake_stall, what_began_anew_behind_a_barrier_is_not_settled_by_it) {
  shmq__crashpoint_hook = fences_end_and_begin;
  (void)shmq__event_announce(&event, &ordered);
  cr_assert_eq(event.word & 7, EVENT_SLEEPERS | EVENT_FENCED);
}
