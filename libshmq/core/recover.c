/* SPDX-License-Identifier: Apache-2.0 */
#include "core/recover.h"

#include "core/block.h"
#include "core/crashpoint.h"
#include "core/ring.h"
#include "core/txn.h"
#include "core/wake.h"
#include "os/process.h"

/* What recovery of one participant carries along. */
struct recovery {
  struct shmq_segment *segment;
  uint32_t dead;
  shmq_cause cause;
  bool may_have_returned; /* something waits for redelivery that takers were not told of */
};

/* A position that the dead producer took and did not publish: takers skip it. */
static void give_up(struct recovery *rec, const shmq__ring_view *r, uint64_t p) {
  uint64_t claimed = cell_free(turn_of(r, p));
  if (!a_cas(cell_word(r, p), &claimed, cell_tombstone(turn_of(r, p)))) return;
  CRASHPOINT("recover.tombstone");
  (void)a_add(&rec->segment->queues[r->queue].aborted, 1u);
}

/* A message that the dead consumer held, in the word w: it waits for redelivery. The cause goes in first;
 * nobody reads it before the word says RETURNED. */
static void give_back(struct recovery *rec, const shmq__ring_view *r, uint64_t p, uint64_t w) {
  uint32_t attempts = cell_attempts(w) + 1;
  if (r->tracked) {
    struct shmq__stamp *stamp = cell_stamp(r, p);
    stamp->cause = rec->cause;
    stamp->cause.attempts = attempts;
    stamp->not_before_ns = 0;
  }
  CRASHPOINT("recover.return");
  if (a_cas(cell_word(r, p), &w, cell_become(w, CELL_RETURNED, 0, attempts)))
    rec->may_have_returned = true;
}

/* A position that the dead consumer took. */
static void settle_taken(struct recovery *rec, const shmq__ring_view *r, uint64_t p) {
  uint64_t w = a_load(cell_word(r, p));
  if (cell_turn(w) != turn_of(r, p)) return;
  if (cell_kind(w) == CELL_READY) give_back(rec, r, p, w);
  if (cell_kind(w) == CELL_TOMBSTONE) (void)a_cas(cell_word(r, p), &w, cell_free(next_turn(r, p)));
}

/* Call settle for every position that the records give to the dead. */
static void each_recorded(struct recovery *rec, const shmq__ring_view *r, _Atomic uint64_t *records,
                          _Atomic uint64_t *index,
                          void (*settle)(struct recovery *, const shmq__ring_view *, uint64_t)) {
  uint64_t x = a_load(index);
  if (index_owner(x) == rec->dead) shmq__ring_record_run(records, r->mask, index, x);
  for (uint64_t at = 0; at < r->capacity; at++) {
    uint64_t record = a_load_relaxed(&records[at]);
    uint64_t p = record_position(record);
    if (record_owner(record) == rec->dead && (p & r->mask) == at) settle(rec, r, p);
  }
}

/* With a single role everything taken and not settled is the role holder's. */
static void each_below(struct recovery *rec, const shmq__ring_view *r, _Atomic uint64_t *index,
                       void (*settle)(struct recovery *, const shmq__ring_view *, uint64_t)) {
  uint64_t end = index_position(a_load(index));
  for (uint64_t back = r->capacity; back > 0; back--) settle(rec, r, position_sub(end, back));
}

/* Redelivered messages are owned by their cell's word alone. */
static void settle_redelivered(struct recovery *rec, const shmq__ring_view *r) {
  for (uint64_t at = 0; at < r->capacity; at++) {
    uint64_t w = a_load_relaxed(cell_word(r, at));
    if (cell_kind(w) != CELL_LEASED || cell_owner(w) != rec->dead) continue;
    give_back(rec, r, at, w); /* `at` addresses the same cell as its position */
  }
}

