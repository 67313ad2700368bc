/* SPDX-License-Identifier: Apache-2.0
 *
 * Public calls of consumers.
 */
#include "base/time.h"
#include "os/process.h"
#include "queue.h"

/* ---- waiting ---- */

/* What a call wants: up to n messages, copied to `to` or held in `out`. */
struct wanted {
  uint32_t n;
  struct iovec *to;
  struct shmq__held *out;
};
/* w is the wait that the attempt is part of, NULL: none yet. */
typedef ssize_t attempt(shmq *q, const struct wanted *wanted, const struct shmq__waiter *w);

/* Certainly nothing to take yet. A short look; without a pause after it, it would take the cell's line away from who is writing in it
 * more often than an attempt does. */
static inline bool nothing_yet(const struct shmq__waiter *w) {
  const shmq *q = w->queue;
  return w->short_looks && !shmq__has_returned(q) && !a_load_seq(&q->queue->shut) && ring_has_nothing(q->rings);
}

/* The attempt failed: again and again, until it does not. */
__attribute__((always_inline)) static inline ssize_t
wait_and(attempt *take, shmq *q, const struct wanted *wanted, int64_t deadline_ns) {
  struct shmq__waiter w = waiter(q, &q->queue->not_empty, deadline_ns);
  w.short_looks = q->short_pause && q->plain_room && wanted->to; /* a call whose answer is leased is 1.05 times as long with them */
  ssize_t got;
  do {
    do {
      int rc = shmq__wait(&w);
      if (rc < 0) return rc;
    } while (nothing_yet(&w));
    got = take(q, wanted, &w);
  } while (got == -EAGAIN);
  return got;
}

/* The general way, for whatever the fast paths do not know and for who has slept: before it copies anything it passes on the wake-up that may
 * have been meant for another. */
static int take_held(shmq *q, uint32_t want, const struct iovec *limits, struct shmq__held *out,
                     const struct shmq__waiter *w) {
  int got = shmq__take(q, want, limits, out);
  if (w && w->slept && got != -EAGAIN) waited(w, shmq__readable(q));
  return got;
}
static inline bool goes_fast(const shmq *q, const struct shmq__waiter *w) { return q->plain_room && !(w && w->slept); }

/* ---- copies ---- */

static void count_gets(const shmq *q, uint64_t n) {
  count(&q->segment->mine->gets, n);
}

/* Copy a taken message out and settle it. -EMSGSIZE: it does not fit, and is still held. The size is looked at
 * anew, since a block's reference is shared bytes that were only glanced at before the take. */
static ssize_t copy_out(shmq *q, struct shmq__held *held, const struct iovec *to) {
  void *data;
  size_t size;
  int rc = shmq__held_payload(q, held, &data, &size);
  if (unlikely(rc < 0)) return rc;
  if (unlikely(size > to->iov_len)) return -EMSGSIZE;
  if (size > 0) memcpy(to->iov_base, data, size);
  CRASHPOINT("get.copied"); /* not settled: it is delivered again */
  shmq__settle_done(q, held);
  return (ssize_t)size;
}

/* Taken messages that the caller cannot keep go back undelivered. */
static void put_back(shmq *q, const struct shmq__held *held, int n) {
  for (int i = 0; i < n; i++)
    shmq__settle_returned(q, &held[i], cell_attempts(held[i].word), 0, NULL);
}

__attribute__((always_inline)) static inline ssize_t copy_cell(shmq *q, const shmq__ring_view *r, uint64_t p, void *data,
                                uint32_t size, bool dirty) {
  copy_bytes(data, cell_payload(r, p), size);
  if (dirty) ring_dirty(r, cell_payload(r, p), size);
  CRASHPOINT("get.copied"); /* not settled: it is delivered again */
  word_release(q, cell_word(r, p), cell_free(next_turn(r, p))); /* C2 */
  signal_putters(q, 1);
  shmq__signal_idle(q);
  return size;
}

/* A path of its own: two more instructions in that of short messages are felt there. */
__attribute__((noinline)) static ssize_t copy_long_cell(shmq *q, const shmq__ring_view *r, uint64_t p,
                                                        void *data, uint32_t size) {
  ring_prefetch_message(r, position_add(p, 1));
  return copy_cell(q, r, p, data, size, r->return_dirty);
}

