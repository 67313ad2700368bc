/* SPDX-License-Identifier: Apache-2.0
 *
 * Attaching to a segment: everything is checked against the file's size before one offset is trusted.
 */
#include "attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/participant.h"
#include "os/futex_fd.h"
#include "os/lock.h"
#include "os/object.h"
#include "os/process.h"

#define CREATOR_PATIENCE_NS INT64_C(1000000000)

/* ---- what was missing ---- */

static _Thread_local struct {
  enum shmq_nospace what;
  uint64_t needed, available;
} nospace;

void shmq__nospace_set(enum shmq_nospace what, uint64_t needed, uint64_t available) {
  nospace.what = what;
  nospace.needed = needed;
  nospace.available = available;
}

enum shmq_nospace shmq_nospace_detail(uint64_t *needed, uint64_t *available) {
  if (needed) *needed = nospace.needed;
  if (available) *available = nospace.available;
  return nospace.what;
}

/* ---- the immutable part ---- */

/* One copy of the header, once its magic stands there. */
static int read_header(int fd, struct shmq__header *header, uint64_t *bytes) {
  struct shmq__object_status status;
  int64_t give_up = 0;
  for (;;) {
    int rc = shmq__object_status(fd, &status);
    if (rc < 0) return rc;
    *bytes = status.bytes;
    ssize_t n = shmq__object_read(fd, header, sizeof *header, 0);
    if (n < 0) return (int)n;
    uint64_t magic = n == sizeof *header ? atomic_load_explicit(&header->magic, memory_order_acquire) : 0;
    if (magic == SHMQ__MAGIC) return 0;
    if (magic != 0) return -EBADMSG;
    /* No magic: somebody is creating it, or died doing so, or it never was a segment. */
    rc = shmq__lock_is_held(fd, SHMQ__LOCK_CREATE);
    if (rc < 0) return rc;
    if (rc == 0 && give_up == -1) return status.bytes == 0 ? -ENOENT : -EBADMSG;
    if (rc == 0) {
      give_up = -1; /* it may have completed between our two looks */
      continue;
    }
    int64_t now = shmq__now_ns();
    if (give_up <= 0) give_up = now + CREATOR_PATIENCE_NS;
    if (now >= give_up) return -ETIMEDOUT;
    shmq__sleep_ns(1000000);
  }
}

static int check_configs(const struct shmq__queue_config *configs, const shmq__geometry *g) {
  uint32_t rings = 0;
  for (uint32_t i = 0; i < g->queues; i++) {
    if (configs[i].first_ring != rings || shmq__config_check(&configs[i], g) < 0 ||
        !shmq__dead_letter_fits(configs, i))
      return -EBADMSG;
    rings += configs[i].priorities;
  }
  return rings == g->rings ? 0 : -EBADMSG;
}

static int read_configs(int fd, struct shmq_segment *s) {
  struct shmq__queue *queues = malloc(s->geometry.queues * sizeof *queues);
  s->configs = calloc(s->geometry.queues, sizeof *s->configs);
  s->rings = calloc(s->geometry.rings, sizeof *s->rings);
  int rc = queues && s->configs && s->rings ? 0 : -ENOMEM;
  if (rc == 0) {
    size_t bytes = s->geometry.queues * sizeof *queues;
    ssize_t n = shmq__object_read(fd, queues, bytes, SHMQ__PAGE);
    rc = n == (ssize_t)bytes ? 0 : -EBADMSG;
    for (uint32_t i = 0; rc == 0 && i < s->geometry.queues; i++) s->configs[i] = queues[i].config;
  }
  free(queues);
  return rc == 0 ? check_configs(s->configs, &s->geometry) : rc;
}

static void set_pointers(struct shmq_segment *s) {
  const shmq__geometry *g = &s->geometry;
  s->header = (struct shmq__header *)(void *)s->memory;
  s->queues = (struct shmq__queue *)(void *)(s->memory + g->queues_at);
  s->slots = (struct shmq__slot *)(void *)(s->memory + g->slots_at);
  s->block_words = (_Atomic uint64_t *)(void *)(s->memory + g->block_words_at);
  s->blocks = s->memory + g->blocks_at;
  shmq__ring_views(s->rings, s->memory, g, s->configs);
}

