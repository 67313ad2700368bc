/* SPDX-License-Identifier: Apache-2.0
 *
 * Read-only views. They use the core's words and geometry and nothing that writes.
 */
#define _GNU_SOURCE
#include "shmq/inspect.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "core/block.h"
#include "core/ring.h"
#include "core/wake.h"
#include "os/lock.h"
#include "os/object.h"
#include "os/process.h"

struct shmq_view {
  struct shmq_segment segment; /* mapped read-only */
  int fd;
  struct { /* the walk of shmq_view_next */
    uint32_t band;
    uint64_t position, left;
  } walk;
};

/* ---- list and open ---- */

static int is_segment(const struct dirent *entry) {
  return strncmp(entry->d_name, SHMQ__PREFIX, strlen(SHMQ__PREFIX)) == 0;
}

int shmq_list(int (*fn)(const char *name, void *ctx), void *ctx) {
  struct dirent **entries;
  if (!fn) return -EINVAL;
  int n = scandir(SHMQ__DIRECTORY, &entries, is_segment, alphasort), rc = 0;
  if (n < 0) return -errno;
  for (int i = 0; i < n; i++) {
    if (rc == 0) rc = fn(entries[i]->d_name + strlen(SHMQ__PREFIX), ctx);
    free(entries[i]);
  }
  free(entries);
  return rc;
}

/* Takes fd over. */
static int open_view(shmq_view **out, int fd) {
  shmq_view *view = calloc(1, sizeof *view);
  int rc = view ? shmq__segment_map(&view->segment, fd, false) : -ENOMEM;
  if (rc < 0) {
    shmq__object_close(fd);
    free(view);
    return rc;
  }
  view->fd = fd;
  *out = view;
  return 0;
}

int shmq_view_open(shmq_view **out, const char *name) {
  char path[SHMQ__PATH_MAX];
  int rc = shmq__object_path(name, path);
  if (rc < 0 || !out) return out ? rc : -EINVAL;
  int fd = shmq__object_open(path, false);
  return fd < 0 ? fd : open_view(out, fd);
}

int shmq_view_open_fd(shmq_view **out, int fd) {
  int own = out ? shmq__object_reopen(fd) : -EINVAL;
  return own < 0 ? own : open_view(out, own);
}

void shmq_view_close(shmq_view *view) {
  if (!view) return;
  shmq__segment_unmap(&view->segment);
  shmq__object_close(view->fd);
  free(view);
}

/* ---- segment and participants ---- */

int shmq_view_segment(shmq_view *view, shmq_segment_info *info) {
  const struct shmq_segment *s = &view->segment;
  struct shmq__object_status status = {0};
  (void)shmq__object_status(view->fd, &status);
  *info = (shmq_segment_info){.bytes = s->geometry.bytes,
                              .layout_version = SHMQ__LAYOUT_VERSION,
                              .queues = s->geometry.queues,
                              .participants_max = s->geometry.participants,
                              .blocks = s->geometry.blocks,
                              .block_bytes = (uint32_t)s->geometry.block_bytes,
                              .mode = status.mode,
                              .uid = status.uid,
                              .gid = status.gid,
                              .created_ns = s->header->created_ns};
  memcpy(info->uuid, s->uuid, sizeof info->uuid);
  for (uint32_t i = 1; i <= s->geometry.participants; i++)
    info->participants += a_load(&slot_of(s, i)->state) != SLOT_CLEAN;
  for (uint32_t i = 0; i < s->geometry.blocks; i++)
    info->blocks_free += a_load_relaxed(block_word(s, i)) == 0;
  return 0;
}

