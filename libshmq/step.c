/* SPDX-License-Identifier: Apache-2.0
 *
 * Several messages as one step: commit_all, forward, and the move to a dead letter queue.
 */
#include "core/block.h"
#include "core/txn.h"
#include "queue.h"

/* Items are filled field by field where they stand: a copy of one that was just put together would wait until all stores
 * before it, the message's among them, have left the processor. */
static void publish_item(struct shmq__txn_item *item, const struct shmq__held *held, size_t size) {
  item->ring = held->ring;
  item->position = held->position;
  item->word = shmq__ready_word(held, size);
  item->block = -1;
}

static void release_item(struct shmq__txn_item *item, const struct shmq__held *held) {
  item->ring = held->ring;
  item->position = held->position;
  item->word = 0;
  item->block = held->block;
}

/* The same message, or two reservations of one block, which are two twins of one. A lease and its twin share theirs. */
static bool exclude_each_other(const shmq_message *a, const shmq_message *b) {
  if (a == b) return true;
  return a->opaque[MESSAGE_BLOCK] && a->opaque[MESSAGE_BLOCK] == b->opaque[MESSAGE_BLOCK] &&
         shmq__message_hold(a) == HOLD_RESERVED && shmq__message_hold(b) == HOLD_RESERVED;
}

static void signal_step(shmq *q, const struct shmq__txn_item *item) {
  struct shmq__slot *slot = q->segment->mine;
  if (item->word) {
    count(&slot->puts, 1);
    signal_takers(q, 1);
    ring_fetch_next(item->ring, position_add(item->position, 1));
  } else {
    count(&slot->gets, 1);
    signal_putters(q, 1);
    shmq__signal_idle(q);
  }
}

int shmq_commit_all(const shmq_step *steps, int n) {
  struct shmq__txn_item items[SHMQ_COMMIT_MAX];
  if (!steps || n < 1 || n > SHMQ_COMMIT_MAX) return -EINVAL;
  for (int i = 0; i < n; i++) {
    struct shmq__held held;
    if (!steps[i].queue || !steps[i].message) return -EINVAL;
    if (steps[i].queue->segment != steps[0].queue->segment) return -EINVAL;
    enum shmq__hold hold = shmq__message_hold(steps[i].message);
    if (hold != HOLD_LEASED && hold != HOLD_RESERVED) return -EINVAL;
    int rc = shmq__message_held(steps[i].queue, steps[i].message, hold, &held);
    if (rc < 0) return rc;
    for (int j = 0; j < i; j++)
      if (exclude_each_other(steps[j].message, steps[i].message)) return -EINVAL;
    if (hold == HOLD_RESERVED)
      publish_item(&items[i], &held, steps[i].message->size);
    else
      release_item(&items[i], &held);
  }
  shmq__txn_commit(steps[0].queue->segment, items, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    signal_step(steps[i].queue, &items[i]);
    steps[i].queue->held--;
    memset(steps[i].message, 0, sizeof *steps[i].message);
  }
  return 0;
}

/* Make the reserved position `out` of `to` a twin of the held message: the same block, or a copy. */
static size_t clone(shmq *from, const struct shmq__held *held, struct shmq__held *out) {
  if (held->block >= 0) {
    out->block = held->block; /* its word moves to the new cell when the step is applied */
    return held->size;
  }
  size_t size = cell_length(held->word);
  memcpy(shmq__reserved_memory(from, out), cell_payload(held->ring, held->position), size);
  return size;
}

/* If we die with a twin, its position becomes a tombstone; the block is still the held message's. */
static int reserve_twin(shmq *from, const struct shmq__held *held, shmq *to, struct shmq__held *out,
                        size_t *size, shmq__event **event) {
  /* A message in a block needs only a cell: every cell has room for the reference. */
  size_t need = held->block >= 0 ? 0 : cell_length(held->word);
  ring_fetch_tail(to->rings);
  int rc = shmq__reserve(to, need, NULL, out, event);
  if (rc == 0) *size = clone(from, held, out);
  return rc;
}

static void move(shmq *from, const struct shmq__held *held, shmq *to, const struct shmq__held *out,
                 size_t size) {
  struct shmq__txn_item items[2];
  publish_item(&items[0], out, size);
  release_item(&items[1], held);
  shmq__txn_commit(from->segment, items, 2);
  signal_step(to, &items[0]);
  signal_step(from, &items[1]);
}

int shmq__move(shmq *from, const struct shmq__held *held, shmq *to, const shmq_cause *cause,
               shmq__event **event) {
  struct shmq__held out;
  size_t size;
  int rc = reserve_twin(from, held, to, &out, &size, event);
  if (rc < 0) return rc;
  if (cause && out.ring->tracked) cell_stamp(out.ring, out.position)->cause = *cause;
  move(from, held, to, &out, size);
  return 0;
}

/* A twin in `to` of a leased message. */
static int twin_wait(shmq *from, const shmq_message *message, struct shmq__held *held, shmq *to,
                     struct shmq__held *out, size_t *size, int64_t deadline_ns) {
  shmq__event *event = NULL;
  if (!to) return -EINVAL;
  int rc = shmq__message_held(from, message, HOLD_LEASED, held);
  if (rc < 0) return rc;
  if (to->segment != from->segment) return -EINVAL;
  held->size = (uint32_t)message->size;
  rc = enter(to, true);
  if (rc == 0) rc = reserve_twin(from, held, to, out, size, &event);
  if (rc != -EAGAIN) return rc;
  struct shmq__waiter w = waiter(to, event, deadline_ns);
  while (rc == -EAGAIN && (rc = shmq__wait(&w)) == 0) {
    rc = reserve_twin(from, held, to, out, size, &event);
    wait_for(&w, event);
  }
  if (rc == 0) waited(&w, w.slept && shmq__writable(to));
  return rc;
}

int shmq_forward(shmq *from, shmq_message *message, shmq *to, int64_t deadline_ns) {
  struct shmq__held held, out;
  size_t size;
  int rc = twin_wait(from, message, &held, to, &out, &size, deadline_ns);
  if (rc < 0) return rc;
  move(from, &held, to, &out, size);
  from->held--;
  memset(message, 0, sizeof *message);
  return 0;
}

int shmq_reserve_forward(shmq *from, const shmq_message *message, shmq *to, shmq_message *twin,
                         int64_t deadline_ns) {
  struct shmq__held held, out;
  size_t size;
  if (!twin) return -EINVAL;
  int rc = twin_wait(from, message, &held, to, &out, &size, deadline_ns);
  if (rc < 0) return rc;
  shmq__message_fill(twin, to, &out, HOLD_RESERVED, shmq__reserved_memory(to, &out), size);
  to->held++;
  return 0;
}
