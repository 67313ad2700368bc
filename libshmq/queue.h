/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue handle and what the files of public calls share. Private to the library.
 */
#ifndef SHMQ_QUEUE_H
#define SHMQ_QUEUE_H

#include "core/block.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/wake.h"

struct shmq__pollable;

struct shmq {
  struct shmq_segment *segment;
  struct shmq *next, **link;               /* list of the attachment's handles */
  const struct shmq__queue_config *config; /* private copy */
  struct shmq__queue *queue;               /* shared */
  const shmq__ring_view *rings;            /* config->priorities bands, lowest first */
  uint32_t plain_room;     /* shorter messages take the fast path; 0: bands or stamps are in use */
  uint32_t number;         /* of the queue in the segment */
  unsigned flags;          /* SHMQ_SPIN, SHMQ_NOSPIN */
  uint32_t held;           /* leases and reservations not settled */
  uint32_t producer_epoch; /* join_epoch in which this side was entered: joined, and with its role if that is single */
  uint32_t consumer_epoch;
  uint32_t spins; /* how long the next wait spins before it sleeps, 0: never; adapts (waiting.c) */
  bool short_pause;      /* as long as a look */
  uint32_t first_pauses; /* more before the first short look of a wait */
  uint32_t spin_rest;                          /* short sleeps until the budget grows again */
  uint32_t fences_empty, fences_full;          /* in vain, on either event (wake.h) */
  uint64_t return_cursor[SHMQ_PRIORITIES_MAX]; /* where the next scan for returned cells begins */
  struct shmq__pollable *pollable;
  bool naps;         /* before it announces a sleep */
  uint32_t nap_rest; /* waits until the next one */
};

/* A message taken from a ring or a position reserved in one: what shmq_message.opaque holds. */
enum shmq__hold { HOLD_NONE, HOLD_LEASED, HOLD_RESERVED };
struct shmq__held {
  const shmq__ring_view *ring;
  uint64_t position;
  uint64_t word; /* leased: the cell's word as it stands until settled; reserved: FREE */
  int64_t block; /* index or -1 */
  uint32_t size; /* of a message in a block */
};

/* ---- queue.c ---- */

/* Join if need be and hold the single role of this side if there is one. Fast when both are so. */
int shmq__enter_slow(shmq *q, bool producer);
static inline int enter(shmq *q, bool producer) {
  uint32_t epoch = producer ? q->producer_epoch : q->consumer_epoch;
  return likely(epoch == q->segment->join_epoch) ? 0 : shmq__enter_slow(q, producer);
}

/* ---- signals (wake.h) ---- */

static inline void signal_takers(shmq *q, int n) {
  event_signal(&q->queue->not_empty, n, &q->fences_empty);
}
static inline void signal_putters(shmq *q, int n) {
  event_signal(&q->queue->not_full, n, &q->fences_full);
}

/* ---- waiting.c: the loop around every call that may wait ---- */

/* Rounds of looking before sleeping: about as long as a sleep and its wake-up cost. */
#define SHMQ__SPINS_MIN 64u
#define SHMQ__SPINS_MAX 1024u
/* Where cells share a line, whoever looks takes it from who is about to write the next ones in it. */
#define SHMQ__FIRST_PAUSES 2u

struct shmq__waiter {
  shmq *queue;
  shmq__event *event;
  int64_t deadline_ns;
  int64_t look_ns; /* interval of the next bounded look */
  uint32_t spins;
  uint32_t value; /* announced */
  bool short_looks; /* pauses after each, and looks at less than an attempt does */
  bool napped;
  bool announced;
  bool ordered;
  bool slept; /* at any time in this wait */
};
/* Start a wait on an event of q's. */
static inline struct shmq__waiter waiter(shmq *q, shmq__event *event, int64_t deadline_ns) {
  return (struct shmq__waiter){.queue = q, .event = event, .deadline_ns = deadline_ns};
}
/* The condition did not hold: spin, announce or sleep. Returns 0: look again; -EAGAIN, -ETIMEDOUT, -EINTR. */
int shmq__wait(struct shmq__waiter *w);
/* The condition held at last. `more` says whether it would hold for another sleeper as well: then a wake-up is
 * passed on (wake.h). */