/* The fast path: one message that lies in a cell of a plain queue. -EAGAIN: go the general way. */
__attribute__((always_inline)) static inline ssize_t get_cell(shmq *q, void *data, size_t room) {
  const shmq__ring_view *r = q->rings;
  uint64_t p, w;
  if (unlikely(shmq__has_returned(q))) return -EAGAIN;
  if (!ring_take_one_short(r, q->segment->me, room, &p, &w)) return -EAGAIN;
  uint32_t size = cell_length(w);
  return unlikely(size > r->short_bytes) ? copy_long_cell(q, r, p, data, size)
                                         : copy_cell(q, r, p, data, size, false);
}

__attribute__((noinline)) static ssize_t get_held(shmq *q, const struct iovec *to,
                                                  const struct shmq__waiter *w) {
  struct shmq__held held;
  int rc = take_held(q, 1, to, &held, w);
  if (rc < 0) return rc;
  ssize_t got = copy_out(q, &held, to);
  if (unlikely(got == -EMSGSIZE)) put_back(q, &held, 1);
  return got;
}

static ssize_t get_one(shmq *q, const struct wanted *wanted, const struct shmq__waiter *w) {
  const struct iovec *to = wanted->to;
  ssize_t got = goes_fast(q, w) ? get_cell(q, to->iov_base, to->iov_len) : -EAGAIN;
  return got != -EAGAIN ? got : get_held(q, to, w);
}

/* Apart from the fast path, which keeps in registers what this one has in memory. */
__attribute__((noinline)) static ssize_t get_slowly(shmq *q, void *data, size_t size, int64_t deadline_ns) {
  struct iovec room = {.iov_base = data, .iov_len = size};
  const struct wanted wanted = {.n = 1, .to = &room};
  ssize_t got = get_held(q, &room, NULL);
  if (got == -EAGAIN) got = wait_and(get_one, q, &wanted, deadline_ns);
  if (likely(got >= 0)) count_gets(q, 1);
  return got;
}

ssize_t shmq_get(shmq *q, void *data, size_t size, int64_t deadline_ns) {
  if (unlikely(!q || (!data && size > 0))) return -EINVAL;
  int rc = enter(q, false);
  if (unlikely(rc < 0)) return rc;
  if (unlikely(!q->plain_room)) return get_slowly(q, data, size, deadline_ns);
  ssize_t got = get_cell(q, data, size);
  if (unlikely(got < 0)) return get_slowly(q, data, size, deadline_ns);
  count_gets(q, 1);
  return got;
}

/* The fast path: up to n messages that lie in cells of a plain queue. Returns how many; 0: go the general way. */
static int get_run(shmq *q, struct iovec *iov, uint32_t n) {
  const shmq__ring_view *r = q->rings;
  uint64_t first = 0, words[SHMQ_BATCH_MAX];
  if (shmq__has_returned(q)) return 0;
  if (n > r->capacity) n = r->capacity;
  int got = (int)ring_take_short(r, q->segment->me, n, iov, &first, words);
  if (got == 0) return 0;
  struct ring_walk at = ring_walk_from(r, first);
  for (int i = 0; i < got; i++, ring_walk_on(r, &at)) {
    iov[i].iov_len = cell_length(words[i]);
    copy_bytes(iov[i].iov_base, at.cell + r->payload_offset, iov[i].iov_len);
    if (r->return_dirty) ring_dirty(r, at.cell + r->payload_offset, (uint32_t)iov[i].iov_len);
  }
  CRASHPOINT("get.copied");
  /* The first last, as in put_run: a putter polls it. */
  const struct ring_walk next = ring_walk_from(r, position_add(first, r->capacity));
  at = next;
  for (int i = 1; i < got; i++) {
    ring_walk_on(r, &at);
    a_store(ring_walk_word(&at), at.free); /* C2 */
  }
  word_release(q, ring_walk_word(&next), next.free);
  signal_putters(q, got);
  shmq__signal_idle(q);
  return got;
}

/* A message that does not fit its buffer ends it. */
static int get_held_run(shmq *q, struct iovec *iov, uint32_t want, const struct shmq__waiter *w) {
  struct shmq__held held[SHMQ_BATCH_MAX];
  int got = take_held(q, want, iov, held, w), done = 0, error = -EBADMSG;
  if (got < 0) return got;
  for (int i = 0; i < got; i++) {
    ssize_t size = copy_out(q, &held[i], &iov[done]);
    if (size == -EMSGSIZE) {
      /* Tombstones and expired messages shift the rest against the limits they were taken under. */
      put_back(q, &held[i], got - i);
      error = -EMSGSIZE;
      break;
    }
    if (size >= 0) iov[done++].iov_len = (size_t)size;
  }
  return done > 0 ? done : error;
}