static void settle_ring(struct recovery *rec, const shmq__ring_view *r, bool producer,
                        bool consumer) {
  if (r->producer_records)
    each_recorded(rec, r, r->producer_records, &r->index->tail, give_up);
  else if (producer)
    each_below(rec, r, &r->index->tail, give_up);
  if (r->consumer_records)
    each_recorded(rec, r, r->consumer_records, &r->index->head, settle_taken);
  else if (consumer)
    each_below(rec, r, &r->index->head, settle_taken);
  if (a_load(&slot_of(rec->segment, rec->dead)->redelivers)) settle_redelivered(rec, r);
}

static void release_role(_Atomic uint32_t *role, uint32_t i) {
  uint32_t holder = i;
  (void)a_cas(role, &holder, 0u);
}

static void settle_queue(struct recovery *rec, uint32_t number) {
  struct shmq_segment *s = rec->segment;
  const struct shmq__queue_config *config = &s->configs[number];
  struct shmq__queue *q = &s->queues[number];
  bool producer = a_load(&q->producer) == rec->dead, consumer = a_load(&q->consumer) == rec->dead;
  for (uint32_t band = 0; band < config->priorities; band++)
    settle_ring(rec, &s->rings[config->first_ring + band], producer, consumer);
  if (producer) release_role(&q->producer, rec->dead);
  if (consumer) release_role(&q->consumer, rec->dead);
  CRASHPOINT("recover.settled");
  if (rec->may_have_returned) (void)a_add(&q->returned_seq, 1u);
  shmq__event_wake_all(&q->not_empty);
  shmq__event_wake_all(&q->not_full);
  shmq__event_wake_all(&q->idle);
}

static bool is_of_queue(const struct shmq_segment *s, uint64_t b, uint32_t queue) {
  return block_ring(b) < s->geometry.rings && s->rings[block_ring(b)].queue == queue;
}

static void free_blocks(struct shmq_segment *s, uint32_t i, const uint32_t *queue) {
  for (uint32_t at = 0; at < s->geometry.blocks; at++) {
    uint64_t b = a_load_relaxed(block_word(s, at));
    if (block_owner(b) != i || (queue && !is_of_queue(s, b, *queue))) continue;
    if (!shmq__block_is_referred(s, at, b)) (void)a_cas(block_word(s, at), &b, 0);
  }
  if (s->geometry.blocks > 0) shmq__event_wake_all(&s->header->block_freed);
}

static struct recovery recovery_of(struct shmq_segment *s, uint32_t i, enum shmq_reason reason) {
  struct shmq__slot *slot = slot_of(s, i);
  struct shmq__process process = {.pid = a_load(&slot->pid),
                                  .pid_ns = a_load(&slot->pid_ns),
                                  .start_time = a_load(&slot->start_time)};
  int32_t status = a_load(&slot->exit_status);
  if (reason == SHMQ_REASON_DIED && status < 0) (void)shmq__process_state(&process, &status);
  return (struct recovery){
      .segment = s,
      .dead = i,
      /* The dead may have returned a message and died before they could say so. */
      .may_have_returned = reason == SHMQ_REASON_DIED,
      .cause = {.pid = process.pid,
                .status = status,
                .reason = (int32_t)reason,
                .when_ns = shmq__wall_clock_ns()}};
}

void shmq__recover_queue(struct shmq_segment *s, uint32_t i, uint32_t queue,
                         enum shmq_reason reason) {
  struct recovery rec = recovery_of(s, i, reason);
  settle_queue(&rec, queue);
  free_blocks(s, i, &queue); /* what it has reserved in others no cell refers to either */
}

void shmq__recover(struct shmq_segment *s, uint32_t i, enum shmq_reason reason) {
  struct recovery rec = recovery_of(s, i, reason);
  (void)shmq__txn_replay(s, i); /* first: what was decided rolls forward, all else back */
  CRASHPOINT("recover.replayed");
  for (uint32_t q = 0; q < s->geometry.queues; q++) settle_queue(&rec, q);
  free_blocks(s, i, NULL); /* after the cells: they say which blocks live */
  CRASHPOINT("recover.blocks");
  release_role(&s->header->guard, i);
  a_store(&slot_of(s, i)->redelivers, 0u);
  a_store(&slot_of(s, i)->state, (uint32_t)SLOT_CLEAN);
}
