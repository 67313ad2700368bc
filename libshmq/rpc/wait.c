/* SPDX-License-Identifier: Apache-2.0
 *
 * How an asker waits. While it waits it looks every few ms whether a server died that held one of its
 * requests: time only triggers the look, the kernel's locks say who is dead. A request whose
 * server died is RETURNED to its queue by recovery; if it may be executed again the asker goes on
 * waiting for the next server, else it is told at once.
 */
#include "os/descriptor.h"
#include "rpc/client.h"

enum {
  SPINS = 100, /* tries before the clock is read: longer than an answer that is on its way */
  LOOK_FIRST_NS = 10000000,
  LOOK_MOST_NS = 100000000
};

int64_t shmq__earliest(const shmq_client *c, int64_t deadline_ns) {
  for (uint32_t i = 0; i < c->table_count; i++) {
    const shmq_future *f = c->table[i];
    if (f->state == FUTURE_PENDING && f->deadline_ns < deadline_ns) deadline_ns = f->deadline_ns;
  }
  return deadline_ns;
}

static bool expire(shmq_client *c, int64_t now_ns) {
  bool any = false;
  for (uint32_t i = 0; i < c->table_count; i++) {
    shmq_future *f = c->table[i];
    if (f->state != FUTURE_PENDING || f->deadline_ns > now_ns) continue;
    shmq__settle_locally(f, -ETIMEDOUT, SHMQ_EXECUTED_UNKNOWN);
    c->stats.expired++;
    any = true;
  }
  return any;
}

/* ---- the server's death ---- */

static bool repeats(const shmq_client *c, const shmq_future *f) {
  return c->redeliver == SHMQ_REDELIVER_ALWAYS ||
         (c->redeliver == SHMQ_REDELIVER_IDEMPOTENT && f->idempotent);
}

static bool owner_died(shmq_future *f) {
  shmq__settle_locally(f, -EOWNERDEAD, SHMQ_EXECUTED_UNKNOWN);
  f->client->stats.owner_died++;
  return true;
}

static bool settle_at(shmq_client *c, uint64_t position) {
  for (uint32_t i = 0; i < c->table_count; i++) {
    shmq_future *f = c->table[i];
    if (f->state == FUTURE_PENDING && f->position == position && !repeats(c, f))
      return owner_died(f);
  }
  return false;
}

/* Requests that a server took and did not finish stand RETURNED, with attempts, in the queue. */
static bool settle_returned(shmq_client *c) {
  uint64_t cursor = 0;
  shmq_cell_info cell;
  bool any = false;
  if (c->redeliver == SHMQ_REDELIVER_ALWAYS || shmq__client_open_view(c)) return false;
  while (shmq_view_next(c->view, 0, &cursor, &cell, NULL, 0) == 1)
    if (cell.state == SHMQ_CELL_RETURNED) any |= settle_at(c, cell.position);
  return any;
}

static bool settle_all(shmq_client *c) {
  bool any = false;
  for (uint32_t i = 0; i < c->table_count; i++)
    if (c->table[i]->state == FUTURE_PENDING) any |= owner_died(c->table[i]);
  return any;
}

static bool look_for_dead(shmq_client *c) {
  if (!c->outstanding) return false;
  if (c->socket >= 0 && shmq__hung_up(c->socket)) {
    while (shmq__take_answer(c, SHMQ_NOWAIT) == 0) {} /* what it said before it went counts */
    return settle_all(c);
  }
  shmq_recover(c->segment);
  return settle_returned(c);
}

void shmq__look(shmq_client *c, int64_t now_ns) {
  expire(c, now_ns);
  look_for_dead(c);
}

/* ---- waiting ---- */

static int spin(shmq_client *c) {
  int rc = -EAGAIN;
  for (int i = 0; i < SPINS && rc == -EAGAIN; i++) {
    rc = shmq__take_answer(c, SHMQ_NOWAIT);
#if defined(__x86_64__) || defined(__i386__)
    if (rc) __builtin_ia32_pause();
#endif
  }
  return rc;
}

int shmq__wait_news(shmq_client *c, int64_t deadline_ns) {
  if (deadline_ns == SHMQ_NOWAIT) {
    int rc = shmq__take_answer(c, SHMQ_NOWAIT);
    return rc == -EAGAIN && expire(c, shmq_now_ns()) ? 0 : rc;
  }
  int rc = spin(c);
  if (rc != -EAGAIN) return rc;

  int64_t step = LOOK_FIRST_NS;
  for (;;) {
    int64_t look = shmq_after_ns(step);
    int64_t until = shmq__earliest(c, look < deadline_ns ? look : deadline_ns);
    rc = shmq__take_answer(c, until);
    if (rc != -ETIMEDOUT) return rc;
    int64_t now = shmq_now_ns();
    if (expire(c, now)) return 0;
    if (now >= look && look_for_dead(c)) return 0;
    if (now >= deadline_ns) return -ETIMEDOUT;
    if (step < LOOK_MOST_NS) step += step / 4;
  }
}