static inline void waited(const struct shmq__waiter *w, bool more) {
  shmq *q = w->queue;
  if (!w->slept || !more) return;
  if (w->event == &q->queue->not_empty)
    signal_takers(q, 1);
  else if (w->event == &q->queue->not_full)
    signal_putters(q, 1);
  else
    event_signal(w->event, 1, NULL);
}

/* What is waited for turned out to be something else: what we may have been woken for is of use to others. */
static inline void wait_for(struct shmq__waiter *w, shmq__event *event) {
  if (w->event == event) return;
  waited(w, true);
  w->event = event;
  w->announced = false;
}

/* Would a taker get a message, or -EPIPE? Would a putter of a message that fits a cell go on? Looks at words
 * only. (wait_many.c) */
bool shmq__readable(const shmq *q);
bool shmq__writable(const shmq *q);

/* ---- deliver.c: taking and settling ---- */

/* Take up to want messages, redeliveries first; out[i] are the caller's to settle. limits as in ring_take.
 * Returns how many, -EAGAIN, -EPIPE (shut down and nothing left), -EMSGSIZE, -EBADMSG. */
int shmq__take(shmq *q, uint32_t want, const struct iovec *limits, struct shmq__held *out);

/* Sort what ring_take brought: free tombstones, keep what can be delivered. Returns how many. */
int shmq__keep_deliverable(shmq *q, const shmq__ring_view *r, uint64_t first, int n,
                           const uint64_t *words, struct shmq__held *out);

/* Take the oldest message of one band that nobody holds. Returns 1, 0 when only a tombstone or an expired or delayed
 * message went out of the way, -EAGAIN. */
int shmq__take_oldest(shmq *q, uint32_t band, struct shmq__held *out);
/* Take the message whose cell tail waits for. 1, 0: there was one and it is out of the way, -EAGAIN: somebody holds
 * it. */
int shmq__take_obstacle(shmq *q, uint32_t band, struct shmq__held *out);

/* The message is done: free its cell, then its block. */
void shmq__settle_done(shmq *q, const struct shmq__held *held);
/* The message goes back, to be delivered again, not before `not_before_ns` when that is not 0. */
void shmq__settle_returned(shmq *q, const struct shmq__held *held, uint32_t attempts,
                           int64_t not_before_ns, const shmq_cause *cause);
/* Wake whoever drains or joins, if this left nothing to take. */
void shmq__signal_idle_slow(shmq *q);
static inline void shmq__signal_idle(shmq *q) {
  if (unlikely(a_load_seq(&q->queue->idle.word) & (EVENT_SLEEPERS | EVENT_FENCED)))
    shmq__signal_idle_slow(q);
}
/* Could a message wait behind head: returned? In a queue without times nothing else does. */
static inline bool shmq__has_returned(const shmq *q) {
  return a_load(&q->queue->returned_seq) != a_load(&q->queue->returned_seen);
}
/* The same, or delayed until now? */
static inline bool shmq__may_have_returned(const shmq *q) {
  if (unlikely(shmq__has_returned(q))) return true;
  if (likely(q->plain_room)) return false;
  int64_t due = a_load(&q->queue->next_due_ns);
  return due > 0 && shmq_now_ns() >= due;
}
/* Move messages that are past their limit to the dead letter queue; retry those it had no room for. */
void shmq__sweep_dead_letters(shmq *q);

/* Dispose of the messages at head of a timed band whose time has passed. Returns when the next one's has, 0: it has
 * none. For guards: takers do it for themselves. */
int64_t shmq__expire_ready(shmq *q, uint32_t band, int64_t now);
/* Take charge of the block of a message that was just taken (core/block.h, B1), if it has one. -EBADMSG. */
int shmq__held_charge(shmq *q, struct shmq__held *held);
/* The same, and where the payload is; a damaged message is disposed of. -EBADMSG. */
int shmq__held_payload(shmq *q, struct shmq__held *held, void **data, size_t *size);

