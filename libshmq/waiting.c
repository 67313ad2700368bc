/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop around every call that may wait: try, spin, announce, try, sleep, look for the dead.
 */
#define _GNU_SOURCE
#include "base/time.h"
#include "os/process.h"
#include "queue.h"

#define LOOK_FIRST_NS INT64_C(50000000) /* the first bounded look */
#define LOOK_MAX_NS INT64_C(1000000000) /* and the longest interval between two */
#define GUARDED_NS INT64_C(64000000000) /* where a guard recovers the dead: it may die as well */
#define UNORDERED_NS INT64_C(1000000)   /* sleep where publications could not be ordered */
#define SPINS_WITHOUT_PAUSE 64u
#define SHORT_SLEEP_NS INT64_C(200000) /* somebody was about to come */
#define WAITS_BEFORE_RETRY 64u
#define NAP_NS INT64_C(2000)
#define NAP_REST 16u /* waits without one after one that was in vain */

static bool expired(const struct shmq__waiter *w, int64_t now) {
  return w->deadline_ns != SHMQ_FOREVER && now >= w->deadline_ns;
}

/* Spinning for the whole wait still owes the bounded look. */
static int spin(struct shmq__waiter *w, bool for_ever) {
  const shmq *q = w->queue;
  if (++w->spins > SPINS_WITHOUT_PAUSE || w->short_looks) shmq__pause();
  for (uint32_t i = 0; w->short_looks && w->spins == 1 && i < q->first_pauses; i++) shmq__pause();
  if (!for_ever || w->spins % 4096 != 0) return 0;
  int64_t now = shmq__now_ns();
  if (expired(w, now)) return -ETIMEDOUT;
  if (w->look_ns == 0) w->look_ns = now + LOOK_FIRST_NS;
  if (now >= w->look_ns) {
    w->look_ns = now + LOOK_MAX_NS;
    (void)shmq__recover_dead(w->queue->segment);
    shmq__sweep_dead_letters(w->queue);
  }
  return 0;
}

/* Before the sleep is announced, which interrupts others: who is at work on another CPU has the next message meanwhile. Without looking, for that
 * would take the line away that is being written, and several messages are taken faster together than each as it comes. */
static int nap(struct shmq__waiter *w) {
  int64_t until = shmq__now_ns() + NAP_NS;
  w->napped = true;
  while (shmq__now_ns() < until) shmq__pause();
  return 0;
}

/* When to wake by oneself: the deadline, the next look, or a delayed message's time. */
static int64_t sleep_until(const struct shmq__waiter *w, int64_t now) {
  int64_t look = shmq__guarded(w->queue->segment) ? GUARDED_NS : w->look_ns;
  int64_t until = time_min(w->deadline_ns, time_add(now, look));
  int64_t due = a_load(&w->queue->queue->next_due_ns);
  if (due > 0 && w->event == &w->queue->queue->not_empty) until = time_min(until, due);
  return w->ordered ? until : time_min(until, time_add(now, UNORDERED_NS));
}

/* How long to spin before the next sleep. Two sides that answer each other and both sleep, each for as long as the
 * other takes to wake, would do so for ever on a small budget: a short sleep doubles it. Where even the whole
 * budget ends in a sleep, as with more threads than CPUs, it falls back and rests for a while. */
static void learn(shmq *q, int64_t slept_ns) {
  if (q->spins == 0) return; /* told not to */
  if (slept_ns > SHORT_SLEEP_NS) {
    q->spins = SHMQ__SPINS_MIN;
  } else if (q->spin_rest > 0) {
    q->spin_rest--;
  } else if (q->spins < SHMQ__SPINS_MAX) {
    q->spins *= 2;
  } else {
    q->spins = SHMQ__SPINS_MIN;
    q->spin_rest = WAITS_BEFORE_RETRY;
  }
}

static int sleep(struct shmq__waiter *w) {
  int64_t now = shmq__now_ns();
  if (expired(w, now)) return -ETIMEDOUT;
  if (w->look_ns == 0) w->look_ns = LOOK_FIRST_NS;
  int rc = shmq__event_sleep(w->event, w->value, sleep_until(w, now));
  w->announced = false;
  w->slept = true;
  if (rc == -EINTR) return rc;
  int64_t woken = shmq__now_ns();
  learn(w->queue, woken - now);
  if (rc != -ETIMEDOUT) return 0;
  /* Nobody woke us for a while: we may be the only one left who can notice a death. */
  if (woken >= time_add(now, w->look_ns)) {
    w->look_ns = time_min(w->look_ns * 2, LOOK_MAX_NS);
    (void)shmq__recover_dead(w->queue->segment);
    shmq__sweep_dead_letters(w->queue);
  }
  return 0;
}

static void count_nap(shmq *q, bool in_vain) {
  if (in_vain)
    q->nap_rest = NAP_REST;
  else if (q->nap_rest > 0)
    q->nap_rest--;
}

int shmq__wait(struct shmq__waiter *w) {
  shmq *q = w->queue;
  if (w->deadline_ns == SHMQ_NOWAIT) return -EAGAIN;
  if (q->flags & SHMQ_SPIN) return spin(w, true);
  if (w->announced) return sleep(w);
  if (w->look_ns == 0) { /* it has not slept yet */
    if (w->spins < q->spins) return spin(w, false);
    if (q->naps && !w->napped && q->nap_rest == 0) return nap(w);
    if (q->naps) count_nap(q, w->napped);
  }
  w->value = shmq__event_announce(w->event, &w->ordered);
  w->announced = true;
  return 0; /* E2: the caller looks again before it sleeps */
}
