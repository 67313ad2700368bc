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

static void *reservation_memory(const shmq *q, const struct shmq__held *held) {
  if (held->block >= 0)
    return q->segment->blocks + (uint64_t)held->block * q->segment->geometry.block_bytes;
  return cell_payload(held->ring, held->position);
}

static int put(shmq *q, const void *data, size_t size, const struct shmq__post *post,
               int64_t deadline_ns) {
  struct shmq__held held;
  int rc = shmq__reserve_wait(q, size, post, &held, deadline_ns);
  if (unlikely(rc != 0)) return rc < 0 ? rc : 0; /* 1: dropped by the policy, and counted */
  if (size > 0) memcpy(reservation_memory(q, &held), data, size);
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

/* The cell that the next put will claim was freed on the consumer's CPU: fetch it while there is time. */
__attribute__((always_inline)) /* gcc drops calls of functions that only prefetch */
static inline void
prefetch_cell(const shmq__ring_view *r, uint64_t position) {
  const char *cell = (const char *)cell_word(r, position);
  __builtin_prefetch(cell, 1);
  if (r->stride > SHMQ__LINE) __builtin_prefetch(cell + SHMQ__LINE, 1);
}

/* Fill the first line last: a taker polls it for the cell's word, and each of its looks takes the line from us. */
static inline void fill_cell(unsigned char *payload, const void *data, uint32_t size) {
  const uint32_t first = SHMQ__LINE - 8;
  if (size > first) {
    memcpy(payload + first, (const char *)data + first, size - first);
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(payload, data, first);
  } else {
    copy_bytes(payload, data, size);
  }
}

/* The fast path: claim as many positions as there are, up to n, for messages that fit a cell of a plain queue,
 * and publish them. Returns how many, -EAGAIN or -EPIPE. */
static inline int put_run(shmq *q, const struct iovec *iov, uint32_t n) {
  struct shmq_segment *s = q->segment;
  const shmq__ring_view *r = q->rings;
  uint64_t first;
  if (unlikely(a_load(&q->queue->shut))) return -EPIPE;
  int got = ring_claim(r, s->me, n, &first);
  if (unlikely(got < 0)) return got;
  if (unlikely(shmq__shut_after_claim(q))) {
    give_up_run(q, first, got);
    return -EPIPE;
  }
  for (int i = 0; i < got; i++) {
    uint64_t p = position_add(first, (uint64_t)i);
    uint32_t size = (uint32_t)iov[i].iov_len;
    fill_cell(cell_payload(r, p), iov[i].iov_base, size);
    uint64_t ready = cell_make(turn_of(r, p), size, 0, 0, false, CELL_READY);
    /* If we die before this store, recovery makes a tombstone; after it, the message is delivered. */
    CRASHPOINT("publish.before");
    if (i + 1 < got)
      a_store(cell_word(r, p), ready); /* P1 */
    else /* the last orders the run before the look at sleepers */
      word_release(q, cell_word(r, p), ready);
    CRASHPOINT("publish.after");
  }
  count(&slot_of(s, s->me)->puts, (uint64_t)got);
  event_signal(&q->queue->not_empty, got);
  prefetch_cell(r, position_add(first, (uint64_t)got));
  return got;
}

int shmq_put(shmq *q, const void *data, size_t size, int64_t deadline_ns) {
  if (unlikely(!q || (!data && size > 0))) return -EINVAL;
  int rc = enter(q, true);
  if (unlikely(rc < 0)) return rc;
  if (likely(size < q->plain_room)) {
    struct iovec one = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    if (likely(put_run(q, &one, 1) == 1)) return 0;
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
  if (rc == 0) rc = shmq__reserve_wait(q, size, options ? &post : NULL, &held, deadline_ns);
  if (rc != 0) return rc < 0 ? rc : -EAGAIN;
  shmq__message_fill(message, q, &held, HOLD_RESERVED, reservation_memory(q, &held), size);
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
