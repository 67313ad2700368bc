/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop: take what has arrived, execute and commit it as one group, answer.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "owner.h"

enum { LOOK_NS = 500000000, STALLED_NS = 1000000 };

volatile sig_atomic_t stopping;

static void answer_group(struct owner *o, int n) {
  bool progress = false;
  for (int i = 0; i < n; i++) {
    struct request *r = o->group[i];
    if (answer_some(o, r, &progress)) {
      gather_answered(o, r);
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
      (void)shmq_make_way(&r->incoming); /* a reader that stands still stops nobody else */
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
    int n = gather(o, 0, shmq_after_ns(nap));
    if (n > 0) {
      int64_t begun = shmq_now_ns();
      n = execute_group(o, n);
      int64_t took = shmq_now_ns() - begun;
      answer_group(o, n);
      gather_committed(o, took);
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
