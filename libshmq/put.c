/* SPDX-License-Identifier: Apache-2.0
 *
 * Public calls of producers.
 */
#include "queue.h"

static int check_post(const shmq *q, const shmq_put_options *o, struct shmq__post *post) {
  if (!o) return 0;
  if ((o->not_before_ns || o->expires_ns) && !(q->config->flags & SHMQ_TIMED)) return -EOPNOTSUPP;
  if (o->not_before_ns < 0 || o->expires_ns < 0) return -EINVAL;
  uint32_t highest = q->config->priorities - 1;
  *post = (struct shmq__post){.band = o->priority < highest ? o->priority : highest,
                              .not_before_ns = o->not_before_ns,
                              .expires_ns = o->expires_ns};
  return 0;
}

static int put(shmq *q, const void *data, size_t size, const struct shmq__post *post,
               int64_t deadline_ns) {
  struct shmq__held held;
  int rc = shmq__reserve_wait(q, size, post, &held, deadline_ns);
  if (unlikely(rc != 0)) return rc < 0 ? rc : 0; /* 1: dropped by the policy, and counted */
  if (size > 0) memcpy(shmq__reserved_memory(q, &held), data, size);
  shmq__publish(q, &held, size);
  return 0;
}

static void give_up_run(shmq *q, uint64_t first, int n) {
  for (int i = 0; i < n; i++) {
    struct shmq__held held = {
        .ring = q->rings, .position = position_add(first, (uint64_t)i), .block = -1};
    shmq__give_up(q, &held);
  }
}

/* Fill the line of the word last: a taker polls it, and each of its looks takes the line from us. */
static inline void fill_cell(const shmq__ring_view *r, unsigned char *payload, const void *data,
                             uint32_t size) {
  const uint32_t first = SHMQ__LINE - 8;
  if (size > first && r->payload_offset < r->beyond_offset) {
    memcpy(payload + first, (const char *)data + first, size - first);
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(payload, data, first);
  } else {
    copy_bytes(payload, data, size);
  }
}

/* Store READY in a cell that is filled. If we die before, recovery makes a tombstone; after it, the message is delivered.
 * `last`: of a run, which orders all of it before the look at sleepers. */
static inline void publish_cell(const shmq *q, const struct ring_walk *at, size_t size, bool last) {
  uint64_t ready = at->free | cell_make(0, (uint32_t)size, 0, 0, false, CELL_READY);
  CRASHPOINT("publish.before");
  if (last)
    word_release(q, ring_walk_word(at), ready); /* P1 */
  else
    a_store(ring_walk_word(at), ready);
  CRASHPOINT("publish.after");
}

/* A run of positions from *first on in a plain queue: how many of n, -EAGAIN or -EPIPE. */
static inline int claim_run(shmq *q, uint32_t n, uint64_t *first) {
  if (unlikely(a_load(&q->queue->shut))) return -EPIPE;
  int got = ring_claim(q->rings, q->segment->me, n, first);
  if (unlikely(got < 0)) return got;
  if (likely(!shmq__shut_after_claim(q))) return got;
  give_up_run(q, *first, got);
  return -EPIPE;
}

/* A run that begins at `first` is published. */
static inline void published_run(shmq *q, uint64_t first, int n) {
  count(&q->segment->mine->puts, (uint64_t)n);
  signal_takers(q, n);
  ring_fetch_next(q->rings, position_add(first, (uint64_t)n));
}

/* The fast path: a message that fits a cell of a plain queue. 0, -EAGAIN or -EPIPE. */
static inline int put_cell(shmq *q, const void *data, size_t size) {
  const shmq__ring_view *r = q->rings;
  uint64_t p;
  int rc = claim_run(q, 1, &p);
  if (unlikely(rc < 0)) return rc;
  struct ring_walk at = ring_walk_from(r, p);
  fill_cell(r, at.cell + r->payload_offset, data, (uint32_t)size);
  publish_cell(q, &at, size, true);
  published_run(q, p, 1);
  return 0;
}

