/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking messages and settling them: first deliveries from head, redeliveries from behind it.
 *
 * Redelivery. Cells that are RETURNED lie anywhere in the lap behind head. Who returned one raises
 * returned_seq afterwards; a taker that finds returned_seen different scans, and moves returned_seen up to
 * the value of returned_seq that it read before a scan only if that scan left nothing to take. A death
 * between the cell and the raise is mended by recovery, which raises unconditionally.
 */
#include <limits.h>

#include "core/block.h"
#include "os/futex.h"
#include "os/process.h"
#include "queue.h"

/* ---- settling ---- */

/* The oldest position that is not taken, or one behind it that is given up or not written yet, holds a
 * message. */
static bool holds_ready(const shmq__ring_view *r) {
  uint64_t span = ring_span(r), p = index_position(a_load(&r->index->head));
  for (; span > 0; span--, p = position_add(p, 1))
    if (cell_kind(a_load(cell_word(r, p))) == CELL_READY) return true;
  return false;
}

/* Somebody waits for the queue to become empty: tell them when nothing is left to take. */
void shmq__signal_idle_slow(shmq *q) {
  for (uint32_t band = 0; band < q->config->priorities; band++)
    if (holds_ready(&q->rings[band])) return;
  event_signal(&q->queue->idle, INT_MAX, NULL);
}

void shmq__settle_done(shmq *q, const struct shmq__held *held) {
  const shmq__ring_view *r = held->ring;
  word_release(q, cell_word(r, held->position), cell_free(next_turn(r, held->position))); /* C2 */
  /* If we die here the cell is free and the block names us: garbage, which recovery frees. */
  CRASHPOINT("settle.freed");
  if (held->block >= 0)
    (void)shmq__block_free(q->segment, (uint32_t)held->block, q->segment->me, r->id,
                           held->position);
  signal_putters(q, 1);
  shmq__signal_idle(q);
}

void shmq__settle_returned(shmq *q, const struct shmq__held *held, uint32_t attempts,
                           int64_t not_before_ns, const shmq_cause *cause) {
  const shmq__ring_view *r = held->ring;
  if (r->tracked) {
    struct shmq__stamp *stamp = cell_stamp(r, held->position);
    if (cause) stamp->cause = *cause;
    stamp->not_before_ns = not_before_ns;
  }
  word_release(q, cell_word(r, held->position),
               cell_become(held->word, CELL_RETURNED, 0, attempts));
  CRASHPOINT("settle.returned"); /* recovery raises the sequence for us */
  (void)a_add(&q->queue->returned_seq, 1u);
  signal_takers(q, 1);
}

/* ---- dead letters and expiry ---- */

static bool past_limit(const shmq *q, uint64_t word) {
  return q->config->max_attempts > 0 && cell_attempts(word) >= q->config->max_attempts;
}

/* The dead letter queue of q as a handle on the stack: it needs no more than the fields set here. */
static bool dead_letter_queue(const shmq *q, shmq *out) {
  if (q->config->dead_letter < 0) return false;
  uint32_t number = (uint32_t)q->config->dead_letter;
  const struct shmq__queue_config *config = &q->segment->configs[number];
  *out = (shmq){.segment = q->segment,
                .config = config,
                .queue = &q->segment->queues[number],
                .rings = &q->segment->rings[config->first_ring],
                .number = number};
  return true;
}

/* The held message goes to the dead letter queue with its cause, as one step. False: no room there. */
static bool bury(shmq *q, struct shmq__held *held, enum shmq_reason reason) {
  shmq dead;
  shmq__event *event;
  if (!dead_letter_queue(q, &dead)) return false;
  shmq_cause cause = {.pid = -1, .status = -1, .reason = (int32_t)reason};
  if (held->ring->tracked && reason != SHMQ_REASON_EXPIRED)
    cause = cell_stamp(held->ring, held->position)->cause;
  cause.attempts = cell_attempts(held->word);
  if (cause.when_ns == 0) cause.when_ns = shmq__wall_clock_ns();
  if (shmq__move(q, held, &dead, &cause, &event) < 0) return false;
  (void)a_add(&q->queue->dead_lettered, 1u);
  return true;
}

/* A message that the caller holds is past its time or its limit. True: it is gone, and counted once: as a dead
 * letter or as expired. */
static bool dispose(shmq *q, struct shmq__held *held, enum shmq_reason reason) {
  if (bury(q, held, reason)) return true;
  if (reason != SHMQ_REASON_EXPIRED) return false;
  (void)a_add(&q->queue->expired, 1u);
  shmq__settle_done(q, held);
  return true;
}

/* ---- redelivery ---- */

enum found { FOUND_NONE, FOUND_MESSAGE, FOUND_TOO_LONG };

