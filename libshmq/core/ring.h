/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking positions of a ring. A cell's word tells whether its position can be taken; tail and head decide
 * who takes it; records remember who did.
 *
 *   R1  Taking is one compare-and-swap of an index word that names its owner, or, on a side with a single
 *       declared participant, one store. There is no instruction between "taken" and "known by whom".
 *   R2  An index word moves on only when the run that it names is recorded. So at any time each position
 *       below tail or head is recorded as its taker's, or named by the index word itself.
 *   R3  Between taking and publishing (or freeing), the cell's word is the taker's alone; recovery of the
 *       taker, under its lock, is the only other writer.
 *
 * Ordering: a producer's release store of READY is read by the consumer's acquire load in ring_take
 * (P1 -> C1) and covers the payload, the record and, with a single producer, tail. A consumer's release store
 * of FREE is read by the producer's acquire load in ring_claim (C2 -> P2) and covers its reads of the payload.
 */
#ifndef SHMQ_CORE_RING_H
#define SHMQ_CORE_RING_H

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "core/crashpoint.h"
#include "core/segment.h"

/* Along the cells of a run, without working out each one's address and turn. At the end of the ring the next is its first,
 * a turn later. */
struct ring_walk {
  unsigned char *cell;
  uint32_t left; /* to the end of the ring */
  uint64_t lap;  /* the first position of the next turn */
  uint64_t free; /* the word of a free cell of this turn */
};

static inline struct ring_walk ring_walk_from(const shmq__ring_view *r, uint64_t position) {
  uint32_t left = (uint32_t)(r->capacity - (position & r->mask));
  return (struct ring_walk){.cell = (unsigned char *)cell_word(r, position),
                            .left = left,
                            .lap = position_add(position, left),
                            .free = cell_free(turn_of(r, position))};
}

static inline void ring_walk_on(const shmq__ring_view *r, struct ring_walk *w) {
  w->cell += r->stride;
  if (unlikely(--w->left == 0)) *w = ring_walk_from(r, w->lap);
}

static inline _Atomic uint64_t *ring_walk_word(const struct ring_walk *w) {
  return (_Atomic uint64_t *)(void *)w->cell;
}

/* Record the run that x names, where x was read from *index, unless *index has moved on (then it is
 * recorded, by R2). */
void shmq__ring_record_run(_Atomic uint64_t *records, uint64_t mask, _Atomic uint64_t *index,
                           uint64_t x);

/* Size of the message in the cell with word w at a position; reads the block reference, which is only
 * meaningful while the position is not taken, or is the caller's. */
static inline uint64_t ring_message_size(const shmq__ring_view *r, uint64_t position, uint64_t w) {
  if (likely(!cell_in_block(w))) return cell_length(w);
  return block_ref_glance(cell_payload(r, position)).length;
}

static inline void ring_record(_Atomic uint64_t *records, uint64_t mask, uint64_t first, uint32_t n,
                               uint32_t me) {
  for (uint32_t i = 0; i < n; i++) {
    uint64_t p = position_add(first, i);
    a_store(&records[p & mask], record_make(p, me));
  }
}

/* Move *index from x on by n positions in the name of `me`. False: *index was not x any more, and x is
 * reloaded. */
static inline bool ring_advance(_Atomic uint64_t *index, _Atomic uint64_t *records, uint64_t mask,
                                uint64_t *x, uint32_t n, uint32_t me) {
  uint64_t first = index_position(*x);
  uint64_t next = index_make(position_add(first, n), n, me);
  if (!records) { /* single: the role holder owns every position that is taken and not settled */
    a_store(index, next);
    return true;
  }
  /* Our own last run is recorded: we did it before we came back here, or our predecessor's recovery. */
  if (index_owner(*x) != me) shmq__ring_record_run(records, mask, index, *x);
  if (!a_cas(index, x, next)) return false;
  /* If we die here the index word still names us; whoever moves it on records the run first (R2). */
  CRASHPOINT("ring.taken");
  ring_record(records, mask, first, n, me);
  return true;
}

/* Each failed attempt is somebody else's success, so no honest peers make anybody fail this often. Who only
 * scribbles on an index word must not keep us from looking at our deadline. */
#define RING_ATTEMPTS (1u << 16)

/* Fetch a cell that is to be written soon. The line of its word is only read: a taker polls it, and taken from him now it
 * comes back to be asked for once more. */
__attribute__((always_inline)) /* gcc drops calls of functions that only prefetch */
static inline void
ring_prefetch_cell(const shmq__ring_view *r, uint64_t position) {
  __builtin_prefetch((const void *)cell_word(r, position));
  if (r->beyond_offset) prefetch_to_write(cell_beyond(r, position));
}

/* Fetch the cell that is put into next, exclusively, where a line that both have read is expensive to write: fetched any earlier, the taker who
 * polls its word has read it by now. Once for each call: who waits for room would take the cell from whoever has it. */
