/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything in a segment is. Creator and opener compute it from the same counts, so the segment
 * holds no offset that could lie.
 */
#include <errno.h>
#include <string.h>

#include "base/align.h"
#include "core/segment.h"
#include "os/processor.h"

static uint64_t fnv1a(uint64_t hash, const void *data, size_t n) {
  const unsigned char *p = data;
  for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
  return hash;
}
#define FNV_START UINT64_C(0xcbf29ce484222325)

uint32_t shmq__fingerprint(void) {
  const uint32_t facts[] = {
      sizeof(struct shmq__header),
      sizeof(struct shmq__queue),
      sizeof(struct shmq__ring),
      sizeof(struct shmq__slot),
      sizeof(struct shmq__stamp),
      offsetof(struct shmq__header, block_freed),
      offsetof(struct shmq__queue, shut),
      offsetof(struct shmq__queue, returned_seq),
      offsetof(struct shmq__queue, aborted),
      offsetof(struct shmq__ring, head),
      offsetof(struct shmq__slot, redo),
      SHMQ__LINE, /* of a long cell, and of a block's word */
      0x01020304u, /* its bytes in memory tell the byte order */
  };
  uint64_t hash = fnv1a(FNV_START, facts, sizeof facts);
  return (uint32_t)(hash ^ hash >> 32);
}

uint64_t shmq__checksum(const struct shmq__header *header,
                        const struct shmq__queue_config *configs) {
  size_t from = offsetof(struct shmq__header, layout_version);
  size_t to = offsetof(struct shmq__header, checksum);
  uint64_t hash = fnv1a(FNV_START, (const char *)header + from, to - from);
  for (uint32_t i = 0; i < header->queues; i++) hash = fnv1a(hash, &configs[i], sizeof configs[i]);
  return hash;
}

/* How the cells of a ring lie: shmq__ring_view has the fields. */
struct cells {
  uint32_t stride;
  uint64_t payload_offset;
  uint64_t beyond_offset;
  uint64_t bytes; /* of all */
};

/* A cell is its head (its word, and the stamp of tracked queues) and its payload. Small cells share a line without straddling
 * it. Longer ones have their lines to themselves, so that a taker who polls a cell's word does not take the line from
 * whoever writes the end of the cell before it. If all that is too long by is the word, payloads have a line each in an
 * array of their own: next to its word's, it would be fetched for whoever polls that. Not in small rings, which stay in the
 * caches nearest to the processors: there it is the faster way to the payload. */
#ifndef APART_CELLS /* the crash campaign's rings are small */
#define APART_CELLS 512u
#endif
static struct cells cells_of(const struct shmq__queue_config *config) {
  uint32_t head = config->flags & SHMQ__TRACKED ? 8 + (uint32_t)sizeof(struct shmq__stamp) : 8;
  uint32_t payload = config->message_bytes, bytes = head + payload;
  uint64_t capacity = config->capacity;
  if (bytes > SHMQ__LINE && bytes <= SHMQ__LINE + 8 && head == 8 && capacity >= APART_CELLS)
    return (struct cells){.stride = SHMQ__LINE,
                          .payload_offset = capacity * SHMQ__LINE,
                          .beyond_offset = capacity * SHMQ__LINE,
                          .bytes = capacity * 2 * SHMQ__LINE};
  bool small = bytes <= SHMQ__LINE;
  uint32_t stride = bytes <= 16 ? 16 : small ? power_of_two(bytes) : (uint32_t)align_up(bytes, SHMQ__LINE);
  return (struct cells){.stride = stride,
                        .payload_offset = head,
                        .beyond_offset = small ? 0 : SHMQ__LINE,
                        .bytes = align_up(capacity * stride, SHMQ__LINE)};
}

static uint64_t ring_bytes(const struct shmq__queue_config *config) {
  uint64_t records = align_up((uint64_t)config->capacity * 8, SHMQ__LINE);
  uint64_t bytes = cells_of(config).bytes;
  if (!(config->flags & SHMQ_SINGLE_PRODUCER)) bytes += records;
  if (!(config->flags & SHMQ_SINGLE_CONSUMER)) bytes += records;
  return bytes;
}

int shmq__geometry_lay_out(shmq__geometry *g, const struct shmq__queue_config *configs) {
  uint64_t at = SHMQ__PAGE;
  g->queues_at = at;
  at += (uint64_t)g->queues * sizeof(struct shmq__queue);
  g->rings_at = at;
  at += (uint64_t)g->rings * sizeof(struct shmq__ring);
  g->slots_at = at;
  at += (uint64_t)g->participants * sizeof(struct shmq__slot);
  g->cells_at = at;
  for (uint32_t i = 0; i < g->queues; i++) {
    /* Each term is below 2^26 * (2^22 + 64) * 8, so 2^16 queues could not overflow the sum. */
    at += ring_bytes(&configs[i]) * configs[i].priorities;
    if (at > (UINT64_C(1) << 46)) return -EINVAL;
  }
  g->block_words_at = at;
  at += (uint64_t)g->blocks * SHMQ__LINE;
  g->blocks_at = align_up(at, SHMQ__PAGE);
  if (g->blocks == 0) g->blocks_at = at;
  at = align_up(g->blocks_at + g->blocks * g->block_bytes, SHMQ__PAGE);
  if (at > (UINT64_C(1) << 46)) return -EINVAL;
  g->bytes = at;
  return 0;
}