int shmq_view_participant(shmq_view *view, uint32_t index, shmq_participant_info *info) {
  const struct shmq_segment *s = &view->segment;
  if (index < 1 || index > s->geometry.participants) return -ENOENT;
  const struct shmq__slot *slot = slot_of(s, index);
  if (a_load(&slot->state) == SLOT_CLEAN) return -ENODATA;
  *info = (shmq_participant_info){.index = index,
                                  .generation = a_load(&slot->generation),
                                  .pid = a_load(&slot->pid),
                                  .pid_ns = a_load(&slot->pid_ns),
                                  .start_time = a_load(&slot->start_time),
                                  .joined_ns = a_load(&slot->joined_ns),
                                  .cpu = a_load(&slot->cpu),
                                  .alive = shmq__lock_is_held(view->fd, index) == 1,
                                  .step_committed = a_load(&slot->redo_state) == REDO_COMMITTED,
                                  .puts = a_load(&slot->puts),
                                  .gets = a_load(&slot->gets)};
  memcpy(info->role, slot->role, sizeof info->role - 1);
  memcpy(info->label, slot->label, sizeof info->label - 1);
  struct shmq__process process = {info->pid, info->pid_ns, info->start_time};
  char state = shmq__process_state(&process, NULL);
  info->stopped = info->alive && (state == 'T' || state == 't');
  return 0;
}

/* ---- cells ---- */

/* Who took position p, as the index word, the records or the role say; 0: not known. */
static uint32_t taker_of(_Atomic uint64_t *records, uint64_t mask, const _Atomic uint64_t *index,
                         uint64_t p, uint32_t role) {
  if (!records) return role;
  uint64_t x = a_load(index);
  if (position_sub(index_position(x), p) - 1 < index_run(x)) return index_owner(x);
  uint64_t record = a_load(&records[p & mask]);
  return record_position(record) == p ? record_owner(record) : 0;
}

static enum shmq_cell_state classify(const shmq__ring_view *r, uint64_t p, uint64_t w) {
  uint64_t head = index_position(a_load(&r->index->head));
  if (w == cell_free(next_turn(r, p))) return SHMQ_CELL_FREE;
  if (cell_turn(w) != turn_of(r, p)) return SHMQ_CELL_DAMAGED;
  switch (cell_kind(w)) {
    case CELL_FREE: return w == cell_free(turn_of(r, p)) ? SHMQ_CELL_RESERVED : SHMQ_CELL_DAMAGED;
    case CELL_READY: return position_before(p, head) ? SHMQ_CELL_LEASED : SHMQ_CELL_READY;
    case CELL_TOMBSTONE: return SHMQ_CELL_TOMBSTONE;
    case CELL_RETURNED: return SHMQ_CELL_RETURNED;
    case CELL_LEASED: return SHMQ_CELL_LEASED;
    default: return SHMQ_CELL_DAMAGED;
  }
}

/* Where the message of a cell with word w lies, and its size. NULL: that makes no sense. */
static const unsigned char *find_payload(const struct shmq_segment *s, const shmq__ring_view *r,
                                         uint64_t p, uint64_t w, uint64_t *size) {
  const unsigned char *payload = cell_payload(r, p);
  struct shmq__block_ref ref;
  *size = cell_length(w);
  if (!cell_in_block(w)) return *size <= r->payload_bytes ? payload : NULL;
  memcpy(&ref, payload, sizeof ref);
  *size = ref.length;
  return ref.index < s->geometry.blocks && ref.length <= s->geometry.block_bytes
             ? block_memory(s, ref.index)
             : NULL;
}

