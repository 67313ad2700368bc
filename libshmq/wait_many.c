/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting on several queues at once.
 */
#define _GNU_SOURCE
#include "base/time.h"
#include "os/futex.h"
#include "os/process.h"
#include "queue.h"

#define ITEMS_MAX 64
#define LOOK_NS INT64_C(50000000)
#define WITHOUT_WAITV_NS INT64_C(1000000)
#define ROUNDS_BEFORE_SLEEP 256

bool shmq__readable(const shmq *q) {
  for (uint32_t band = 0; band < q->config->priorities; band++)
    if (ring_has_published(&q->rings[band])) return true;
  if (a_load(&q->queue->returned_seq) != a_load(&q->queue->returned_seen)) return true;
  int64_t due = a_load(&q->queue->next_due_ns);
  if (due > 0 && shmq__now_ns() >= due) return true;
  return a_load_seq(&q->queue->shut);
}

bool shmq__writable(const shmq *q) {
  if (a_load_seq(&q->queue->shut) || q->config->full_policy != SHMQ_FULL_BLOCK) return true;
  return ring_has_room(q->rings);
}

static int look(shmq_wait_item *items, int n) {
  int ready = 0;
  for (int i = 0; i < n; i++) {
    items[i].ready = 0;
    if (items[i].want & SHMQ_READABLE && shmq__readable(items[i].queue))
      items[i].ready |= SHMQ_READABLE;
    if (items[i].want & SHMQ_WRITABLE && shmq__writable(items[i].queue)) items[i].ready |= SHMQ_WRITABLE;
    ready += items[i].ready != 0;
  }
  return ready;
}

/* We slept and may not take what we were woken for: wake one more for each thing that is ready (wake.h). */
static int pass_on(const shmq_wait_item *items, int n, int ready) {
  for (int i = 0; i < n; i++) {
    if (items[i].ready & SHMQ_READABLE) signal_takers(items[i].queue, 1);
    if (items[i].ready & SHMQ_WRITABLE) signal_putters(items[i].queue, 1);
  }
  return ready;
}

static unsigned announce(const shmq_wait_item *items, int n, struct shmq__futex_item *words,
                         bool *ordered) {
  unsigned count = 0;
  *ordered = true;
  for (int i = 0; i < n; i++) {
    struct shmq__queue *q = items[i].queue->queue;
    shmq__event *events[2] = {items[i].want & SHMQ_READABLE ? &q->not_empty : NULL,
                              items[i].want & SHMQ_WRITABLE ? &q->not_full : NULL};
    for (int e = 0; e < 2; e++) {
      bool one;
      if (!events[e]) continue;
      uint32_t value = shmq__event_announce(events[e], &one);
      words[count++] = (struct shmq__futex_item){.word = &events[e]->word, .value = value};
      *ordered = *ordered && one;
    }
  }
  return count;
}

static int64_t earliest_due(const shmq_wait_item *items, int n, int64_t until) {
  for (int i = 0; i < n; i++) {
    int64_t due = a_load(&items[i].queue->queue->next_due_ns);
    if (due > 0 && items[i].want & SHMQ_READABLE) until = time_min(until, due);
  }
  return until;
}

static int check(const shmq_wait_item *items, int n) {
  if (!items || n < 1 || n > ITEMS_MAX) return -EINVAL;
  for (int i = 0; i < n; i++) {
    const uint32_t known = SHMQ_READABLE | SHMQ_WRITABLE;
    if (!items[i].queue || !items[i].want || items[i].want & ~known) return -EINVAL;
  }
  return 0;
}

static void look_for_the_dead(const shmq_wait_item *items, int n) {
  for (int i = 0; i < n; i++) (void)shmq__recover_dead(items[i].queue->segment);
}

int shmq_wait(shmq_wait_item *items, int n, int64_t deadline_ns) {
  struct shmq__futex_item words[2 * ITEMS_MAX];
  bool ordered;
  int rc = check(items, n), ready;
  if (rc < 0) return rc;
  if ((ready = look(items, n)) > 0) return ready;
  if (deadline_ns == SHMQ_NOWAIT) return -EAGAIN;
  for (int round = 0; round < ROUNDS_BEFORE_SLEEP && items[0].queue->spins > 0; round++) {
    shmq__pause();
    if ((ready = look(items, n)) > 0) return ready;
  }
  for (int64_t interval = LOOK_NS;;) {
    unsigned count = announce(items, n, words, &ordered);
    if ((ready = look(items, n)) > 0) return pass_on(items, n, ready);
    int64_t now = shmq__now_ns();
    if (deadline_ns != SHMQ_FOREVER && now >= deadline_ns) return -ETIMEDOUT;
    int64_t until = earliest_due(items, n, time_min(deadline_ns, time_add(now, interval)));
    if (!ordered) until = time_min(until, time_add(now, WITHOUT_WAITV_NS));
    rc = shmq__futex_waitv(words, count, until);
    if (rc == -ENOSYS) rc = shmq__futex_wait(words[0].word, words[0].value,
                                             time_min(until, time_add(now, WITHOUT_WAITV_NS)));
    if (rc == -EINTR) return rc;
    if (rc == -ETIMEDOUT && shmq__now_ns() >= time_add(now, interval)) {
      interval = time_min(interval * 2, 20 * LOOK_NS);
      look_for_the_dead(items, n);
    }
  }
}
