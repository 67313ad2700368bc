/* SPDX-License-Identifier: Apache-2.0
 *
 * How an asker waits. While it waits it looks every few ms whether a server died that held one of its
 * requests: time only triggers the look, the kernel's locks say who is dead. A request whose
 * server died is RETURNED to its queue by recovery; if it may be executed again the asker goes on
 * waiting for the next server, else it is told at once.
 */
#include "os/descriptor.h"
#include "rpc/client.h"

enum { LOOK_FIRST_NS = 10000000, LOOK_MOST_NS = 100000000 };

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

struct returned {
  uint64_t position;
  shmq_future *future;
};

/* The next request of ours in that queue that a server took and did not finish: it stands RETURNED there, or, where
 * only servers put, READY and nobody is about to take it. */
static struct returned next_in(shmq_client *c, uint32_t queue, bool ready_too) {
  uint64_t cursor = 0;
  shmq_cell_info cell;
  shmq_request_header h;
  while (shmq_view_next(c->view, queue, &cursor, &cell, &h, sizeof h) == 1) {
    if (cell.state != SHMQ_CELL_RETURNED && !(ready_too && cell.state == SHMQ_CELL_READY)) continue;
    if (cell.size < sizeof h || h.kind != SHMQ_RPC_REQUEST) continue;
    if (h.asker != c->asker || h.generation != c->generation) continue;
    shmq_future *f = shmq__future_find(c, h.id);
    if (f && f->state == FUTURE_PENDING && !repeats(c, f))
      return (struct returned){cell.position, f};
  }
  return (struct returned){0, NULL};
}

static struct returned next_returned(shmq_client *c) {
  shmq_queue_info aside;
  struct returned found = next_in(c, 0, false);
  if (found.future || !c->aside || shmq_view_queue(c->view, c->aside, &aside)) return found;
  return next_in(c, c->aside, aside.consumer == 0);
}

/* A cell may be written anew between the look at its word and the copy of what it holds. It was not if a second
 * look finds the same position. */
static bool settle_returned(shmq_client *c) {
  bool any = false;
  if (c->redeliver == SHMQ_REDELIVER_ALWAYS || shmq__client_open_view(c)) return false;
  for (struct returned once, twice; (once = next_returned(c)).future;
       any |= owner_died(once.future)) {
    twice = next_returned(c);
    if (twice.future != once.future || twice.position != once.position) break;
  }
  return any;
}

static bool settle_all(shmq_client *c) {
  bool any = false;
  for (uint32_t i = 0; i < c->table_count; i++)
    if (c->table[i]->state == FUTURE_PENDING) any |= owner_died(c->table[i]);
  return any;
}

bool shmq__session_over(shmq_client *c) {
  c->hung_up = c->hung_up || (c->socket >= 0 && shmq__hung_up(c->socket));
  return c->hung_up;
}

static bool look_for_dead(shmq_client *c) {
  if (!c->outstanding) return false;
  if (shmq__session_over(c)) {
    while (shmq__take_answer(c, SHMQ_NOWAIT) == 0) {} /* what it said before it went counts */
    return settle_all(c);
  }
  shmq_recover(c->segment);
  return settle_returned(c);
}

/* ---- when to look ---- */

/* The first look of a wait comes soon: the server that died is often the one that is waited for. */
void shmq__begin_wait(shmq_client *c, int64_t now_ns) {
  if (c->look_ns > now_ns && c->look_ns <= now_ns + LOOK_FIRST_NS) return;
  c->look_step_ns = LOOK_FIRST_NS;
  c->look_ns = now_ns + LOOK_FIRST_NS;
}

int64_t shmq__wake_at(const shmq_client *c, int64_t deadline_ns) {
  if (c->look_ns < deadline_ns) deadline_ns = c->look_ns;
  for (uint32_t i = 0; i < c->table_count; i++) {
    const shmq_future *f = c->table[i];
    if (f->state == FUTURE_PENDING && f->deadline_ns < deadline_ns) deadline_ns = f->deadline_ns;
  }
  return deadline_ns;
}

bool shmq__look(shmq_client *c, int64_t now_ns) {
  bool any = expire(c, now_ns);
  if (now_ns < c->look_ns) return any;
  if (c->look_step_ns < LOOK_MOST_NS) c->look_step_ns += c->look_step_ns / 4;
  c->look_ns = now_ns + c->look_step_ns;
  return look_for_dead(c) || any;
}

/* ---- waiting ---- */

static int spin(shmq_client *c) {
  int rc = -EAGAIN;
  for (unsigned i = 0; i < c->spins && rc == -EAGAIN; i++) {
    rc = shmq__take_answer(c, SHMQ_NOWAIT);
#if defined(__x86_64__) || defined(__i386__)
    if (rc) __builtin_ia32_pause();
#endif
  }
  return rc;
}

static int sleep_for_news(shmq_client *c, int64_t deadline_ns) {
  int rc = shmq__make_way(c, 0);
  int64_t now = shmq_now_ns();
  shmq__begin_wait(c, now);
  while (rc == 0) {
    rc = shmq__take_answer(c, shmq__wake_at(c, deadline_ns));
    if (rc != -ETIMEDOUT) return rc;
    now = shmq_now_ns();
    if (shmq__look(c, now)) return 0;
    if (c->hung_up) return -EOWNERDEAD;
    rc = now >= deadline_ns ? -ETIMEDOUT : 0;
  }
  return rc;
}

int shmq__wait_news(shmq_client *c, int64_t deadline_ns) {
  if (deadline_ns == SHMQ_NOWAIT) {
    int rc = shmq__take_answer(c, SHMQ_NOWAIT);
    if (rc != -EAGAIN) return rc;
    if (shmq__look(c, shmq_now_ns())) return 0;
    rc = shmq__make_way(c, 0);
    return rc ? rc : -EAGAIN;
  }
  int rc = spin(c);
  return rc == -EAGAIN ? sleep_for_news(c, deadline_ns) : rc;
}