__attribute__((always_inline)) static inline void
ring_fetch_tail(const shmq__ring_view *r) {
  if (!r->fetch_late) return;
  uint64_t p = index_position(a_peek(&r->index->tail));
  prefetch_to_write(cell_word(r, p));
  if (r->beyond_offset) prefetch_to_write(cell_beyond(r, p));
}

/* After a put that ended before `next`: fetch the cell there, which was freed on the consumer's CPU, while there is time. */
__attribute__((always_inline)) static inline void
ring_fetch_next(const shmq__ring_view *r, uint64_t next) {
  if (!r->fetch_late) ring_prefetch_cell(r, next);
}

/* Write the lines of a message of the caller's beyond its word's, leaving what is in them: dying in between changes nothing. Its
 * next putter then finds them written by us and not read by both, which halves the time of a message, and with CPUs far apart makes it a third. What does
 * not stay in the caches of the two is read from a common one anyway. */
static inline void ring_dirty(const shmq__ring_view *r, unsigned char *payload, uint32_t size) {
  uint32_t at = r->payload_offset < r->beyond_offset ? SHMQ__LINE - (uint32_t)r->payload_offset : 0;
  for (; at < size; at += SHMQ__LINE) {
    volatile unsigned char *line = payload + at;
    *line = *line;
  }
}

/* Fetch the message at a position that nobody has taken yet, if it is there: while the one before it is copied, instead of a line at
 * a time once its own word has come. Beyond these lines the processor has seen by itself where it goes. */
#define RING_LINES_AHEAD 16u
__attribute__((always_inline)) static inline void
ring_prefetch_message(const shmq__ring_view *r, uint64_t position) {
  uint64_t w = a_load(cell_word(r, position));
  if (cell_kind(w) != CELL_READY || cell_turn(w) != turn_of(r, position)) return;
  const unsigned char *line = cell_beyond(r, position);
  uint32_t lines = r->stride / SHMQ__LINE - 1;
  for (uint32_t i = 0; i < lines && i < RING_LINES_AHEAD; i++)
    __builtin_prefetch(line + i * SHMQ__LINE);
}

/* Cells that the look at a run is ahead of. */
#define RING_AHEAD 8u

/* How many cells from p on are free, up to `want`. */
static inline uint32_t ring_free_from(const shmq__ring_view *r, uint64_t p, uint32_t want) {
  if (want == 1) return a_load(cell_word(r, p)) == cell_free(turn_of(r, p)); /* P2 */
  struct ring_walk w = ring_walk_from(r, p);
  uint32_t n = 0;
  for (; n < RING_AHEAD; n++) ring_prefetch_cell(r, p + n);
  for (n = 0; n < want && a_load(ring_walk_word(&w)) == w.free; n++) { /* P2 */
    ring_prefetch_cell(r, p + n + RING_AHEAD);
    ring_walk_on(r, &w);
  }
  return n;
}

/* Take up to `want` (1 to SHMQ_BATCH_MAX) free positions at tail, from *first on.
 * Returns how many, or -EAGAIN: full. Lock-free. */
static inline int ring_claim(const shmq__ring_view *r, uint32_t me, uint32_t want,
                             uint64_t *first) {
  uint64_t x = a_load(&r->index->tail);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x);
    uint32_t n = ring_free_from(r, p, want);
    if (n == 0) {
      uint64_t now = a_load(&r->index->tail);
      if (now == x) return -EAGAIN;
      x = now;
      continue;
    }
    if (!ring_advance(&r->index->tail, r->producer_records, r->mask, &x, n, me)) continue;
    *first = p;
    return (int)n;
  }
  return -EAGAIN;
}

/* Could ring_claim take one now? What a cell says is no answer if others have moved the index past it meanwhile: the
 * next one may be free, and nobody is going to signal that. */
static inline bool ring_has_room(const shmq__ring_view *r) {
  uint64_t x = a_load(&r->index->tail);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x), before = x;
    if (a_load(cell_word(r, p)) == cell_free(turn_of(r, p))) return true;
    if ((x = a_load(&r->index->tail)) == before) return false;
  }
  return true; /* there was room all the time */
}

/* Can ring_take certainly take none now? The cell of the position that head names is free, and so unpublished; therefore head is still there, and
 * no later one can be taken before it. */
static inline bool ring_has_nothing(const shmq__ring_view *r) {
  uint64_t p = index_position(a_load(&r->index->head));
  if (r->beyond_offset) __builtin_prefetch(cell_beyond(r, p));
  return a_load(cell_word(r, p)) == cell_free(turn_of(r, p));
}

/* Could ring_take take one now, of any length? */
static inline bool ring_has_published(const shmq__ring_view *r) {
  uint64_t x = a_load(&r->index->head);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x), before = x;
    if (r->beyond_offset) __builtin_prefetch(cell_beyond(r, p));
    uint64_t w = a_load(cell_word(r, p));
    bool published = cell_kind(w) == CELL_READY || cell_kind(w) == CELL_TOMBSTONE;
    if (published && cell_turn(w) == turn_of(r, p)) return true;
    if ((x = a_load(&r->index->head)) == before) return false;
  }
  return true; /* there was something all the time */
}

