/* SPDX-License-Identifier: Apache-2.0
 *
 * The event count: when to sleep and when to wake.
 *
 *   word = sequence 29 | SETTLED 1 | FENCED 1 | SLEEPERS 1
 *
 *   sleeper:  v = announce(): SLEEPERS and FENCED set   (E1: RMW, then a barrier on all participants or SETTLED)
 *             look at the condition again                 (E2)
 *             sleep(v): the kernel sleeps only while word == v
 *   waker:    make the condition true (publish, free)     (E3)
 *             signal(): SLEEPERS set? then word += 8, wake n  (E4: the load of word)
 *             nobody was there: clear SLEEPERS if word has not moved (word += 8), and wake all once more
 *
 * Lost wake-ups: either E4 sees E1 and wakes, or E3 is visible to E2. That needs E3 before E4 on the waker
 * and E1 before E2 on the sleeper, both store->load. Where nobody sleeps the waker pays nothing for it: every
 * participant is registered, and the sleeper's barrier (membarrier) executes one on the waker's CPU. A
 * participant that could not register publishes with a sequentially consistent RMW instead.
 *
 * That barrier interrupts every CPU that has a participant of anything, for microseconds, and so is paid once where
 * sleepers come often. FENCED tells wakers to look a second time, by an RMW (E5): it sees E1, or E1 comes after it in the
 * order of the word and E2 sees E3. Once the sleeper that set FENCED has made its barrier, every E4 that did not see
 * FENCED lies before that barrier, and its E3 is visible; the sleeper sets SETTLED. Who finds SETTLED when it announces needs no
 * barrier: every E3 is visible by now, or its waker comes to E5. SETTLED is set only if the word has not moved since the
 * announcement: FENCED may have ended meanwhile, and begun anew. A waker that has met no sleeper at E5 FENCES_IN_VAIN times
 * has paid about what a barrier costs, and ends it: both bits go while SLEEPERS is clear, so nobody relies on them.
 *
 * SLEEPERS stays set after a wake-up, so each further publication wakes one more sleeper. It goes when a
 * wake-up found nobody; who announced unseen (the bit was set already) and fell asleep between that wake-up
 * and the clearing is caught by the second one, and who had not fallen asleep finds the word changed. Announcing
 * does not change a word whose bits are set, so sleepers do not disturb one another.
 *
 * Passing on: a wake-up may reach a taker that cannot use it yet, because positions are published out of
 * order. So whoever slept and then succeeded wakes one more if there is more to be had.
 *
 * Deaths: a sleeper that dies leaves SLEEPERS set, which costs one system call, and FENCED without SETTLED, which costs the
 * next sleeper its barrier. A waker that dies between publishing and waking, or a sleeper that dies after it was woken,
 * takes a wake-up along: recovery signals everybody, and sleepers look again at bounded intervals since they may be
 * the only ones left.
 */
#ifndef SHMQ_CORE_WAKE_H
#define SHMQ_CORE_WAKE_H

#include "core/layout.h"

#define EVENT_SLEEPERS 1u
#define EVENT_FENCED 2u
#define EVENT_SETTLED 4u

/* Slow half of event_signal. */
void shmq__event_wake(shmq__event *event, int n, uint32_t *fences);

/* After the condition became true: wake up to n sleepers if anybody is announced. *fences counts, for the
 * caller and this event, the looks at E5 that found nobody, 0 at first; NULL where sleepers are so rare that one is enough. */
static inline void event_signal(shmq__event *event, int n, uint32_t *fences) {
  atomic_signal_fence(memory_order_seq_cst); /* E3 before E4 for the compiler */
  if (unlikely(a_load_seq(&event->word) & (EVENT_SLEEPERS | EVENT_FENCED)))
    shmq__event_wake(event, n, fences);
}

/* Wake everybody, announced or not. For recovery and shutdown. */
void shmq__event_wake_all(shmq__event *event);

/* Announce a sleeper. Returns the value to sleep on; the caller looks at its condition in between.
 * *ordered is false when others could not be made to order their publications: sleep briefly then. */
uint32_t shmq__event_announce(shmq__event *event, bool *ordered);

/* As shmq__futex_wait. */
int shmq__event_sleep(shmq__event *event, uint32_t value, int64_t deadline_ns);

#endif
