/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side: what a process knows of a segment and its queues. Pointers live here and the truth
 * does not. Everything that came from the segment's immutable part was copied once, checked, and is
 * used from here.
 */
#ifndef SHMQ_CORE_SEGMENT_H
#define SHMQ_CORE_SEGMENT_H

#include <string.h>

#include "core/layout.h"

/* Messages up to this are copied in less time than a line takes from one CPU to another. */
#define SHMQ__SHORT_BYTES 256u

/* One band of one queue as this process sees it. */
typedef struct shmq__ring_view {
  struct shmq__ring *index;
  _Atomic uint64_t *producer_records; /* NULL: single producer */
  _Atomic uint64_t *consumer_records; /* NULL: single consumer */
  unsigned char *cells;
  uint64_t mask;
  uint32_t shift;          /* position >> shift is the turn */
  uint32_t stride;         /* bytes from a cell's word to the next one's, from a payload to the next */
  uint64_t payload_offset; /* from a cell's word */
  uint64_t beyond_offset;  /* from a cell's word to its first line that is not the word's, 0: none */
  bool tracked;            /* a stamp follows each word */
  uint32_t payload_bytes;  /* longest message in a cell */
  uint32_t short_bytes;   /* longest short one of those */
  bool fetch_late;        /* a cell is fetched by the put that needs it, not by the one before (ring_fetch_tail) */
  bool return_dirty;      /* whoever takes several writes the lines that it only read (ring_dirty) */
  uint32_t id;            /* number of the ring in the segment */
  uint32_t queue;         /* number of the queue in the segment */
  uint32_t capacity;
} shmq__ring_view;

/* Where everything is; computed from the immutable part by creator and opener alike. */
typedef struct shmq__geometry {
  uint32_t participants;
  uint32_t queues;
  uint32_t rings;
  uint32_t blocks;
  uint64_t block_bytes;
  uint64_t queues_at;
  uint64_t rings_at;
  uint64_t slots_at;
  uint64_t cells_at; /* first record array */
  uint64_t block_words_at;
  uint64_t blocks_at;
  uint64_t bytes;
} shmq__geometry;

struct shmq_segment {
  unsigned char *memory;
  shmq__geometry geometry;
  struct shmq__header *header;
  struct shmq__queue *queues;
  struct shmq__slot *slots; /* slots[0] is participant 1's */
  _Atomic uint64_t *block_words;
  unsigned char *blocks;
  struct shmq__queue_config *configs; /* private copies */
  shmq__ring_view *rings;             /* all of the segment, by id */
  uint8_t uuid[16];

  int lock_fd;         /* its own open file description; never mapped, never passed on */
  uint32_t me;         /* participant index, 0: not joined */
  struct shmq__slot *mine; /* its slot, NULL: not joined */
  uint32_t generation; /* of the slot */
  uint32_t join_epoch; /* raised by each join of this attachment: tells what an earlier one held */
  bool defunct;        /* a forked child could not get a lock description of its own */
  bool asymmetric;     /* sleepers issue a process-wide barrier, the fast path needs no fence */
  bool owned_by_queue; /* made by shmq_open: goes with its last handle */
  uint32_t handles;    /* queue handles open in it */
  struct shmq *first;  /* and their list */
  uint32_t block_cursor;
  struct shmq__futex_fd *guard_fd; /* of shmq_guard_fd */
  struct shmq_segment *next, **link; /* list of the process's attachments, for the fork hook */
};

/* ---- geometry.c ---- */

uint32_t shmq__fingerprint(void);
/* Sizes and offsets from the counts in g and the configurations. -EINVAL when they overflow. */
int shmq__geometry_lay_out(shmq__geometry *g, const struct shmq__queue_config *configs);
uint64_t shmq__checksum(const struct shmq__header *header, const struct shmq__queue_config *configs);
int shmq__config_check(const struct shmq__queue_config *config, const shmq__geometry *g);
/* Can the dead letter queue of configs[i], if it has one, take whatever configs[i] holds? */
bool shmq__dead_letter_fits(const struct shmq__queue_config *configs, uint32_t i);
/* The immutable part of a segment in memory or in a private copy of it: checked against file_bytes. */
int shmq__header_check(const struct shmq__header *header, uint64_t file_bytes, shmq__geometry *g);
/* Fill views (g->rings of them) and the queue's stride from checked configurations. */
void shmq__ring_views(shmq__ring_view *views, unsigned char *memory, const shmq__geometry *g,
                      const struct shmq__queue_config *configs);

/* ---- small accessors ---- */

static inline struct shmq__slot *slot_of(const struct shmq_segment *s, uint32_t participant) {
  return &s->slots[participant - 1];
}
static inline _Atomic uint64_t *cell_word(const shmq__ring_view *r, uint64_t position) {
  return (_Atomic uint64_t *)(void *)(r->cells + (position & r->mask) * r->stride);
}
static inline unsigned char *cell_payload(const shmq__ring_view *r, uint64_t position) {
  return r->cells + (position & r->mask) * r->stride + r->payload_offset;
}
/* Neighbours are allocated and freed at the same time on different CPUs: each has a line of its own. */
static inline _Atomic uint64_t *block_word(const struct shmq_segment *s, uint32_t index) {
  return &s->block_words[(uint64_t)index * (SHMQ__LINE / 8)];
}
static inline struct shmq__block_ref block_ref_glance(const void *payload) {
  struct shmq__block_ref ref;
  uint64_t both = glance(payload);
  memcpy(&ref, &both, sizeof ref);
  return ref;
}
static inline unsigned char *cell_beyond(const shmq__ring_view *r, uint64_t position) {
  return r->cells + (position & r->mask) * r->stride + r->beyond_offset;
}
static inline struct shmq__stamp *cell_stamp(const shmq__ring_view *r, uint64_t position) {
  return (struct shmq__stamp *)(void *)(cell_word(r, position) + 1);
}
static inline uint32_t turn_of(const shmq__ring_view *r, uint64_t position) {
  return (uint32_t)(position >> r->shift) & TURN_MASK;
}
/* The turn of the same cell one lap later; position arithmetic wraps at 2^48. */
static inline uint32_t next_turn(const shmq__ring_view *r, uint64_t position) {
  return turn_of(r, position_add(position, r->mask + 1));
}

#endif