/* What a message's opaque words say; and back. One of them is its block's index + 1, or 0. */
enum { MESSAGE_BLOCK = 3 };
void shmq__message_fill(shmq_message *message, const shmq *q, const struct shmq__held *held,
                        enum shmq__hold hold, void *data, size_t size);
/* 0, -EINVAL not a message in that state, -ESTALE held by an earlier join, the parent, or nobody. */
int shmq__message_held(const shmq *q, const shmq_message *message, enum shmq__hold hold,
                       struct shmq__held *held);
enum shmq__hold shmq__message_hold(const shmq_message *message);

/* ---- publish.c: reserving and publishing ---- */

struct shmq__post {
  uint32_t band;
  int64_t not_before_ns, expires_ns;
};
/* Take one position for a message of `size` bytes, and a block when it is longer than a cell.
 * Errors: -EAGAIN, and *event says what to wait for; -EPIPE, -EMSGSIZE, -EINVAL. */
int shmq__reserve(shmq *q, size_t size, const struct shmq__post *post, struct shmq__held *out,
                  shmq__event **event);
/* The same, waiting and dropping as the queue's policy says. Returns 1 when the new message is the
 * one that was dropped. */
int shmq__reserve_wait(shmq *q, size_t size, const struct shmq__post *post, struct shmq__held *out,
                       int64_t deadline_ns);
/* Where a reservation's payload goes. */
static inline void *shmq__reserved_memory(const shmq *q, const struct shmq__held *held) {
  if (held->block >= 0) return block_memory(q->segment, (uint32_t)held->block);
  return cell_payload(held->ring, held->position);
}
/* After a claim: did a shutdown come first? Together with finished() in deliver.c this is Dekker's
 * handshake: claim then look at shut, against set shut then look at tail. */
static inline bool shmq__shut_after_claim(shmq *q) {
  atomic_signal_fence(memory_order_seq_cst);
  if (likely(q->segment->asymmetric)) return a_load_seq(&q->queue->shut);
  return a_add(&q->queue->shut, 0u);
}
/* The READY word of a reservation. */
uint64_t shmq__ready_word(const struct shmq__held *held, size_t size);
void shmq__publish(shmq *q, const struct shmq__held *held, size_t size);
void shmq__give_up(shmq *q, const struct shmq__held *held);

/* Move a held message to `to` as one step, its block along with it; cause, when not NULL, goes into its stamp.
 * -EAGAIN no room, and *event says of what kind; -EPIPE, -EMSGSIZE; the message is still held then. */
int shmq__move(shmq *from, const struct shmq__held *held, shmq *to, const shmq_cause *cause,
               shmq__event **event);

/* Small copies without a call: the two halves overlap. */
static inline void copy_bytes(void *to, const void *from, size_t n) {
  typedef uint64_t quarter __attribute__((vector_size(16)));
  if (n - 8 <= 8) {
    uint64_t first, last;
    memcpy(&first, from, 8);
    memcpy(&last, (const char *)from + n - 8, 8);
    memcpy(to, &first, 8);
    memcpy((char *)to + n - 8, &last, 8);
  } else if (n - 32 <= 32) {
    quarter a, b, c, d;
    memcpy(&a, from, 16);
    memcpy(&b, (const char *)from + 16, 16);
    memcpy(&c, (const char *)from + n - 32, 16);
    memcpy(&d, (const char *)from + n - 16, 16);
    memcpy(to, &a, 16);
    memcpy((char *)to + 16, &b, 16);
    memcpy((char *)to + n - 32, &c, 16);
    memcpy((char *)to + n - 16, &d, 16);
  } else if (n > 0) {
    memcpy(to, from, n);
  }
}

/* A participant's own counter: only its owner writes it. */
static inline void count(_Atomic uint64_t *counter, uint64_t n) {
  a_store_relaxed(counter, a_load_relaxed(counter) + n);
}

/* Publish or free with the order that the wake protocol needs (wake.h, E3 before E4). */
static inline void word_release(const shmq *q, _Atomic uint64_t *word, uint64_t value) {
  if (likely(q->segment->asymmetric))
    a_store(word, value);
  else
    (void)a_xchg(word, value);
}

#endif
