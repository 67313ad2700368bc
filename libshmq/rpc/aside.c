/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that a server keeps for long. A cell of the ring of requests that stays held stops all who put when they
 * come round to it, so such a request moves to a queue of its own. That one is a ring as well:
 *
 *   A1  A move is one step (shmq_forward): whoever dies, the request stands in one queue, once. What stands in this
 *       one was taken by a server before, and counts as delivered again to whoever finds it.
 *   A2  Positions here are given out by its one holder, so it can keep what it holds close together: before a message
 *       comes in, the oldest are moved behind the newest until all lie within three quarters of the ring. At most
 *       half of the cells are held, so each message that comes moves two others on the average. The quarter
 *       that is left is for steps that dead predecessors began and did not decide.
 *   A3  Moves are not seen by who keeps the request: a block stays where it is, and what lay in a cell is copied here.
 */
#include <stdlib.h>

#include "rpc/service.h"

#define POSITION_MASK ((UINT64_C(1) << 48) - 1)

/* How far a lies behind b in the order of positions. */
static int64_t ahead_of(uint64_t a, uint64_t b) { return (int64_t)((a - b) << 16) >> 16; }

int shmq__aside_open(shmq_service *s) {
  TAILQ_INIT(&s->aside_held);
  int rc = shmq_open_in(&s->aside, s->segment, ASIDE_NAME, 0);
  s->look_aside = rc == 0;
  return rc == -ENOENT ? 0 : rc;
}

void shmq__aside_close(shmq_service *s) {
  for (struct shmq__aside *a; s->aside && (a = TAILQ_FIRST(&s->aside_held));) {
    TAILQ_REMOVE(&s->aside_held, a, in_held);
    free(a);
  }
  shmq_close(s->aside);
}

/* ---- what is held, the oldest first ---- */

static void insert(shmq_service *s, struct shmq__aside *a) {
  struct shmq__aside *before = TAILQ_LAST(&s->aside_held, aside_list);
  while (before && ahead_of(before->message.position, a->message.position) > 0)
    before = TAILQ_PREV(before, aside_list, in_held);
  if (before)
    TAILQ_INSERT_AFTER(&s->aside_held, before, a, in_held);
  else
    TAILQ_INSERT_HEAD(&s->aside_held, a, in_held);
  uint64_t end = (a->message.position + 1) & POSITION_MASK;
  if (!s->aside_count++ || ahead_of(end, s->aside_end) > 0) s->aside_end = end;
}

static void take_out(shmq_service *s, struct shmq__aside *a) {
  TAILQ_REMOVE(&s->aside_held, a, in_held);
  s->aside_count--;
}

/* For a message of the ring, or of this queue. */
static struct shmq__aside *make(const shmq_service *s, const shmq_message *m) {
  bool in_cell = m->size <= s->cell_bytes;
  struct shmq__aside *a = malloc(sizeof *a + (in_cell ? m->size : 0));
  if (!a) return NULL;
  a->message = *m;
  a->bytes = in_cell ? a->copy : m->data;
  if (in_cell) memcpy(a->copy, m->data, m->size);
  return a;
}

void shmq__aside_end(shmq_incoming *in) {
  struct shmq__aside *a = in->aside;
  if (a->message.data) shmq_ack(in->service->aside, &a->message);
  take_out(in->service, a);
  free(a);
  in->aside = NULL;
}

/* ---- what a predecessor has left ---- */

/* Whoever holds the consumer's role is the one that may put aside; it has it until it dies or closes. */
int shmq__aside_inherit(shmq_service *s, int n) {
  memset(s->ahead_aside, 0, sizeof s->ahead_aside);
  int got = shmq_lease_batch(s->aside, s->ahead, n, SHMQ_NOWAIT);
  s->aside_is_ours = got == -EAGAIN;
  s->look_aside = got > 0;
  if (got < 0) return got == -EAGAIN || got == -EBUSY ? 0 : got;
  for (int i = 0; i < got; i++) {
    struct shmq__aside *a = make(s, &s->ahead[i]);
    if (!a) {
      for (int left = i; left < got; left++) shmq_nack(s->aside, &s->ahead[left]);
      return i ? i : -ENOMEM;
    }
    insert(s, a);
    s->ahead_aside[i] = a;
    s->ahead[i].data = a->bytes;
    if (s->ahead[i].attempts < 2) s->ahead[i].attempts = 2; /* A1 */
  }
  return got;
}

