/* SPDX-License-Identifier: Apache-2.0
 *
 * Which requests share a commit. It takes as long for eight as for one, and who has just been answered often asks again
 * at once. An owner that goes ahead with what it finds has one half of its askers always come just too late and wait for
 * the commit of the other half. So where a commit takes long it waits for those it has answered, a quarter of that time
 * at most. On a fast disk that is no time for a process to wake and ask, and the processors serve the other half better:
 * there it only lets those run first that were woken on its own processor and could not ask yet.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "owner.h"

enum { LINGER_LEAST_NS = 250000, LINGER_MOST_NS = 5000000, YIELDS = 2 };

void gather_answered(struct owner *o, const struct request *r) {
  o->expected[r->incoming.header.slot % SLOTS_MAX]++;
  o->expected_sum++;
}

void gather_committed(struct owner *o, int64_t took_ns) {
  int64_t linger = took_ns / 4 < LINGER_MOST_NS ? took_ns / 4 : LINGER_MOST_NS;
  o->expected_until_ns = linger < LINGER_LEAST_NS ? SHMQ_NOWAIT : shmq_now_ns() + linger;
}

static void has_come(struct owner *o, const shmq_incoming *in) {
  uint16_t *expected = &o->expected[in->header.slot % SLOTS_MAX];
  if (!*expected) return;
  --*expected;
  o->expected_sum--;
}

static void expect_nobody(struct owner *o) {
  if (o->expected_sum) memset(o->expected, 0, sizeof o->expected);
  o->expected_sum = 0;
}

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

int gather(struct owner *o, int n, int64_t deadline_ns) {
  int rc = 0, yields = YIELDS;
  while (n < GROUP_MAX) {
    shmq_incoming in;
    rc = serve(o, &in, n == 0 ? deadline_ns : o->expected_sum ? o->expected_until_ns : SHMQ_NOWAIT);
    if (rc && n && o->expected_sum && yields) {
      yields--;
      sched_yield();
      continue;
    }
    if (rc) break;
    has_come(o, &in);
    rc = request_take(&o->group[n], &in);
    if (rc)
      shmq_reply_error(&in, rc, NULL, 0, NULL);
    else
      n++;
  }
  expect_nobody(o);
  return n ? n : rc;
}