/* What stands at position p, 1 to capacity cells below tail. Up to data_bytes of a message go to data. */
static void look_at(const struct shmq_segment *s, const shmq__ring_view *r, uint64_t p,
                    shmq_cell_info *info, void *data, size_t data_bytes) {
  const struct shmq__queue *q = &s->queues[r->queue];
  uint64_t w = a_load(cell_word(r, p));
  memset(info, 0, sizeof *info);
  info->position = p;
  info->state = classify(r, p, w);
  if (info->state == SHMQ_CELL_DAMAGED) {
    /* Or it moved on between our looks at the indices and the word: then it is free to us. */
    uint64_t tail = index_position(a_load(&r->index->tail));
    if (position_sub(tail, p) > r->capacity) info->state = SHMQ_CELL_FREE;
  }
  info->attempts = cell_attempts(w);
  info->in_block = cell_in_block(w);
  if (info->state == SHMQ_CELL_RESERVED)
    info->owner = taker_of(r->producer_records, r->mask, &r->index->tail, p, a_load(&q->producer));
  else if (info->state == SHMQ_CELL_LEASED)
    info->owner = cell_kind(w) == CELL_LEASED
                      ? cell_owner(w)
                      : taker_of(r->consumer_records, r->mask, &r->index->head, p,
                                 a_load(&q->consumer));
  if (!cell_holds_message(w) || info->state == SHMQ_CELL_FREE) return;
  const unsigned char *payload = find_payload(s, r, p, w, &info->size);
  if (!payload) {
    /* Damaged, or taken and written again while we looked. */
    info->state = a_load(cell_word(r, p)) == w ? SHMQ_CELL_DAMAGED : SHMQ_CELL_FREE;
    info->size = 0;
    return;
  }
  if (data) memcpy(data, payload, info->size < data_bytes ? info->size : data_bytes);
  if (r->tracked) {
    const struct shmq__stamp *stamp = cell_stamp(r, p);
    info->not_before_ns = stamp->not_before_ns;
    info->expires_ns = stamp->expires_ns;
    info->cause = stamp->cause;
  }
}

int shmq_view_next(shmq_view *view, uint32_t index, uint64_t *cursor, shmq_cell_info *info,
                   void *data, size_t data_bytes) {
  const struct shmq_segment *s = &view->segment;
  if (index >= s->geometry.queues) return -ENOENT;
  const struct shmq__queue_config *config = &s->configs[index];
  if (*cursor == 0) view->walk.band = config->priorities, view->walk.left = 0;
  for (;;) {
    const shmq__ring_view *r = &s->rings[config->first_ring + view->walk.band];
    if (view->walk.left == 0) {
      if (view->walk.band == 0) return 0;
      view->walk.band--;
      r--;
      view->walk.left = r->capacity;
      view->walk.position = position_sub(index_position(a_load(&r->index->tail)), r->capacity);
    }
    uint64_t p = view->walk.position;
    view->walk.position = position_add(p, 1);
    view->walk.left--;
    (*cursor)++;
    look_at(s, r, p, info, data, data_bytes);
    if (info->state != SHMQ_CELL_FREE) return 1;
  }
}

/* ---- queues ---- */

static void count_cell(shmq_queue_info *info, const shmq_cell_info *cell) {
  switch (cell->state) {
    case SHMQ_CELL_READY: info->depth++; break;
    case SHMQ_CELL_RETURNED:
      info->depth++;
      info->returned++;
      if (cell->not_before_ns > 0 && cell->not_before_ns > shmq__now_ns()) info->delayed++;
      break;
    case SHMQ_CELL_LEASED: info->leased++; break;
    case SHMQ_CELL_RESERVED: info->reserved++; break;
    case SHMQ_CELL_DAMAGED: info->damaged++; break;
    default: break;
  }
}