/* What one look behind head is about. */
struct scan {
  shmq *q;
  const struct iovec *limit;
  int64_t now_ns;
  int64_t due_ns; /* least not-before of what was passed over */
  bool only_dead; /* leave what can be delivered */
};

static bool not_due(struct scan *scan, const shmq__ring_view *r, uint64_t p) {
  if (!r->tracked) return false;
  int64_t due = (int64_t)glance(&cell_stamp(r, p)->not_before_ns);
  if (due == 0) return false;
  if (scan->now_ns == 0) scan->now_ns = shmq__now_ns();
  if (due <= scan->now_ns) return false;
  if (scan->due_ns == 0 || due < scan->due_ns) scan->due_ns = due;
  return true;
}

/* Why a returned message is not delivered again, if it is not. An expiry never changes, so it may be read before
 * the cell is taken. */
static enum shmq_reason no_more(struct scan *scan, const shmq__ring_view *r, uint64_t p,
                                uint64_t w) {
  if (past_limit(scan->q, w)) return SHMQ_REASON_DIED;
  int64_t expires = r->tracked ? (int64_t)glance(&cell_stamp(r, p)->expires_ns) : 0;
  if (expires == 0) return SHMQ_REASON_NONE;
  if (scan->now_ns == 0) scan->now_ns = shmq__now_ns();
  return scan->now_ns >= expires ? SHMQ_REASON_EXPIRED : SHMQ_REASON_NONE;
}

/* Take the RETURNED cell at p whose word is w. */
static bool lease_returned(shmq *q, const shmq__ring_view *r, uint64_t p, uint64_t w,
                           struct shmq__held *out) {
  uint32_t me = q->segment->me;
  struct shmq__slot *slot = q->segment->mine;
  /* Before the cell: recovery looks for LEASED cells only of those who may have some. */
  if (!a_load_relaxed(&slot->redelivers)) a_store(&slot->redelivers, 1u);
  uint64_t leased = cell_become(w, CELL_LEASED, me, cell_attempts(w));
  if (!a_cas(cell_word(r, p), &w, leased)) return false;
  CRASHPOINT("redeliver.leased");
  *out = (struct shmq__held){.ring = r, .position = p, .word = leased, .block = -1};
  return true;
}

/* The same if it may be delivered now, or dispose of it. */
static enum found redeliver(struct scan *scan, const shmq__ring_view *r, uint64_t p, uint64_t w,
                            struct shmq__held *out) {
  shmq *q = scan->q;
  if (not_due(scan, r, p)) return FOUND_NONE;
  enum shmq_reason dead = no_more(scan, r, p, w);
  if (!dead && scan->only_dead) return FOUND_NONE;
  if (!dead && scan->limit && ring_message_size(r, p, w) > scan->limit->iov_len)
    return FOUND_TOO_LONG;
  if (!lease_returned(q, r, p, w, out)) return FOUND_NONE;
  if (!dead) {
    /* Not when it was only parked until its time, or did not fit somebody's buffer. */
    if (cell_attempts(w) > 0) (void)a_add(&q->queue->redeliveries, 1u);
    return FOUND_MESSAGE;
  }
  if (shmq__held_charge(q, out) < 0)
    shmq__settle_done(q, out); /* damaged: nothing of it can be kept */
  else if (!dispose(q, out, dead))
    word_release(q, cell_word(r, p), cell_become(out->word, CELL_RETURNED, 0, cell_attempts(w)));
  return FOUND_NONE;
}

static enum found scan_band(struct scan *scan, uint32_t band, struct shmq__held *out) {
  const shmq__ring_view *r = &scan->q->rings[band];
  uint64_t *cursor = &scan->q->return_cursor[band];
  uint64_t head = index_position(a_load(&r->index->head));
  uint64_t p = *cursor;
  if (position_sub(head, p) > r->capacity) p = position_sub(head, r->capacity);
  enum found worst = FOUND_NONE;
  for (uint64_t i = 0; i < r->capacity; i++, p = position_add(p, 1)) {
    if (p == head) p = position_sub(head, r->capacity);
    uint64_t w = a_load(cell_word(r, p));
    if (cell_kind(w) != CELL_RETURNED || cell_turn(w) != turn_of(r, p)) continue;
    enum found found = redeliver(scan, r, p, w, out);
    if (found == FOUND_TOO_LONG) worst = found;
    if (found != FOUND_MESSAGE) continue;
    *cursor = position_add(p, 1);
    return found;
  }
  return worst;
}

