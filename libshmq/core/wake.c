/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wake.h"

#include <limits.h>

#include "core/crashpoint.h"
#include "os/futex.h"

/* An attempt fails when somebody else woke or announced; only who scribbles on the word goes on for ever. */
#define WAKE_ATTEMPTS 4096
#define NEXT 8u /* what the sequence counts in */
#define FENCES_IN_VAIN 16u

/* Is anybody announced? Told to fence, the caller looks once more, in order. */
static bool anybody_sleeps(shmq__event *event, uint32_t *seen, uint32_t *fences) {
  uint32_t last = FENCES_IN_VAIN - 1;
  if (!fences) fences = &last;
  if (!(*seen & EVENT_SLEEPERS)) *seen = a_add(&event->word, 0u); /* E5 */
  bool some = *seen & EVENT_SLEEPERS;
  if (!some && ++*fences < FENCES_IN_VAIN) return false;
  *fences = 0;
  if (!some && *seen & EVENT_FENCED)
    (void)a_cas(&event->word, seen, *seen & ~(EVENT_FENCED | EVENT_SETTLED));
  return some;
}

void shmq__event_wake(shmq__event *event, int n, uint32_t *fences) {
  uint32_t seen = a_load(&event->word);
  if (!anybody_sleeps(event, &seen, fences)) return;
  for (int attempts = 0; seen & EVENT_SLEEPERS && attempts < WAKE_ATTEMPTS; attempts++) {
    uint32_t raised = seen + NEXT;
    if (!a_cas(&event->word, &seen, raised)) continue;
    /* If we die here nobody is woken, but SLEEPERS is still set: the next publication wakes, or
     * the sleepers' own bounded look does. */
    CRASHPOINT("wake.raised");
    if (shmq__futex_wake(&event->word, n) > 0) return;
    if (a_cas(&event->word, &raised, (raised + NEXT) & ~EVENT_SLEEPERS))
      (void)shmq__futex_wake(&event->word, INT_MAX);
    return;
  }
}

void shmq__event_wake_all(shmq__event *event) {
  (void)a_add(&event->word, NEXT);
  (void)shmq__futex_wake(&event->word, INT_MAX);
}

uint32_t shmq__event_announce(shmq__event *event, bool *ordered) {
  uint32_t before = a_or(&event->word, EVENT_SLEEPERS | EVENT_FENCED); /* E1 */
  uint32_t announced = before | EVENT_SLEEPERS | EVENT_FENCED, settled = announced | EVENT_SETTLED;
  *ordered = before & EVENT_SETTLED || shmq__barrier_others();
  if (before & EVENT_SETTLED || !*ordered) return announced;
  CRASHPOINT("wake.ordered");
  uint32_t now = announced;
  return a_cas(&event->word, &now, settled) ? settled : announced;
}

int shmq__event_sleep(shmq__event *event, uint32_t value, int64_t deadline_ns) {
  return shmq__futex_wait(&event->word, value, deadline_ns);
}
