/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wake.h"

#include <limits.h>

#include "core/crashpoint.h"
#include "os/futex.h"

/* An attempt fails when somebody else woke or announced; only who scribbles on the word goes on for ever. */
#define WAKE_ATTEMPTS 4096

void shmq__event_wake(shmq__event *event, int n) {
  uint32_t seen = a_load(&event->word);
  for (int attempts = 0; seen & EVENT_SLEEPERS && attempts < WAKE_ATTEMPTS; attempts++) {
    uint32_t raised = seen + 2;
    if (!a_cas(&event->word, &seen, raised)) continue;
    /* If we die here nobody is woken, but SLEEPERS is still set: the next publication wakes, or
     * the sleepers' own bounded look does. */
    CRASHPOINT("wake.raised");
    if (shmq__futex_wake(&event->word, n) > 0) return;
    if (a_cas(&event->word, &raised, (raised + 4) & ~EVENT_SLEEPERS))
      (void)shmq__futex_wake(&event->word, INT_MAX);
    return;
  }
}

void shmq__event_wake_all(shmq__event *event) {
  (void)a_add(&event->word, 2u);
  (void)shmq__futex_wake(&event->word, INT_MAX);
}

uint32_t shmq__event_announce(shmq__event *event, uint32_t *known, bool *ordered) {
  uint32_t before = a_or(&event->word, EVENT_SLEEPERS), announced = before | EVENT_SLEEPERS; /* E1 */
  bool stands = *known & EVENT_SLEEPERS && before - *known <= 2;
  *ordered = stands || shmq__barrier_others();
  *known = *ordered ? announced : 0;
  return announced;
}

int shmq__event_sleep(shmq__event *event, uint32_t value, int64_t deadline_ns) {
  return shmq__futex_wait(&event->word, value, deadline_ns);
}
