/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserving positions and blocks, and publishing them.
 */
#include "base/time.h"
#include "core/block.h"
#include "os/process.h"
#include "queue.h"

static void stamp_reservation(const shmq *q, const struct shmq__held *held,
                              const struct shmq__post *post) {
  struct shmq__stamp stamp = {.cause = {.pid = -1, .status = -1}};
  int64_t ttl = q->config->ttl_ns;
  if (post) {
    stamp.not_before_ns = post->not_before_ns;
    stamp.expires_ns = post->expires_ns;
  }
  if (stamp.expires_ns == 0 && ttl > 0) stamp.expires_ns = time_add(shmq__now_ns(), ttl);
  *cell_stamp(held->ring, held->position) = stamp;
}

static void drop_block(struct shmq_segment *s, int64_t block) {
  if (block >= 0) (void)shmq__block_free(s, (uint32_t)block, s->me, BLOCK_NO_RING, 0);
}

int shmq__reserve(shmq *q, size_t size, const struct shmq__post *post, struct shmq__held *out,
                  shmq__event **event) {
  struct shmq_segment *s = q->segment;
  const shmq__ring_view *r = &q->rings[post ? post->band : 0];
  uint64_t position;
  int64_t block = -1;
  if (unlikely(a_load(&q->queue->shut))) return -EPIPE;
  *event = &q->queue->not_full;
  if (unlikely(size > r->payload_bytes)) {
    if (s->geometry.blocks == 0 || size > s->geometry.block_bytes) return -EMSGSIZE;
    /* While the ring is full, leave the words of the blocks to those who free them. */
    if (!ring_has_room(r)) return -EAGAIN;
    *event = &s->header->block_freed;
    block = shmq__block_allocate(s);
    if (block < 0) return -EAGAIN;
    *event = &q->queue->not_full;
  }
  if (unlikely(ring_claim(r, s->me, 1, &position) < 0)) {
    drop_block(s, block);
    return -EAGAIN;
  }
  *out = (struct shmq__held){.ring = r,
                             .position = position,
                             .word = cell_free(turn_of(r, position)),
                             .block = block};
  if (block >= 0) block_refer(s, (uint32_t)block, s->me, r->id, position);
  if (unlikely(shmq__shut_after_claim(q))) {
    shmq__give_up(q, out);
    return -EPIPE;
  }
  if (unlikely(r->tracked)) stamp_reservation(q, out, post);
  return 0;
}

uint64_t shmq__ready_word(const struct shmq__held *held, size_t size) {
  const shmq__ring_view *r = held->ring;
  bool in_block = held->block >= 0;
  if (in_block) {
    struct shmq__block_ref ref = {.index = (uint32_t)held->block, .length = (uint32_t)size};
    memcpy(cell_payload(r, held->position), &ref, sizeof ref);
    size = sizeof ref;
  }
  return cell_make(turn_of(r, held->position), (uint32_t)size, 0, 0, in_block, CELL_READY);
}

void shmq__publish(shmq *q, const struct shmq__held *held, size_t size) {
  /* If we die before this store, recovery makes a tombstone; after it, the message is delivered. */
  CRASHPOINT("publish.before");
  word_release(q, cell_word(held->ring, held->position), shmq__ready_word(held, size)); /* P1 */
  CRASHPOINT("publish.after");
  count(&q->segment->mine->puts, 1);
  signal_takers(q, 1);
  ring_fetch_next(held->ring, position_add(held->position, 1));
}

void shmq__give_up(shmq *q, const struct shmq__held *held) {
  const shmq__ring_view *r = held->ring;
  /* The tombstone first: no cell refers to the block, so dying in between leaves it as garbage. */
  word_release(q, cell_word(r, held->position), cell_tombstone(turn_of(r, held->position)));
  CRASHPOINT("abort.tombstone");
  if (held->block >= 0)
    (void)shmq__block_free(q->segment, (uint32_t)held->block, q->segment->me, r->id, held->position);
  (void)a_add(&q->queue->aborted, 1u);
  signal_takers(q, 1); /* a taker skips it and frees the cell */
}

/* Make room for a claim by dropping the message whose cell is next, which is the oldest; for a block by dropping
 * the oldest that nobody holds. False: that would take waiting. */
static bool drop_oldest(shmq *q, uint32_t band, const shmq__event *event) {
  struct shmq__held oldest;
  int n = event == &q->queue->not_full ? shmq__take_obstacle(q, band, &oldest)
                                       : shmq__take_oldest(q, band, &oldest);
  if (n < 1) return n == 0;
  (void)shmq__held_charge(q, &oldest);
  shmq__settle_done(q, &oldest);
  (void)a_add(&q->queue->dropped, 1u);
  return true;
}

/* Tombstones at head keep a putter out although nothing is in the queue; it may be the only one who
 * looks, so it frees them as a taker would. Where one declared consumer owns head, that one does. */
static bool skip_tombstones(shmq *q, uint32_t band) {
  const shmq__ring_view *r = &q->rings[band];
  bool skipped = false;
  if (!r->consumer_records) return false;
  /* No more than the ring holds: who fails was overtaken, and past that somebody scribbles. */
  for (uint64_t attempts = r->capacity; attempts > 0; attempts--) {
    uint64_t x = a_load(&r->index->head), p = index_position(x);
    uint64_t w = a_load(cell_word(r, p));
    if (w != cell_tombstone(turn_of(r, p))) return skipped;
    if (!ring_advance(&r->index->head, r->consumer_records, r->mask, &x, 1, q->segment->me))
      continue;
    struct shmq__held held = {.ring = r, .position = p, .word = w, .block = -1};
    shmq__settle_done(q, &held);
    skipped = true;
  }
  return skipped;
}

int shmq__reserve_wait(shmq *q, size_t size, const struct shmq__post *post, struct shmq__held *out,
                       int64_t deadline_ns) {
  shmq__event *event;
  int rc = shmq__reserve(q, size, post, out, &event);
  if (likely(rc != -EAGAIN)) return rc;
  struct shmq__waiter w = waiter(q, event, deadline_ns);
  uint32_t band = post ? post->band : 0, drops = 0;
  do {
    if (skip_tombstones(q, band)) {
      rc = shmq__reserve(q, size, post, out, &event);
      continue;
    }
    switch (q->config->full_policy) {
      case SHMQ_FULL_FAIL: return -EAGAIN;
      case SHMQ_FULL_DROP_NEWEST: (void)a_add(&q->queue->dropped, 1u); return 1;
      case SHMQ_FULL_DROP_OLDEST:
        /* No more than the queue holds: if room goes as fast as it is made, the deadline counts. */
        if (drops++ < q->config->capacity && drop_oldest(q, band, event)) break;
        __attribute__((fallthrough));
      default:
        wait_for(&w, event); /* room in the ring came, a block has not, or the other way round */
        rc = shmq__wait(&w);
        if (rc < 0) return rc;
    }
    rc = shmq__reserve(q, size, post, out, &event);
  } while (rc == -EAGAIN);
  /* Of either kind of room: whoever waits for the other looks in vain once. */
  waited(&w, w.slept && shmq__writable(q));
  return rc;
}