/* The same for as many messages as there is room for, up to n. Returns how many, -EAGAIN or -EPIPE. */
static int put_run(shmq *q, const struct iovec *iov, uint32_t n) {
  const shmq__ring_view *r = q->rings;
  uint64_t first;
  int got = claim_run(q, n, &first);
  if (unlikely(got < 0)) return got;
  const struct ring_walk begin = ring_walk_from(r, first);
  struct ring_walk at = begin;
  for (int i = 0; i < got; i++, ring_walk_on(r, &at))
    fill_cell(r, at.cell + r->payload_offset, iov[i].iov_base, (uint32_t)iov[i].iov_len);
  /* The first last: a taker polls it, and then finds the whole run; until then it leaves us our lines. */
  at = begin;
  for (int i = 1; i < got; i++) {
    ring_walk_on(r, &at);
    publish_cell(q, &at, iov[i].iov_len, false);
  }
  publish_cell(q, &begin, iov[0].iov_len, true);
  published_run(q, first, got);
  return got;
}

int shmq_put(shmq *q, const void *data, size_t size, int64_t deadline_ns) {
  if (unlikely(!q || (!data && size > 0))) return -EINVAL;
  ring_fetch_tail(q->rings); /* the sooner the better */
  int rc = enter(q, true);
  if (unlikely(rc < 0)) return rc;
  if (likely(size < q->plain_room)) {
    if (likely(put_cell(q, data, size) == 0)) return 0;
  }
  return put(q, data, size, NULL, deadline_ns);
}

int shmq_put_with(shmq *q, const void *data, size_t size, const shmq_put_options *options,
                  int64_t deadline_ns) {
  struct shmq__post post = {0};
  if (!q || (!data && size > 0)) return -EINVAL;
  int rc = check_post(q, options, &post);
  if (rc == 0) rc = enter(q, true);
  return rc < 0 ? rc : put(q, data, size, &post, deadline_ns);
}

/* The messages from iov[0] on that can go as one run. */
static uint32_t run_length(const shmq *q, const struct iovec *iov, int n) {
  uint32_t run = 0,
           most = q->config->capacity < SHMQ_BATCH_MAX ? q->config->capacity : SHMQ_BATCH_MAX;
  while (run < most && (int)run < n && iov[run].iov_len < q->plain_room) run++;
  return run;
}

int shmq_put_batch(shmq *q, const struct iovec *iov, int n, int64_t deadline_ns) {
  if (!q || !iov || n < 1) return -EINVAL;
  int rc = enter(q, true), done = 0;
  while (rc >= 0 && done < n) {
    uint32_t run = run_length(q, &iov[done], n - done);
    if (run == 1) ring_fetch_tail(q->rings);
    rc = run > 0 ? put_run(q, &iov[done], run) : -EAGAIN;
    if (rc > 0) {
      done += rc;
      continue;
    }
    /* One by one: it waits, takes blocks and minds the policy. */
    rc = put(q, iov[done].iov_base, iov[done].iov_len, NULL, deadline_ns);
    if (rc == 0) done++;
  }
  return done > 0 ? done : rc;
}

int shmq_reserve_with(shmq *q, size_t size, shmq_message *message, const shmq_put_options *options,
                      int64_t deadline_ns) {
  struct shmq__post post = {0};
  struct shmq__held held;
  if (!q || !message) return -EINVAL;
  int rc = check_post(q, options, &post);
  if (rc == 0) rc = enter(q, true);
  if (rc == 0) ring_fetch_tail(&q->rings[post.band]);
  if (rc == 0) rc = shmq__reserve_wait(q, size, options ? &post : NULL, &held, deadline_ns);
  if (rc != 0) return rc < 0 ? rc : -EAGAIN;
  shmq__message_fill(message, q, &held, HOLD_RESERVED, shmq__reserved_memory(q, &held), size);
  q->held++;
  return 0;
}

int shmq_reserve(shmq *q, size_t size, shmq_message *message, int64_t deadline_ns) {
  return shmq_reserve_with(q, size, message, NULL, deadline_ns);
}

int shmq_commit(shmq *q, shmq_message *message) {
  struct shmq__held held;
  int rc = shmq__message_held(q, message, HOLD_RESERVED, &held);
  if (rc < 0) return rc;
  shmq__publish(q, &held, message->size);
  q->held--;
  memset(message, 0, sizeof *message);
  return 0;
}

int shmq_abort(shmq *q, shmq_message *message) {
  struct shmq__held held;
  int rc = shmq__message_held(q, message, HOLD_RESERVED, &held);
  if (rc < 0) return rc;
  shmq__give_up(q, &held);
  q->held--;
  memset(message, 0, sizeof *message);
  return 0;
}
