/* SPDX-License-Identifier: Apache-2.0
 *
 * Shutdown, drain, join and depth.
 */
#include "os/futex.h"
#include "queue.h"

int shmq_shutdown(shmq *q) {
  if (!q) return -EINVAL;
  (void)a_xchg(&q->queue->shut, 1u);
  /* A single producer claims with a plain store: after this barrier it either sees the flag, or
   * its claim is seen by everybody who does. */
  (void)shmq__barrier_others();
  shmq__event_wake_all(&q->queue->not_empty);
  shmq__event_wake_all(&q->queue->not_full);
  shmq__event_wake_all(&q->queue->idle);
  return 0;
}

int shmq_reopen(shmq *q) {
  if (!q) return -EINVAL;
  (void)a_xchg(&q->queue->shut, 0u);
  return 0;
}

static uint64_t returned_cells(const shmq__ring_view *r) {
  uint64_t n = 0;
  for (uint64_t at = 0; at < r->capacity; at++)
    n += cell_kind(a_load_relaxed(cell_word(r, at))) == CELL_RETURNED;
  return n;
}

#define LOOKS_MOST 100 /* others could take for ever */

/* Published and not taken: what is only claimed, or was given up, is no message. While the head stands still nothing
 * that was counted has gone and nothing was passed over, so none is none; who is overtaken counts again. */
static uint64_t ready_cells(const shmq__ring_view *r) {
  uint64_t n = 0, head = index_position(a_load(&r->index->head));
  for (int looks = 0; looks < LOOKS_MOST; looks++) {
    uint64_t before = head, span = ring_span(r);
    n = 0;
    for (uint64_t p = head; span > 0; span--, p = position_add(p, 1)) {
      uint64_t w = a_load(cell_word(r, p));
      n += cell_kind(w) == CELL_READY && cell_turn(w) == turn_of(r, p);
    }
    head = index_position(a_load(&r->index->head));
    if (likely(head == before)) return n;
  }
  return n ? n : 1; /* there was something to take all the time */
}

int64_t shmq_depth(const shmq *q) {
  if (!q) return -EINVAL;
  bool returned = a_load(&q->queue->returned_seq) != 0;
  uint64_t depth = 0;
  for (uint32_t band = 0; band < q->config->priorities; band++) {
    depth += ready_cells(&q->rings[band]);
    if (returned) depth += returned_cells(&q->rings[band]);
  }
  return (int64_t)depth;
}

/* A message that was taken and not acked keeps its cell's word, so no word means no message. */
static bool ring_settled(const shmq__ring_view *r) {
  for (uint64_t at = 0; at < r->capacity; at++)
    if (cell_holds_message(a_load(cell_word(r, at)))) return false;
  return true;
}

static bool settled(const shmq *q) {
  for (uint32_t band = 0; band < q->config->priorities; band++)
    if (!ring_settled(&q->rings[band])) return false;
  return true;
}

static bool drained(const shmq *q) { return shmq_depth(q) == 0; }

/* Takers and ackers signal `idle` when nothing is left to take, so both conditions are looked at then. */
static int wait_idle(shmq *q, bool (*condition)(const shmq *), int64_t deadline_ns) {
  if (!q) return -EINVAL;
  struct shmq__waiter w = waiter(q, &q->queue->idle, deadline_ns);
  while (!condition(q)) {
    int rc = shmq__wait(&w);
    if (rc < 0) return rc;
  }
  return 0;
}

int shmq_drain(shmq *q, int64_t deadline_ns) { return wait_idle(q, drained, deadline_ns); }
int shmq_join(shmq *q, int64_t deadline_ns) { return wait_idle(q, settled, deadline_ns); }
