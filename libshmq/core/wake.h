/* SPDX-License-Identifier: Apache-2.0
 *
 * The event count: when to sleep and when to wake.
 *
 *   word = sequence 31 | SLEEPERS 1
 *
 *   sleeper:  v = announce(): SLEEPERS set              (E1: RMW, then a barrier on all participants)
 *             look at the condition again                 (E2)
 *             sleep(v): the kernel sleeps only while word == v
 *   waker:    make the condition true (publish, free)     (E3)
 *             signal(): SLEEPERS set? then word += 2, wake n  (E4: the load of word)
 *             nobody was there: clear SLEEPERS if word has not moved (word += 4), and wake all once more
 *
 * Lost wake-ups: either E4 sees E1 and wakes, or E3 is visible to E2. That needs E3 before E4 on the waker
 * and E1 before E2 on the sleeper, both store->load. The waker pays nothing for it: where every
 * participant is registered, the sleeper's barrier (membarrier) executes one on the waker's CPU. A
 * participant that could not register publishes with a sequentially consistent RMW instead.
 *
 * SLEEPERS stays set after a wake-up, so each further publication wakes one more sleeper. It goes when a
 * wake-up found nobody; who announced unseen (the bit was set already) and fell asleep between that wake-up
 * and the clearing is caught by the second one, and who had not fallen asleep finds the word changed. Announcing
 * does not change a word whose bit is set, so sleepers do not disturb one another.
 *
 * An announcement that stands. A barrier orders everybody's earlier publications; who publishes later sees SLEEPERS
 * for as long as it is set. So whose last announcement was ordered, and has not been cleared since, need not order it again:
 * barriers interrupt every CPU that has a participant. Raising adds 2 and clearing 4 more, so a word that has moved by at most
 * 2 has not been cleared. (With 2 for clearing, a clearing that belongs to a raise from before the announcement looks like a
 * raise.) If the sequence wraps to just there while somebody is away, the bounded look is what is left.
 *
 * Passing on: a wake-up may reach a taker that cannot use it yet, because positions are published out of
 * order. So whoever slept and then succeeded wakes one more if there is more to be had.
 *
 * Deaths: a sleeper that dies leaves SLEEPERS set, which costs one system call. A waker that dies between
 * publishing and waking, or a sleeper that dies after it was woken, takes a wake-up along: recovery
 * signals everybody, and sleepers look again at bounded intervals since they may be the only ones left.
 */
#ifndef SHMQ_CORE_WAKE_H
#define SHMQ_CORE_WAKE_H

#include "core/layout.h"

#define EVENT_SLEEPERS 1u

/* Slow half of event_signal. */
void shmq__event_wake(shmq__event *event, int n);

/* After the condition became true: wake up to n sleepers if anybody is announced. */
static inline void event_signal(shmq__event *event, int n) {
  atomic_signal_fence(memory_order_seq_cst); /* E3 before E4 for the compiler */
  if (unlikely(a_load_seq(&event->word) & EVENT_SLEEPERS)) shmq__event_wake(event, n);
}

/* Wake everybody, announced or not. For recovery and shutdown. */
void shmq__event_wake_all(shmq__event *event);

/* Announce a sleeper. Returns the value to sleep on; the caller looks at its condition in between.
 * *ordered is false when others could not be made to order their publications: sleep briefly then. *known is the
 * caller's memory of its last ordered announcement on this event, 0 at first. */
uint32_t shmq__event_announce(shmq__event *event, uint32_t *known, bool *ordered);

/* As shmq__futex_wait. */
int shmq__event_sleep(shmq__event *event, uint32_t value, int64_t deadline_ns);

#endif