static ssize_t get_some(shmq *q, const struct wanted *wanted, const struct shmq__waiter *w) {
  int got = goes_fast(q, w) ? get_run(q, wanted->to, wanted->n) : 0;
  return got > 0 ? got : get_held_run(q, wanted->to, wanted->n, w);
}

static uint32_t at_most(int n) { return n < SHMQ_BATCH_MAX ? (uint32_t)n : SHMQ_BATCH_MAX; }

int shmq_get_batch(shmq *q, struct iovec *iov, int n, int64_t deadline_ns) {
  if (!q || !iov || n < 1) return -EINVAL;
  const struct wanted wanted = {.n = at_most(n), .to = iov};
  int rc = enter(q, false);
  if (rc < 0) return rc;
  ssize_t got = get_some(q, &wanted, NULL);
  if (unlikely(got == -EAGAIN)) got = wait_and(get_some, q, &wanted, deadline_ns);
  if (likely(got > 0)) count_gets(q, (uint64_t)got);
  return (int)got;
}

/* ---- leases ---- */

static ssize_t lease_some(shmq *q, const struct wanted *wanted, const struct shmq__waiter *w) {
  return take_held(q, wanted->n, NULL, wanted->out, w);
}

int shmq_lease_batch(shmq *q, shmq_message *messages, int n, int64_t deadline_ns) {
  struct shmq__held held[SHMQ_BATCH_MAX];
  if (!q || !messages || n < 1) return -EINVAL;
  const struct wanted wanted = {.n = at_most(n), .out = held};
  int rc = enter(q, false), leased = 0;
  if (rc < 0) return rc;
  ssize_t got = lease_some(q, &wanted, NULL);
  if (got == -EAGAIN) got = wait_and(lease_some, q, &wanted, deadline_ns);
  if (got < 0) return (int)got;
  for (int i = 0; i < (int)got; i++) {
    void *data;
    size_t size;
    if (shmq__held_payload(q, &held[i], &data, &size) < 0) continue;
    shmq__message_fill(&messages[leased++], q, &held[i], HOLD_LEASED, data, size);
  }
  q->held += (uint32_t)leased;
  return leased > 0 ? leased : -EBADMSG;
}

int shmq_lease(shmq *q, shmq_message *message, int64_t deadline_ns) {
  int rc = shmq_lease_batch(q, message, 1, deadline_ns);
  return rc < 0 ? rc : 0;
}

int shmq_ack(shmq *q, shmq_message *message) {
  struct shmq__held held;
  int rc = shmq__message_held(q, message, HOLD_LEASED, &held);
  if (rc < 0) return rc;
  shmq__settle_done(q, &held);
  count_gets(q, 1);
  q->held--;
  memset(message, 0, sizeof *message);
  return 0;
}

int shmq_ack_batch(shmq *q, shmq_message *messages, int n) {
  for (int i = 0; i < n; i++) {
    int rc = shmq_ack(q, &messages[i]);
    if (rc < 0) return i > 0 ? i : rc;
  }
  return n;
}

int shmq_nack_with(shmq *q, shmq_message *message, int64_t delay_ns, const shmq_cause *cause) {
  struct shmq__held held;
  int rc = shmq__message_held(q, message, HOLD_LEASED, &held);
  if (rc < 0) return rc;
  if (delay_ns < 0) return -EINVAL;
  if (delay_ns > 0 && !(q->config->flags & SHMQ_TIMED)) return -EOPNOTSUPP;
  uint32_t attempts = cell_attempts(held.word) + 1;
  shmq_cause given = {.status = -1, .reason = SHMQ_REASON_NACKED};
  if (cause) given = *cause;
  if (given.pid == 0) given.pid = a_load(&q->segment->mine->pid);
  if (given.when_ns == 0 && held.ring->tracked) given.when_ns = shmq__wall_clock_ns();
  given.attempts = attempts;
  int64_t not_before = delay_ns > 0 ? time_add(shmq__now_ns(), delay_ns) : 0;
  shmq__settle_returned(q, &held, attempts, not_before, &given);
  q->held--;
  memset(message, 0, sizeof *message);
  return 0;
}

int shmq_nack(shmq *q, shmq_message *message) { return shmq_nack_with(q, message, 0, NULL); }
