/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking a request back, and giving up a future. The cancel queue holds a superset of what is cancelled
 * and not answered; an entry is never absent for a moment, so a server that looks sees it.
 */
#include "rpc/client.h"

static int announce(shmq_client *c, const shmq_future *f) {
  shmq__cancel what = {.id = f->id, .asker = c->asker, .generation = c->generation};
  int rc = shmq_put(c->cancels, &what, sizeof what, SHMQ_NOWAIT);
  if (!rc) c->cancels_queued++;
  return rc;
}

static void remove_oldest(shmq_client *c, uint32_t n) {
  shmq__cancel what;
  while (n-- && shmq_get(c->cancels, &what, sizeof what, SHMQ_NOWAIT) >= 0) c->cancels_queued--;
}

/* Remove what has been answered: first repeat what has not, then take as many as there were. */
void shmq__tidy_cancels(shmq_client *c) {
  uint32_t old = c->cancels_queued;
  for (uint32_t i = 0; c->cancels_pending && i < c->table_count; i++) {
    shmq_future *f = c->table[i];
    if (f->state != FUTURE_FREE && f->cancelled && !f->answered && announce(c, f)) return;
  }
  remove_oldest(c, old);
}

int shmq_cancel(shmq_future *f) {
  if (!f) return -EINVAL;
  shmq_client *c = f->client;
  if (f->state != FUTURE_PENDING) return -EALREADY;
  if (f->cancelled) return 0;
  if (c->cancels_queued >= 2 * c->credits) shmq__tidy_cancels(c);
  int rc = announce(c, f);
  if (rc) return rc;
  f->cancelled = true;
  c->cancels_pending++;
  return 0;
}

void shmq__report_uncollected(shmq_future *f) {
  shmq_client *c = f->client;
  if (f->state != FUTURE_SETTLED || f->observed || !f->result.status) return;
  f->observed = true;
  if (c->uncollected) c->uncollected(&f->result, c->uncollected_ctx);
}

void shmq_future_free(shmq_future *f) {
  if (!f) return;
  if (f->running) { /* by its own chain: when that has ended */
    f->state = FUTURE_ORPHAN;
    return;
  }
  if (f->state == FUTURE_PENDING) shmq_cancel(f);
  shmq__report_uncollected(f);
  shmq__future_reset(f);
  if (!f->answered) f->state = FUTURE_ORPHAN;
}
