/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop: take what has arrived, execute and commit it as one group, answer.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "owner.h"

enum { LOOK_NS = 500000000, STALLED_NS = 1000000 };

volatile sig_atomic_t stopping;

/* Requests that are not to be executed count as malformed or skipped; only damage leaves no trace. */
static int serve(struct owner *o, shmq_incoming *in, int64_t deadline_ns) {
  for (;;) {
    shmq_service_stats before, after;
    shmq_service_get_stats(o->service, &before);
    int rc = shmq_serve(o->service, in, deadline_ns);
    if (rc != -EBADMSG) return rc;
    shmq_service_get_stats(o->service, &after);
    if (memcmp(&before, &after, sizeof before) == 0) return rc;
  }
}

/* Wait for the first; what else is there by then goes with it. Returns how many, or an error. */
static int gather(struct owner *o, int64_t deadline_ns) {
  int n = 0;
  while (n < GROUP_MAX) {
    shmq_incoming in;
    int rc = serve(o, &in, n ? SHMQ_NOWAIT : deadline_ns);
    if (rc) return n ? n : rc;
    rc = request_take(&o->group[n], &in);
    if (rc)
      shmq_reply_error(&in, rc, NULL, 0, NULL);
    else
      n++;
  }
  return n;
}

static void answer_group(struct owner *o, int n) {
  bool progress = false;
  for (int i = 0; i < n; i++) {
    struct request *r = o->group[i];
    if (answer_some(o, r, &progress)) {
      request_free(r);
    } else {
      r->next = o->waiting;
      o->waiting = r;
    }
  }
}

/* Returns true if any of those that wait got on. */
static bool answer_waiting(struct owner *o) {
  bool progress = false;
  for (struct request **at = &o->waiting; *at;) {
    struct request *r = *at;
    if (!answer_some(o, r, &progress)) {
      at = &r->next;
      continue;
    }
    *at = r->next;
    request_free(r);
  }
  return progress;
}

static void give_up_waiting(struct owner *o) {
  while (o->waiting) {
    struct request *r = o->waiting;
    o->waiting = r->next;
    answer_error(o, r, -ECANCELED);
    request_free(r);
  }
}

int owner_run(struct owner *o) {
  bool progress = false;
  int rc = 0;
  while (!stopping) {
    int64_t nap = progress ? 0 : o->waiting ? STALLED_NS : LOOK_NS;
    int n = gather(o, shmq_after_ns(nap));
    if (n > 0) {
      execute_group(o, o->group, n);
      answer_group(o, n);
    } else if (n == -EPIPE && o->waiting) {
      nanosleep(&(struct timespec){.tv_nsec = STALLED_NS}, NULL);
    } else if (n == -EPIPE) {
      break;
    } else if (n != -EAGAIN && n != -ETIMEDOUT && n != -EINTR) {
      rc = n;
      break;
    }
    progress = answer_waiting(o);
  }
  give_up_waiting(o);
  return rc;
}
