/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/linger.h"

#include "shard.h"

/* A disk that stalled once is not waited for as long again. */
enum { MOST_NS = 5000000, REST_MOST = 64 };

/* They did not come, and the turn that follows goes without them. */
static void in_vain(struct alarm *alarm) {
  struct linger *l = (struct linger *)((char *)alarm - offsetof(struct linger, alarm));
  l->shard->lingering--;
  l->vain = l->vain ? l->vain : 1;
  l->rest = l->vain;
  if (l->vain < REST_MOST) l->vain *= 2;
}

void linger_open(struct linger *l, struct shard *shard) {
  *l = (struct linger){.shard = shard, .alarm.ring = in_vain};
}

void linger_begin(struct linger *l, uint64_t expected, int64_t took_ns) {
  if (expected < 2 || l->alarm.set) return;
  if (l->rest) {
    l->rest--;
    return;
  }
  l->expected = expected;
  l->shard->lingering++;
  alarm_set(&l->shard->alarms, &l->alarm, shmq_after_ns(took_ns < MOST_NS ? took_ns : MOST_NS));
}

bool linger_wants(const struct linger *l, uint64_t come) {
  return l->alarm.set && come < l->expected;
}

void linger_end(struct linger *l) {
  if (!l->alarm.set) return;
  alarm_clear(&l->shard->alarms, &l->alarm);
  l->shard->lingering--;
  l->vain = 0;
}
