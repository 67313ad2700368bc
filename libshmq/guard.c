/* SPDX-License-Identifier: Apache-2.0
 *
 * Guarding a segment: doing at once, for everybody, what each would do for itself at its next look.
 */
#include "attach.h"
#include "base/time.h"
#include "os/futex_fd.h"
#include "os/process.h"
#include "queue.h"

#define TICK_NS INT64_C(1000000000)

/* The earlier of two times, where 0 is none. */
static int64_t earlier(int64_t a, int64_t b) { return a == 0 ? b : b == 0 ? a : time_min(a, b); }

/* Dead letters, expiry, and the takers of delayed messages. Returns when there is more to do, 0: not by
 * itself. */
static int64_t tend(struct shmq_segment *s, uint32_t number) {
  const struct shmq__queue_config *config = &s->configs[number];
  if (!(config->flags & SHMQ__TRACKED)) return 0;
  shmq q = {.segment = s,
            .config = config,
            .queue = &s->queues[number],
            .rings = &s->rings[config->first_ring],
            .number = number};
  int64_t now = shmq__now_ns(), next = 0;
  /* Putters do not tell a guard about times; it looks at timed queues once a second. */
  if (config->flags & SHMQ_TIMED) next = time_add(now, TICK_NS);
  bool others_take = !(config->flags & SHMQ_SINGLE_CONSUMER);
  if (others_take) shmq__sweep_dead_letters(&q);
  for (uint32_t band = 0; others_take && band < config->priorities; band++)
    next = earlier(next, shmq__expire_ready(&q, band, now));
  int64_t due = a_load(&q.queue->next_due_ns);
  if (due > now) return earlier(next, due);
  if (due > 0) event_signal(&q.queue->not_empty, 1, NULL);
  return next;
}

int shmq_guard(shmq_segment *s, int64_t *next_ns) {
  if (!s || !next_ns) return -EINVAL;
  int rc = shmq__join(s, "guard", NULL);
  if (rc == 0) rc = shmq__role_get(s, &s->header->guard);
  if (rc == 0) rc = shmq__recover_dead(s);
  if (rc < 0) return rc;
  int64_t next = 0;
  for (uint32_t i = 0; i < s->geometry.queues; i++) next = earlier(next, tend(s, i));
  *next_ns = next ? next : SHMQ_FOREVER;
  return rc;
}

int shmq_guard_fd(shmq_segment *s) {
  if (!s) return -EINVAL;
  int rc = s->guard_fd ? 0 : shmq__futex_fd_make(&s->guard_fd, false);
  return rc < 0 ? rc : shmq__futex_fd_descriptor(s->guard_fd);
}

int shmq_guard_arm(shmq_segment *s) {
  if (!s || !s->guard_fd) return -EINVAL;
  uint32_t value = a_load(&s->header->joined.word);
  return shmq__futex_fd_arm(s->guard_fd, &s->header->joined.word, value, true);
}