static enum found scan_returned(shmq *q, const struct iovec *limit, struct shmq__held *out) {
  struct scan scan = {.q = q, .limit = limit};
  enum found worst = FOUND_NONE;
  uint64_t seen = a_load(&q->queue->returned_seen), seq = a_load(&q->queue->returned_seq);
  int64_t due = a_load(&q->queue->next_due_ns);
  for (uint32_t band = q->config->priorities; band-- > 0;) {
    enum found found = scan_band(&scan, band, out);
    if (found == FOUND_MESSAGE) return found;
    if (found == FOUND_TOO_LONG) worst = found;
  }
  if (worst == FOUND_TOO_LONG) return worst;
  /* Nothing is left to take that was returned before seq was read. next_due_ns first: whoever saw a
   * delayed cell that we did not has raised seq, and its scan corrects ours. */
  if (due == scan.due_ns || a_cas(&q->queue->next_due_ns, &due, scan.due_ns))
    if (seen != seq) (void)a_cas(&q->queue->returned_seen, &seen, seq);
  return FOUND_NONE;
}

void shmq__sweep_dead_letters(shmq *q) {
  struct shmq__held held;
  if (q->config->max_attempts == 0 || !q->segment->me) return;
  if (q->config->flags & SHMQ_SINGLE_CONSUMER && q->consumer_epoch != q->segment->join_epoch)
    return;
  struct scan scan = {.q = q, .only_dead = true};
  for (uint32_t band = 0; band < q->config->priorities; band++) (void)scan_band(&scan, band, &held);
}

/* ---- first deliveries ---- */

/* A READY message of a tracked queue that the caller took: may it be delivered now? When not, it has been
 * parked or disposed of. */
static bool deliverable(shmq *q, struct shmq__held *held) {
  const struct shmq__stamp *stamp = cell_stamp(held->ring, held->position);
  int64_t not_before = stamp->not_before_ns, expires = stamp->expires_ns;
  if (not_before == 0 && expires == 0) return true;
  int64_t now = shmq__now_ns();
  if (shmq__held_charge(q, held) < 0) return true; /* damaged: whoever reads it says so */
  if (expires > 0 && now >= expires) {
    (void)dispose(q, held, SHMQ_REASON_EXPIRED);
    return false;
  }
  if (not_before <= now) return true;
  shmq__settle_returned(q, held, cell_attempts(held->word), not_before, NULL);
  return false;
}

int shmq__keep_deliverable(shmq *q, const shmq__ring_view *r, uint64_t first, int n,
                           const uint64_t *words, struct shmq__held *out) {
  int kept = 0;
  for (int i = 0; i < n; i++) {
    out[kept] = (struct shmq__held){
        .ring = r, .position = position_add(first, (uint64_t)i), .word = words[i], .block = -1};
    if (unlikely(cell_kind(words[i]) == CELL_TOMBSTONE))
      shmq__settle_done(q, &out[kept]);
    else if (likely(!r->tracked) || deliverable(q, &out[kept]))
      kept++;
  }
  return kept;
}

/* Shut down, and nothing can come any more: no claim was made before the flag that is not published. */
static bool finished(shmq *q) {
  if (!a_load_seq(&q->queue->shut)) return false;
  (void)shmq__barrier_others(); /* orders a single producer's claim before our look at tail */
  for (uint32_t band = 0; band < q->config->priorities; band++)
    if (ring_span(&q->rings[band]) != 0) return false;
  return a_load(&q->queue->returned_seq) == a_load(&q->queue->returned_seen) &&
         a_load(&q->queue->next_due_ns) == 0;
}

/* First deliveries. A round that keeps nothing has freed or parked a position at least: past as many as
 * the queue has, somebody makes them as fast as we do, and waiting is the caller's business. */
static int take_ready(shmq *q, uint32_t want, const struct iovec *limits, struct shmq__held *out) {
  uint64_t words[SHMQ_BATCH_MAX], first;
  uint64_t rounds = (uint64_t)q->config->capacity * q->config->priorities;
  for (; rounds > 0; rounds--) {
    int n = -EAGAIN;
    const shmq__ring_view *r = NULL;
    for (uint32_t band = q->config->priorities; n == -EAGAIN && band-- > 0;) {
      r = &q->rings[band];
      n = ring_take(r, q->segment->me, want < r->capacity ? want : r->capacity, limits, &first,
                    words);
    }
    if (n < 0) return n;
    int kept = shmq__keep_deliverable(q, r, first, n, words, out);
    shmq__signal_idle(q);
    if (likely(kept > 0)) return kept;
  }
  return -EAGAIN;
}

int shmq__take(shmq *q, uint32_t want, const struct iovec *limits, struct shmq__held *out) {
  /* Twice: first deliveries may have parked messages, and when those are due only a scan tells. */
  for (int pass = 0; pass < 2; pass++) {
    bool returned = shmq__may_have_returned(q);
    if (pass > 0 && !returned) break;
    if (unlikely(returned)) {
      enum found found = scan_returned(q, limits, out);
      if (found == FOUND_MESSAGE) {
        shmq__signal_idle(q);
        return 1;
      }
      if (found == FOUND_TOO_LONG) return -EMSGSIZE;
    }
    int n = take_ready(q, want, limits, out);
    if (likely(n != -EAGAIN)) return n;
  }
  return finished(q) ? -EPIPE : -EAGAIN;
}

