/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating and removing segments. Creation happens under the creator's lock, and the magic word is stored last:
 * a segment with no magic and no lock is a dead creator's, which the next creator takes over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "base/align.h"
#include "core/crashpoint.h"
#include "os/lock.h"
#include "os/object.h"
#include "os/process.h"

#define DEFAULT_CAPACITY 1024u
#define DEFAULT_MESSAGE_BYTES 1024u
#define DEFAULT_PARTICIPANTS 64u
#define DEFAULT_BLOCK_BYTES 65536u

/* What is about to be created, checked. */
struct plan {
  uint32_t mode;
  shmq__geometry geometry;
  struct shmq__queue_config *configs;
};

/* ---- from options to a plan ---- */

static bool name_is_valid(const char *name) {
  size_t n = strlen(name);
  return n > 0 && n <= SHMQ_QUEUE_NAME_MAX && !strchr(name, '/');
}

static int plan_queue(struct shmq__queue_config *c, const shmq_queue_options *o) {
  static const shmq_queue_options defaults = {0};
  if (!o) o = &defaults;
  const char *name = o->name ? o->name : "main";
  uint32_t capacity = o->capacity ? o->capacity : DEFAULT_CAPACITY;
  if (!name_is_valid(name) || capacity > SHMQ_CAPACITY_MAX || o->message_bytes > SHMQ_MESSAGE_MAX ||
      o->priorities > SHMQ_PRIORITIES_MAX || o->max_attempts > SHMQ_ATTEMPTS_MAX || o->ttl_ns < 0 ||
      o->full_policy > SHMQ_FULL_DROP_NEWEST || o->flags & ~7u ||
      (o->max_attempts > 0 && !o->dead_letter) ||
      (o->full_policy == SHMQ_FULL_DROP_OLDEST && o->flags & SHMQ_SINGLE_CONSUMER))
    return -EINVAL;
  memcpy(c->name, name, strlen(name));
  c->capacity = power_of_two(capacity < 2 ? 2 : capacity);
  c->message_bytes = o->message_bytes ? o->message_bytes : DEFAULT_MESSAGE_BYTES;
  c->flags = o->flags | (o->ttl_ns > 0 ? SHMQ_TIMED : 0);
  c->priorities = o->priorities ? o->priorities : 1;
  c->max_attempts = o->max_attempts;
  c->full_policy = o->full_policy;
  c->ttl_ns = o->ttl_ns;
  c->dead_letter = -1;
  if (c->flags & SHMQ_TIMED || o->max_attempts > 0 || o->dead_letter) c->flags |= SHMQ__TRACKED;
  return 0;
}

static int find_config(const struct plan *plan, const char *name) {
  for (uint32_t i = 0; i < plan->geometry.queues; i++)
    if (strcmp(plan->configs[i].name, name) == 0) return (int)i;
  return -EINVAL;
}

/* Resolve dead letter queues, which must take whatever their sources hold, and number the rings. */
static int plan_links(struct plan *plan, const shmq_options *o) {
  for (uint32_t i = 0; i < plan->geometry.queues; i++) {
    struct shmq__queue_config *c = &plan->configs[i];
    if (find_config(plan, c->name) != (int)i) return -EINVAL; /* two of one name */
    c->first_ring = plan->geometry.rings;
    plan->geometry.rings += c->priorities;
    if (!o->queues || !o->queues[i].dead_letter) continue;
    c->dead_letter = find_config(plan, o->queues[i].dead_letter);
    if (c->dead_letter < 0 || !shmq__dead_letter_fits(plan->configs, i)) return -EINVAL;
    plan->configs[c->dead_letter].flags |= SHMQ__TRACKED;
  }
  return plan->geometry.rings <= SHMQ_RINGS_MAX ? 0 : -EINVAL;
}

/* The caller frees plan->configs. */
static int plan_make(struct plan *plan, const shmq_options *o) {
  static const shmq_options defaults = {0};
  if (!o) o = &defaults;
  uint32_t queues = o->queues ? o->queue_count : 1;
  *plan = (struct plan){.mode = o->mode ? o->mode : 0600};
  if (queues < 1 || queues > SHMQ_RINGS_MAX || o->participants > SHMQ_PARTICIPANTS_MAX ||
      o->mode & ~07777u || o->blocks > (1u << 30))
    return -EINVAL;
  uint64_t block_bytes = o->blocks == 0 ? 0 : o->block_bytes ? o->block_bytes : DEFAULT_BLOCK_BYTES;
  if (block_bytes > SHMQ_BLOCK_MAX) return -EINVAL;
  plan->geometry = (shmq__geometry){
      .participants = o->participants ? o->participants : DEFAULT_PARTICIPANTS,
      .queues = queues,
      .blocks = o->blocks,
      .block_bytes = align_up(block_bytes, SHMQ__LINE)};
  plan->configs = calloc(queues, sizeof *plan->configs);
  if (!plan->configs) return -ENOMEM;
  int rc = 0;
  for (uint32_t i = 0; rc == 0 && i < queues; i++)
    rc = plan_queue(&plan->configs[i], o->queues ? &o->queues[i] : NULL);
  if (rc == 0) rc = plan_links(plan, o);
  if (rc == 0) rc = shmq__geometry_lay_out(&plan->geometry, plan->configs);
  return rc;
}

/* ---- building ---- */