int shmq__config_check(const struct shmq__queue_config *c, const shmq__geometry *g) {
  const uint32_t known = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER | SHMQ_TIMED | SHMQ__TRACKED;
  bool stamped = c->flags & SHMQ_TIMED || c->max_attempts > 0 || c->dead_letter >= 0;
  bool drops = c->full_policy == SHMQ_FULL_DROP_OLDEST;
  bool ok = memchr(c->name, '\0', sizeof c->name) && c->name[0] && c->capacity >= 2 &&
            c->capacity <= SHMQ_CAPACITY_MAX && (c->capacity & (c->capacity - 1)) == 0 &&
            c->message_bytes >= 1 && c->message_bytes <= SHMQ_MESSAGE_MAX && !(c->flags & ~known) &&
            c->priorities >= 1 && c->priorities <= SHMQ_PRIORITIES_MAX &&
            c->max_attempts <= SHMQ_ATTEMPTS_MAX && c->dead_letter >= -1 &&
            c->dead_letter < (int32_t)g->queues && c->full_policy <= SHMQ_FULL_DROP_NEWEST &&
            c->first_ring < g->rings && c->priorities <= g->rings - c->first_ring && c->ttl_ns >= 0 &&
            !(stamped && !(c->flags & SHMQ__TRACKED)) &&
            !(drops && c->flags & SHMQ_SINGLE_CONSUMER);
  return ok ? 0 : -EINVAL;
}

bool shmq__dead_letter_fits(const struct shmq__queue_config *configs, uint32_t i) {
  if (configs[i].dead_letter < 0) return true;
  uint32_t number = (uint32_t)configs[i].dead_letter;
  const struct shmq__queue_config *dead = &configs[number];
  return number != i && !(dead->flags & SHMQ_SINGLE_PRODUCER) &&
         dead->message_bytes >= configs[i].message_bytes;
}

int shmq__header_check(const struct shmq__header *h, uint64_t file_bytes, shmq__geometry *g) {
  if (h->layout_version != SHMQ__LAYOUT_VERSION || h->fingerprint != shmq__fingerprint())
    return -EPROTO;
  bool ok = h->bytes == file_bytes && h->participants >= 1 &&
            h->participants <= SHMQ_PARTICIPANTS_MAX && h->queues >= 1 &&
            h->queues <= SHMQ_RINGS_MAX && h->rings >= h->queues && h->rings <= SHMQ_RINGS_MAX &&
            h->block_bytes <= SHMQ_BLOCK_MAX && h->block_bytes % SHMQ__LINE == 0 &&
            (h->blocks == 0 || h->block_bytes > 0);
  if (!ok) return -EBADMSG;
  *g = (shmq__geometry){.participants = h->participants,
                        .queues = h->queues,
                        .rings = h->rings,
                        .blocks = h->blocks,
                        .block_bytes = h->block_bytes};
  return 0;
}

static void ring_view(shmq__ring_view *view, unsigned char **at, struct shmq__ring *index,
                      const struct shmq__queue_config *config) {
  uint64_t records = align_up((uint64_t)config->capacity * 8, SHMQ__LINE);
  view->index = index;
  view->capacity = config->capacity;
  view->mask = config->capacity - 1;
  view->shift = (uint32_t)__builtin_ctz(config->capacity);
  view->tracked = (config->flags & SHMQ__TRACKED) != 0;
  view->payload_bytes = config->message_bytes;
  view->short_bytes =
      config->message_bytes < SHMQ__SHORT_BYTES ? config->message_bytes : SHMQ__SHORT_BYTES;
  view->producer_records = view->consumer_records = NULL;
  if (!(config->flags & SHMQ_SINGLE_PRODUCER)) {
    view->producer_records = (_Atomic uint64_t *)(void *)*at;
    *at += records;
  }
  if (!(config->flags & SHMQ_SINGLE_CONSUMER)) {
    view->consumer_records = (_Atomic uint64_t *)(void *)*at;
    *at += records;
  }
  struct cells cells = cells_of(config);
  bool dirty_shared = shmq__dirty_lines_are_shared();
  view->fetch_late = dirty_shared && cells.stride >= SHMQ__LINE && config->message_bytes <= SHMQ__SHORT_BYTES;
  view->return_dirty = dirty_shared && cells.beyond_offset && cells.bytes <= shmq__private_cache_bytes();
  view->cells = *at;
  view->stride = cells.stride;
  view->payload_offset = cells.payload_offset;
  view->beyond_offset = cells.beyond_offset;
  *at += cells.bytes;
}

void shmq__ring_views(shmq__ring_view *views, unsigned char *memory, const shmq__geometry *g,
                      const struct shmq__queue_config *configs) {
  struct shmq__ring *index = (struct shmq__ring *)(void *)(memory + g->rings_at);
  unsigned char *at = memory + g->cells_at;
  uint32_t id = 0;
  for (uint32_t q = 0; q < g->queues; q++) {
    for (uint32_t band = 0; band < configs[q].priorities; band++, id++) {
      ring_view(&views[id], &at, &index[id], &configs[q]);
      views[id].id = id;
      views[id].queue = q;
    }
  }
}
