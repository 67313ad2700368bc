/* SPDX-License-Identifier: Apache-2.0
 *
 * Several messages as one step: commit_all, forward, and the move to a dead letter queue.
 */
#include "core/block.h"
#include "core/txn.h"
#include "queue.h"

static struct shmq__txn_item publish_item(const struct shmq__held *held, size_t size) {
  return (struct shmq__txn_item){.ring = held->ring,
                                 .position = held->position,
                                 .word = shmq__ready_word(held, size),
                                 .block = -1};
}

static struct shmq__txn_item release_item(const struct shmq__held *held) {
  return (struct shmq__txn_item){.ring = held->ring, .position = held->position, .block = held->block};
}

static void signal_step(shmq *q, bool published) {
  struct shmq__slot *slot = slot_of(q->segment, q->segment->me);
  if (published) {
    count(&slot->puts, 1);
    signal_takers(q, 1);
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
    for (int j = 0; j < i; j++)
      if (steps[j].message == steps[i].message) return -EINVAL;
    enum shmq__hold hold = shmq__message_hold(steps[i].message);
    if (hold != HOLD_LEASED && hold != HOLD_RESERVED) return -EINVAL;
    int rc = shmq__message_held(steps[i].queue, steps[i].message, hold, &held);
    if (rc < 0) return rc;
    items[i] = hold == HOLD_RESERVED ? publish_item(&held, steps[i].message->size)
                                     : release_item(&held);
  }
  shmq__txn_commit(steps[0].queue->segment, items, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    signal_step(steps[i].queue, items[i].word != 0);
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
  void *to = out->block >= 0 ? (void *)block_memory(from->segment, (uint32_t)out->block)
                             : (void *)cell_payload(out->ring, out->position);
  memcpy(to, cell_payload(held->ring, held->position), size);
  return size;
}

int shmq__move(shmq *from, const struct shmq__held *held, shmq *to, const shmq_cause *cause,
               shmq__event **event) {
  struct shmq__held out;
  /* A message in a block needs only a cell: every cell has room for the reference. */
  size_t need = held->block >= 0 ? 0 : cell_length(held->word);
  int rc = shmq__reserve(to, need, NULL, &out, event);
  if (rc < 0) return rc;
  size_t size = clone(from, held, &out);
  if (cause && ring_tracked(out.ring)) cell_stamp(out.ring, out.position)->cause = *cause;
  struct shmq__txn_item items[2] = {publish_item(&out, size), release_item(held)};
  shmq__txn_commit(from->segment, items, 2);
  signal_step(to, true);
  signal_step(from, false);
  return 0;
}

int shmq_forward(shmq *from, shmq_message *message, shmq *to, int64_t deadline_ns) {
  struct shmq__held held;
  shmq__event *event = NULL;
  if (!to) return -EINVAL;
  int rc = shmq__message_held(from, message, HOLD_LEASED, &held);
  if (rc < 0) return rc;
  if (to->segment != from->segment) return -EINVAL;
  held.size = (uint32_t)message->size;
  rc = enter(to, true);
  if (rc == 0) rc = shmq__move(from, &held, to, NULL, &event);
  if (rc == -EAGAIN) {
    struct shmq__waiter w = waiter(to, event, deadline_ns);
    while (rc == -EAGAIN && (rc = shmq__wait(&w)) == 0) {
      rc = shmq__move(from, &held, to, NULL, &event);
      wait_for(&w, event);
    }
    if (rc == 0) waited(&w, w.slept && shmq__writable(to));
  }
  if (rc < 0) return rc;
  from->held--;
  memset(message, 0, sizeof *message);
  return 0;
}