int shmq_view_queue(shmq_view *view, uint32_t index, shmq_queue_info *info) {
  const struct shmq_segment *s = &view->segment;
  if (index >= s->geometry.queues) return -ENOENT;
  const struct shmq__queue_config *c = &s->configs[index];
  const struct shmq__queue *q = &s->queues[index];
  *info = (shmq_queue_info){.capacity = c->capacity,
                            .message_bytes = c->message_bytes,
                            .flags = c->flags & 7u,
                            .priorities = c->priorities,
                            .max_attempts = c->max_attempts,
                            .dead_letter = c->dead_letter,
                            .full_policy = c->full_policy,
                            .ttl_ns = c->ttl_ns,
                            .shut_down = a_load(&q->shut),
                            .producer = a_load(&q->producer),
                            .consumer = a_load(&q->consumer),
                            .redeliveries = a_load(&q->redeliveries),
                            .aborted = a_load(&q->aborted),
                            .dropped = a_load(&q->dropped),
                            .expired = a_load(&q->expired),
                            .dead_lettered = a_load(&q->dead_lettered),
                            .sleeping_takers = a_load(&q->not_empty.word) & EVENT_SLEEPERS,
                            .sleeping_putters = a_load(&q->not_full.word) & EVENT_SLEEPERS};
  memcpy(info->name, c->name, sizeof info->name);
  uint64_t taken = 0;
  for (uint32_t band = 0; band < c->priorities; band++)
    taken += index_position(a_load(&s->rings[c->first_ring + band].index->tail));
  shmq_cell_info cell;
  for (uint64_t cursor = 0; shmq_view_next(view, index, &cursor, &cell, NULL, 0) > 0;)
    count_cell(info, &cell);
  info->puts = taken - info->aborted - info->reserved;
  uint64_t other = c->full_policy == SHMQ_FULL_DROP_OLDEST ? info->dropped : 0;
  info->gets = info->puts - info->depth - info->leased - info->expired - info->dead_lettered - other;
  return 0;
}

/* ---- audit ---- */

enum life { LIFE_UNKNOWN, LIFE_NONE, LIFE_DEAD, LIFE_ALIVE };

static enum life life_of(shmq_view *view, unsigned char *lives, uint32_t i) {
  const struct shmq_segment *s = &view->segment;
  if (i == 0 || i > s->geometry.participants) return LIFE_NONE;
  if (lives[i] == LIFE_UNKNOWN) {
    bool clean = a_load(&slot_of(s, i)->state) == SLOT_CLEAN;
    bool held = shmq__lock_is_held(view->fd, i) == 1;
    lives[i] = clean && !held ? LIFE_NONE : held ? LIFE_ALIVE : LIFE_DEAD;
  }
  return (enum life)lives[i];
}

static void audit_cells(shmq_view *view, unsigned char *lives, uint32_t queue, shmq_audit *audit) {
  shmq_cell_info cell;
  for (uint64_t cursor = 0; shmq_view_next(view, queue, &cursor, &cell, NULL, 0) > 0;) {
    if (cell.state == SHMQ_CELL_DAMAGED) audit->damaged++;
    if (cell.state != SHMQ_CELL_RESERVED && cell.state != SHMQ_CELL_LEASED) continue;
    enum life life = life_of(view, lives, cell.owner);
    audit->held_by_dead += life == LIFE_DEAD;
    audit->unexplained += life == LIFE_NONE;
  }
}

static void audit_blocks(shmq_view *view, unsigned char *lives, shmq_audit *audit) {
  const struct shmq_segment *s = &view->segment;
  for (uint32_t i = 0; i < s->geometry.blocks; i++) {
    uint64_t b = a_load(block_word(s, i));
    if (b == 0 || shmq__block_is_referred(s, i, b)) continue;
    enum life life = life_of(view, lives, block_owner(b));
    audit->held_by_dead += life == LIFE_DEAD;
    audit->leaked_blocks += life == LIFE_NONE;
  }
}

int shmq_view_audit(shmq_view *view, shmq_audit *audit) {
  unsigned char lives[SHMQ_PARTICIPANTS_MAX + 1] = {0};
  memset(audit, 0, sizeof *audit);
  for (uint32_t i = 1; i <= view->segment.geometry.participants; i++) {
    shmq_participant_info info;
    if (shmq_view_participant(view, i, &info) < 0) continue;
    audit->dead_participants += life_of(view, lives, i) == LIFE_DEAD;
    audit->stopped_participants += info.stopped;
  }
  for (uint32_t q = 0; q < view->segment.geometry.queues; q++) audit_cells(view, lives, q, audit);
  audit_blocks(view, lives, audit);
  return 0;
}