int64_t shmq__expire_ready(shmq *q, uint32_t band, int64_t now) {
  const shmq__ring_view *r = &q->rings[band];
  for (uint32_t i = 0; i < r->capacity; i++) {
    uint64_t p = index_position(a_load(&r->index->head)), w = a_load(cell_word(r, p)), first;
    if (cell_turn(w) != turn_of(r, p) || cell_kind(w) != CELL_READY) return 0;
    int64_t expires = (int64_t)glance(&cell_stamp(r, p)->expires_ns);
    if (expires <= 0 || expires > now) return expires > 0 ? expires : 0;
    struct shmq__held held;
    if (ring_take(r, q->segment->me, 1, NULL, &first, &w) != 1) return 0;
    if (shmq__keep_deliverable(q, r, first, 1, &w, &held) == 1) /* it was another one */
      shmq__settle_returned(q, &held, cell_attempts(held.word), 0, NULL);
  }
  return 0;
}

int shmq__take_oldest(shmq *q, uint32_t band, struct shmq__held *out) {
  struct scan scan = {.q = q};
  uint64_t word, first;
  if (shmq__may_have_returned(q) && scan_band(&scan, band, out) == FOUND_MESSAGE) return 1;
  int n = ring_take(&q->rings[band], q->segment->me, 1, NULL, &first, &word);
  return n < 0 ? n : shmq__keep_deliverable(q, &q->rings[band], first, 1, &word, out);
}

int shmq__take_obstacle(shmq *q, uint32_t band, struct shmq__held *out) {
  const shmq__ring_view *r = &q->rings[band];
  uint64_t p = position_sub(index_position(a_load(&r->index->tail)), r->capacity), first;
  uint64_t w = a_load(cell_word(r, p));
  if (cell_turn(w) != turn_of(r, p)) return 0;
  if (cell_kind(w) == CELL_RETURNED) return lease_returned(q, r, p, w, out);
  if (index_position(a_load(&r->index->head)) != p) return -EAGAIN;
  int n = ring_take(r, q->segment->me, 1, NULL, &first, &w);
  return n < 0 ? n : shmq__keep_deliverable(q, r, first, 1, &w, out);
}

/* ---- payloads ---- */

/* A block's word and its first line are two more lines on their way from another CPU: let those of the message
 * behind this one come while this one is worked on. Only a guess; nothing read here is trusted. */
static void prefetch_block_of(const shmq *q, const shmq__ring_view *r, uint64_t position) {
  const struct shmq_segment *s = q->segment;
  uint64_t w = a_load_relaxed(cell_word(r, position));
  if (!cell_in_block(w) || cell_turn(w) != turn_of(r, position)) return;
  struct shmq__block_ref ref = block_ref_glance(cell_payload(r, position));
  if (ref.index >= s->geometry.blocks) return;
  prefetch_to_write(block_word(s, ref.index));
  __builtin_prefetch(block_memory(s, ref.index));
}

/* An answer in place overwrites its request's header and what the asker read last there; who only reads loses nothing,
 * for the line has to come once whoever has it afterwards. */
static inline void prefetch_beginning(const struct shmq_segment *s, uint32_t index) {
  const unsigned char *memory = block_memory(s, index);
  prefetch_to_write(memory);
  if (s->geometry.block_bytes > SHMQ__LINE) prefetch_to_write(memory + SHMQ__LINE);
}

int shmq__held_charge(shmq *q, struct shmq__held *held) {
  const shmq__ring_view *r = held->ring;
  struct shmq__block_ref ref;
  if (!cell_in_block(held->word)) return cell_length(held->word) > r->payload_bytes ? -EBADMSG : 0;
  memcpy(&ref, cell_payload(r, held->position), sizeof ref);
  if (ref.index >= q->segment->geometry.blocks || ref.length > q->segment->geometry.block_bytes)
    return -EBADMSG;
  held->block = ref.index;
  held->size = ref.length;
  prefetch_beginning(q->segment, ref.index);
  shmq__block_take_charge(q->segment, ref.index, r->id, held->position);
  prefetch_block_of(q, r, position_add(held->position, 1));
  return 0;
}

int shmq__held_payload(shmq *q, struct shmq__held *held, void **data, size_t *size) {
  int rc = shmq__held_charge(q, held);
  if (unlikely(rc < 0)) {
    shmq__settle_done(q, held); /* a damaged cell must not stop those behind it */
    return rc;
  }
  if (held->block >= 0) {
    *data = block_memory(q->segment, (uint32_t)held->block);
    *size = held->size;
  } else {
    *data = cell_payload(held->ring, held->position);
    *size = cell_length(held->word);
  }
  return 0;
}