/* Take up to `want` published positions at head, tombstones included; words[i] is the i-th cell's word as
 * it stays until the caller settles it. With limits, a message longer than limits[i].iov_len
 * is not taken. Returns how many, -EAGAIN: nothing published, or -EMSGSIZE: the first is too long. */
static inline int ring_take(const shmq__ring_view *r, uint32_t me, uint32_t want,
                            const struct iovec *limits, uint64_t *first, uint64_t *words) {
  uint64_t x = a_load(&r->index->head);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x);
    uint32_t n = 0;
    bool too_long = false;
    if (r->beyond_offset) __builtin_prefetch(cell_beyond(r, p));
    for (; n < want; n++) {
      uint64_t at = position_add(p, n);
      uint64_t w = a_load(cell_word(r, at)); /* C1 */
      if (cell_turn(w) != turn_of(r, at)) break;
      if (cell_kind(w) == CELL_READY) {
        too_long = limits && ring_message_size(r, at, w) > limits[n].iov_len;
        if (too_long) break;
      } else if (cell_kind(w) != CELL_TOMBSTONE) {
        break;
      }
      words[n] = w;
    }
    if (n == 0) {
      uint64_t now = a_load(&r->index->head);
      if (now == x) return too_long ? -EMSGSIZE : -EAGAIN;
      x = now;
      continue;
    }
    /* It is about to be freed, and nobody else needs its line until then. */
    if (r->stride >= SHMQ__LINE) prefetch_to_write(cell_word(r, p));
    if (!ring_advance(&r->index->head, r->consumer_records, r->mask, &x, n, me)) continue;
    *first = p;
    return (int)n;
  }
  return -EAGAIN;
}

/* A message in its cell, of the turn that the FREE word `free` is of, and no longer than `limit`? One comparison tells turn, kind
 * and that it is in no block. */
static inline bool ring_is_short(const shmq__ring_view *r, uint64_t w, uint64_t free, size_t limit) {
  const uint64_t told = (uint64_t)TURN_MASK << 42 | 0xf;
  return (w & told) == (free | CELL_READY) && cell_length(w) <= r->payload_bytes && cell_length(w) <= limit;
}

/* As ring_take, but only messages that lie in their cells and fit their limits, and only up to one that does not. Returns how
 * many; 0: ring_take says why. */
static inline uint32_t ring_take_short(const shmq__ring_view *r, uint32_t me, uint32_t want,
                                       const struct iovec *limits, uint64_t *first, uint64_t *words) {
  uint64_t x = a_load(&r->index->head);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x);
    struct ring_walk at = ring_walk_from(r, p);
    uint32_t n = 0;
    if (r->beyond_offset) __builtin_prefetch(cell_beyond(r, p));
    for (; n < want; ring_walk_on(r, &at)) {
      uint64_t w = a_load(ring_walk_word(&at)); /* C1 */
      if (!ring_is_short(r, w, at.free, limits[n].iov_len)) break;
      __builtin_prefetch(at.cell + r->beyond_offset);
      words[n++] = w;
    }
    if (n == 0) return 0;
    if (r->stride >= SHMQ__LINE) prefetch_to_write(cell_word(r, p));
    if (!ring_advance(&r->index->head, r->consumer_records, r->mask, &x, n, me)) continue;
    *first = p;
    return n;
  }
  return 0;
}

/* The same for one message of at most `limit` bytes. */
static inline bool ring_take_one_short(const shmq__ring_view *r, uint32_t me, size_t limit, uint64_t *position,
                                       uint64_t *word) {
  uint64_t x = a_load(&r->index->head);
  for (uint32_t attempts = RING_ATTEMPTS; attempts > 0; attempts--) {
    uint64_t p = index_position(x);
    if (r->beyond_offset) __builtin_prefetch(cell_beyond(r, p));
    uint64_t w = a_load(cell_word(r, p)); /* C1 */
    if (!ring_is_short(r, w, cell_free(turn_of(r, p)), limit)) return false;
    if (r->stride >= SHMQ__LINE) prefetch_to_write(cell_word(r, p));
    if (!ring_advance(&r->index->head, r->consumer_records, r->mask, &x, 1, me)) continue;
    *position = p;
    *word = w;
    return true;
  }
  return false;
}

/* Is position p taken, by a producer or by a consumer, as the index word x says? Modular. */
static inline bool position_before(uint64_t p, uint64_t index_position_value) {
  return position_sub(index_position_value, p) - 1 < POSITION_MASK / 2;
}

/* Positions published or claimed and not taken, as the index words say; at most the capacity. */
static inline uint64_t ring_span(const shmq__ring_view *r) {
  uint64_t head = index_position(a_load(&r->index->head));
  uint64_t tail = index_position(a_load(&r->index->tail));
  uint64_t span = position_sub(tail, head);
  return span > r->capacity ? 0 : span; /* head was read first and may have passed the tail since */
}

#endif