int shmq__segment_map(struct shmq_segment *s, int fd, bool writable) {
  struct shmq__header header;
  uint64_t bytes;
  int rc = read_header(fd, &header, &bytes);
  if (rc == 0) rc = shmq__header_check(&header, bytes, &s->geometry);
  if (rc == 0) rc = read_configs(fd, s);
  if (rc == 0 && (shmq__geometry_lay_out(&s->geometry, s->configs) < 0 ||
                  s->geometry.bytes != bytes || header.checksum != shmq__checksum(&header, s->configs)))
    rc = -EBADMSG;
  if (rc == 0) {
    s->memory = shmq__object_map(fd, bytes, writable);
    if (!s->memory) rc = -errno;
  }
  if (rc < 0) {
    shmq__segment_unmap(s);
    return rc;
  }
  memcpy(s->uuid, header.uuid, sizeof s->uuid);
  set_pointers(s);
  return 0;
}

void shmq__segment_unmap(struct shmq_segment *s) {
  if (s->memory) shmq__object_unmap(s->memory, s->geometry.bytes);
  free(s->configs);
  free(s->rings);
  s->memory = NULL;
  s->configs = NULL;
  s->rings = NULL;
}

/* ---- attach and detach ---- */

/* Takes fd over. */
static int attach_description(shmq_segment **out, int fd) {
  struct shmq_segment *s = calloc(1, sizeof *s);
  int rc = s ? 0 : -ENOMEM;
  if (rc == 0) {
    rc = s->lock_fd = shmq__object_reopen(fd);
    if (rc >= 0) rc = shmq__segment_map(s, fd, true);
    if (rc == 0 && (rc = shmq__attachment_register(s)) < 0) shmq__segment_unmap(s);
    if (rc < 0) {
      shmq__object_close(s->lock_fd);
      free(s);
    }
  }
  shmq__object_close(fd);
  if (rc == 0) *out = s;
  return rc;
}

int shmq_attach(shmq_segment **out, const char *name) {
  char path[SHMQ__PATH_MAX];
  if (!out) return -EINVAL;
  int rc = shmq__object_path(name, path);
  if (rc < 0) return rc;
  int fd = shmq__object_open(path, true);
  return fd < 0 ? fd : attach_description(out, fd);
}

int shmq_attach_fd(shmq_segment **out, int fd) {
  if (!out || fd < 0) return -EINVAL;
  int own = shmq__object_reopen(fd);
  return own < 0 ? own : attach_description(out, own);
}

void shmq_detach(shmq_segment *s) {
  if (!s) return;
  shmq__participant_leave(s);
  shmq__attachment_unregister(s);
  shmq__futex_fd_free(s->guard_fd);
  shmq__object_close(s->lock_fd);
  shmq__segment_unmap(s);
  free(s);
}

/* ---- participants ---- */

int shmq__join(struct shmq_segment *s, const char *role, const char *label) {
  int rc = shmq__participant_join(s, role, label);
  if (rc == -ENOSPC) shmq__nospace_set(SHMQ_NOSPACE_PARTICIPANTS, 1, 0);
  return rc;
}

int shmq_join_segment(shmq_segment *s, const char *role, const char *label) {
  return s ? shmq__join(s, role, label) : -EINVAL;
}

void shmq_set_cpu(shmq_segment *s, int cpu) {
  if (s && s->me) a_store_relaxed(&s->mine->cpu, cpu);
}

int shmq_participant(const shmq_segment *s, uint32_t *generation) {
  if (!s || !s->me) return -ENOTCONN;
  if (generation) *generation = s->generation;
  return (int)s->me;
}

int shmq_participant_alive(shmq_segment *s, int index, uint32_t generation) {
  if (!s || index < 1 || (uint32_t)index > s->geometry.participants) return -EINVAL;
  const struct shmq__slot *slot = slot_of(s, (uint32_t)index);
  if (a_load(&slot->generation) != generation || a_load(&slot->state) == SLOT_CLEAN) return 0;
  if ((uint32_t)index == s->me) return 1;
  int held = shmq__lock_is_held(s->lock_fd, (uint32_t)index);
  if (held <= 0) return held;
  /* A recoverer holds the lock too: it holds it for the dead. */
  return a_load(&slot->state) == SLOT_DIRTY && a_load(&slot->generation) == generation;
}

int shmq_recover(shmq_segment *s) { return s ? shmq__recover_dead(s) : -EINVAL; }

void shmq_segment_uuid(const shmq_segment *s, uint8_t uuid[16]) { memcpy(uuid, s->uuid, 16); }

void *shmq_segment_memory(shmq_segment *s, size_t *bytes) {
  if (bytes) *bytes = s->geometry.bytes;
  return s->memory;
}
