/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains of callbacks. The result flows through the steps: a step sees what the one before it left, an
 * error skips to the next step that handles errors, and a step that returns 0 there makes it a
 * value again. What is an error at the end and was never looked at is reported when it is freed.
 */
#include <stdlib.h>

#include "rpc/client.h"

int shmq_then(shmq_future *f, shmq_step_fn *on_value, shmq_step_fn *on_error, void *ctx) {
  if (!f) return -EINVAL;
  struct step *s = malloc(sizeof *s);
  if (!s) return -ENOMEM;
  *s = (struct step){.on_value = on_value, .on_error = on_error, .ctx = ctx};
  *f->steps_end = s;
  f->steps_end = &s->next;
  if (f->state == FUTURE_SETTLED) shmq__make_ready(f);
  return 0;
}

static void become(shmq_result *r, int rc) {
  if (rc < 0 && rc != r->status) r->error_class = (uint8_t)shmq_class_of(rc);
  if (rc >= 0) r->error_class = SHMQ_CLASS_OK;
  r->status = rc < 0 ? rc : 0;
}

static struct step *next_step(shmq_future *f) {
  struct step *s = f->steps;
  if (!s) return NULL;
  f->steps = s->next;
  if (!f->steps) f->steps_end = &f->steps;
  return s;
}

static void run_chain(shmq_future *f) {
  struct step *s;
  f->running = true;
  while (f->state == FUTURE_SETTLED && (s = next_step(f))) {
    shmq_step_fn *fn = f->result.status ? s->on_error : s->on_value;
    f->seen |= fn != NULL;
    if (fn) become(&f->result, fn(&f->result, s->ctx));
    free(s);
  }
  f->running = false;
  if (f->state != FUTURE_ORPHAN) return;
  f->state = FUTURE_SETTLED; /* a step freed it */
  shmq_future_free(f);
}

static shmq_future *next_ready(shmq_client *c) {
  shmq_future *f = c->ready;
  if (!f) return NULL;
  c->ready = f->ready_next;
  if (!c->ready) c->ready_end = &c->ready;
  f->in_ready = false;
  return f;
}

int shmq_run_pending(shmq_client *c, int64_t deadline_ns) {
  int ran = 0, rc = 0;
  if (!c) return -EINVAL;
  while (shmq__wait_news(c, SHMQ_NOWAIT) == 0) {}
  while (!c->ready && deadline_ns != SHMQ_NOWAIT && rc == 0) rc = shmq__wait_news(c, deadline_ns);
  for (shmq_future *f; (f = next_ready(c)); ran++) run_chain(f);
  return ran || rc == -EAGAIN || rc == -ETIMEDOUT ? ran : rc;
}