/* ---- moving ---- */

/* To the end of this queue. -EBADMSG: somebody else has put his hands into it, and it is lost to us. Any other error:
 * it is where it was. */
static int move(shmq_service *s, shmq *from, struct shmq__aside *a) {
  const shmq_message was = a->message;
  int rc = shmq_forward(from, &a->message, s->aside, SHMQ_NOWAIT);
  if (rc == -EAGAIN && s->kept_count) { /* answers that are kept back hold cells as well */
    (void)shmq_service_flush(s);
    rc = shmq_forward(from, &a->message, s->aside, SHMQ_NOWAIT);
  }
  if (rc) return rc;
  /* If we die before we have it again, it is READY there: whoever comes finds it. */
  rc = shmq_lease(s->aside, &a->message, SHMQ_NOWAIT);
  bool same = !rc && a->message.size == was.size &&
              (was.size <= s->cell_bytes || a->message.data == was.data);
  if (same) return 0;
  if (!rc) (void)shmq_nack(s->aside, &a->message);
  s->aside_is_ours = false;
  return -EBADMSG;
}

static int move_behind(shmq_service *s, struct shmq__aside *a) {
  take_out(s, a);
  int rc = move(s, s->aside, a);
  insert(s, a);
  return rc;
}

static void close_up(shmq_service *s) {
  int64_t most = (int64_t)shmq_capacity(s->aside) / 4 * 3;
  for (uint32_t n = s->aside_count; n; n--) {
    struct shmq__aside *oldest = TAILQ_FIRST(&s->aside_held);
    if (ahead_of(s->aside_end, oldest->message.position) <= most || move_behind(s, oldest)) return;
  }
}

/* Out of the ring. If there is no room it stays there. */
static int leave_ring(shmq_incoming *in) {
  shmq_service *s = in->service;
  if (!in->message.data || s->aside_count >= shmq_capacity(s->aside) / 2) return 0;
  struct shmq__aside *a = make(s, &in->message);
  if (!a) return 0;
  close_up(s);
  int rc = move(s, s->requests, a);
  if (rc && rc != -EBADMSG) {
    free(a);
    return 0;
  }
  insert(s, a);
  in->data = a->bytes + in->header.data_offset;
  in->aside = a;
  return rc;
}

/* A request that waits is not what servers die of: where it has moved to, its deliveries count from one again. */
static bool was_left(const shmq_incoming *in) {
  return (in->aside ? in->aside->message.attempts : in->attempts) > 1;
}

static int put_aside(shmq_incoming *in) {
  shmq_service *s = in->service;
  if (!s->aside) return 0;
  if (!s->aside_is_ours) { /* whose it was may have died since: the next call of shmq_serve looks */
    s->look_aside = true;
    return 0;
  }
  if (!in->aside) return leave_ring(in);
  int rc = was_left(in) ? move_behind(s, in->aside) : 0;
  return rc == -EBADMSG ? rc : 0;
}

int shmq_make_way(shmq_incoming *in) {
  shmq_service *s = in->service;
  if (in->state != INCOMING_OPEN) return -ESTALE;
  bool is_old = ahead_of(s->newest, in->message.position) >= shmq_capacity(s->requests) / 2;
  return was_left(in) || (is_old && !in->aside) ? put_aside(in) : 0;
}

int shmq_reply_later(shmq_incoming *in, shmq_incoming *kept) {
  *kept = *in;
  in->state = INCOMING_DONE;
  return put_aside(kept);
}