static int write_immutable(unsigned char *memory, const struct plan *plan) {
  const shmq__geometry *g = &plan->geometry;
  struct shmq__header *h = (struct shmq__header *)(void *)memory;
  struct shmq__queue *queues = (struct shmq__queue *)(void *)(memory + g->queues_at);
  int rc = shmq__random(h->uuid, sizeof h->uuid);
  if (rc < 0) return rc;
  h->layout_version = SHMQ__LAYOUT_VERSION;
  h->fingerprint = shmq__fingerprint();
  h->bytes = g->bytes;
  h->created_ns = shmq__wall_clock_ns();
  h->participants = g->participants;
  h->queues = g->queues;
  h->rings = g->rings;
  h->blocks = g->blocks;
  h->block_bytes = g->block_bytes;
  for (uint32_t i = 0; i < g->queues; i++) queues[i].config = plan->configs[i];
  h->checksum = shmq__checksum(h, plan->configs);
  return 0;
}

/* Make the object of fd a segment. The caller holds its creator's lock, or it has no name yet. */
static int build(int fd, const struct plan *plan) {
  uint64_t available = 0, bytes = plan->geometry.bytes;
  int rc = shmq__object_allocate(fd, bytes, &available);
  if (rc == -ENOSPC) shmq__nospace_set(SHMQ_NOSPACE_MEMORY, bytes, available);
  if (rc < 0) return rc;
  unsigned char *memory = shmq__object_map(fd, bytes, true);
  if (!memory) return -errno;
  rc = write_immutable(memory, plan);
  if (rc == 0) {
    CRASHPOINT("create.magic"); /* no magic, no lock: the next creator takes over */
    atomic_store_explicit(&((struct shmq__header *)(void *)memory)->magic, SHMQ__MAGIC,
                          memory_order_release);
  }
  shmq__object_unmap(memory, bytes);
  return rc;
}

/* Open what stands at path, or make it. Never O_CREAT on something that may exist: in sticky directories the
 * kernel may refuse that for other users' files. */
static int open_or_create(const char *path, uint32_t mode, bool *made) {
  for (;;) {
    int fd = shmq__object_open(path, true);
    if (fd != -ENOENT) return fd;
    fd = shmq__object_create(path, mode);
    *made = fd >= 0;
    if (fd != -EEXIST) return fd;
  }
}

/* 1, 0 or -errno: who cannot look must not take a living segment for a dead creator's. */
static int has_magic(int fd) {
  uint64_t magic = 0;
  ssize_t n = shmq__object_read(fd, &magic, sizeof magic, 0);
  return n < 0 ? (int)n : n == sizeof magic && magic != 0;
}

/* Is path still the object of fd? Not when it was removed while we waited for the lock. */
static bool still_named(const char *path, int fd) {
  struct shmq__object_status ours, named;
  int now = shmq__object_open(path, false);
  bool same = now >= 0 && shmq__object_status(fd, &ours) == 0 &&
              shmq__object_status(now, &named) == 0 && ours.inode == named.inode &&
              ours.device == named.device;
  shmq__object_close(now);
  return same;
}

/* One attempt. -ESTALE: the object vanished meanwhile, try again. */
static int create_once(const char *path, const struct plan *plan) {
  bool made = false;
  int fd = open_or_create(path, plan->mode, &made);
  if (fd < 0) return fd == -EACCES ? -EACCES : fd;
  int rc = shmq__lock_try(fd, SHMQ__LOCK_CREATE);
  if (rc == -EAGAIN) rc = -EEXIST; /* somebody is creating it just now */
  if (rc == 0 && (rc = has_magic(fd)) == 1) rc = -EEXIST;
  if (rc == 0 && !still_named(path, fd)) rc = -ESTALE;
  if (rc == 0) {
    made = true; /* or a dead creator's, which is ours now */
    rc = build(fd, plan);
    if (rc == 0) rc = shmq__object_set_mode(fd, plan->mode);
  }
  if (rc < 0 && made && rc != -EEXIST && rc != -ESTALE) (void)shmq__object_unlink(path);
  shmq__object_close(fd);
  return rc;
}

int shmq_create(const char *name, const shmq_options *options) {
  char path[SHMQ__PATH_MAX];
  struct plan plan;
  shmq__nospace_set(SHMQ_NOSPACE_NONE, 0, 0);
  int rc = shmq__object_path(name, path);
  if (rc < 0) return rc;
  rc = plan_make(&plan, options);
  if (rc == 0) do rc = create_once(path, &plan);
    while (rc == -ESTALE);
  free(plan.configs);
  return rc;
}

int shmq_create_memfd(const shmq_options *options, int *fd) {
  struct plan plan;
  if (!fd) return -EINVAL;
  shmq__nospace_set(SHMQ_NOSPACE_NONE, 0, 0);
  int rc = plan_make(&plan, options), made = -1;
  if (rc == 0) rc = made = shmq__object_memfd("shmq");
  if (rc >= 0) rc = build(made, &plan);
  if (rc == 0) rc = shmq__object_seal(made);
  free(plan.configs);
  if (rc == 0)
    *fd = made;
  else
    shmq__object_close(made);
  return rc;
}

int64_t shmq_segment_bytes(const shmq_options *options) {
  struct plan plan;
  int rc = plan_make(&plan, options);
  free(plan.configs);
  return rc < 0 ? rc : (int64_t)plan.geometry.bytes;
}

int shmq_unlink(const char *name) {
  char path[SHMQ__PATH_MAX];
  int rc = shmq__object_path(name, path);
  return rc < 0 ? rc : shmq__object_unlink(path);
}
