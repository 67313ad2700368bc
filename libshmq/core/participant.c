/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "core/participant.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/crashpoint.h"
#include "core/recover.h"
#include "core/wake.h"
#include "os/futex.h"
#include "os/lock.h"
#include "os/object.h"
#include "os/process.h"

/* ---- the process's attachments and fork ---- */

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shmq_segment *attachments;
static struct shmq__process self; /* of this process; pid 0: not looked up since the fork */

static void before_fork(void) { pthread_mutex_lock(&list_lock); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&list_lock); }

/* A description shared with the parent would keep its locks after its death, so each attachment gets one
 * of its own before anything else runs here. What the parent held stays the parent's. */
static void after_fork_in_child(void) {
  for (struct shmq_segment *s = attachments; s; s = s->next) {
    int inherited = s->lock_fd;
    s->lock_fd = shmq__object_reopen(inherited);
    s->defunct = s->lock_fd < 0;
    shmq__object_close(inherited);
    s->me = 0;
    s->mine = NULL;
    s->join_epoch++;
  }
  self.pid = 0;
  pthread_mutex_unlock(&list_lock);
}

static int fork_handlers;
static void register_fork_handlers(void) {
  fork_handlers = shmq__at_fork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int shmq__attachment_register(struct shmq_segment *s) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, register_fork_handlers);
  if (fork_handlers < 0) return fork_handlers;
  pthread_mutex_lock(&list_lock);
  s->next = attachments;
  s->link = &attachments;
  if (s->next) s->next->link = &s->next;
  attachments = s;
  pthread_mutex_unlock(&list_lock);
  return 0;
}

void shmq__attachment_unregister(struct shmq_segment *s) {
  pthread_mutex_lock(&list_lock);
  *s->link = s->next;
  if (s->next) s->next->link = s->link;
  pthread_mutex_unlock(&list_lock);
}

static struct shmq__process this_process(void) {
  pthread_mutex_lock(&list_lock);
  if (self.pid == 0) shmq__process_self(&self);
  struct shmq__process copy = self;
  pthread_mutex_unlock(&list_lock);
  return copy;
}

/* The caller holds lock i: nobody else does. Look at the slot again: another recoverer may have been faster. */
static void recover_unowned(struct shmq_segment *s, uint32_t i) {
  struct shmq__slot *slot = slot_of(s, i);
  if (a_load(&slot->state) == SLOT_CLEAN) return;
  a_store(&slot->state, (uint32_t)SLOT_RECOVERING);
  shmq__recover(s, i, SHMQ_REASON_DIED);
}

/* ---- joining ---- */

static void copy_text(char *out, size_t room, const char *text) {
  memset(out, 0, room);
  if (text) memcpy(out, text, strnlen(text, room - 1));
}

/* The caller holds lock i and the slot is clean. */
static void occupy(struct shmq_segment *s, uint32_t i, const char *role, const char *label) {
  struct shmq__slot *slot = slot_of(s, i);
  struct shmq__process process = this_process();
  a_store_relaxed(&slot->pid, process.pid);
  a_store_relaxed(&slot->pid_ns, process.pid_ns);
  a_store_relaxed(&slot->start_time, process.start_time);
  a_store_relaxed(&slot->joined_ns, shmq__wall_clock_ns());
  a_store_relaxed(&slot->cpu, -1);
  a_store_relaxed(&slot->exit_status, -1);
  a_store_relaxed(&slot->puts, 0);
  a_store_relaxed(&slot->gets, 0);
  a_store_relaxed(&slot->redelivers, 0u);
  copy_text(slot->role, sizeof slot->role, role);
  copy_text(slot->label, sizeof slot->label, label);
  s->generation = a_load(&slot->generation) + 1;
  a_store(&slot->generation, s->generation);
  CRASHPOINT("join.identity"); /* clean still: we hold nothing, so nothing needs recovery */
  a_store(&slot->state, (uint32_t)SLOT_DIRTY);
  shmq__event_wake_all(&s->header->joined);
}

int shmq__participant_join(struct shmq_segment *s, const char *role, const char *label) {
  if (s->me) return 0;
  if (s->defunct) return -ESTALE;
  for (uint32_t i = 1; i <= s->geometry.participants; i++) {
    int rc = shmq__lock_try(s->lock_fd, i);
    if (rc == -EAGAIN) continue;
    if (rc < 0) return rc;
    recover_unowned(s, i);
    occupy(s, i, role, label);
    s->asymmetric = shmq__barrier_register();
    s->me = i;
    s->mine = slot_of(s, i);
    s->join_epoch++;
    s->block_cursor = s->geometry.blocks / s->geometry.participants * (i - 1);
    return 0;
  }
  return -ENOSPC;
}

void shmq__participant_leave(struct shmq_segment *s) {
  if (!s->me) return;
  uint32_t i = s->me;
  s->me = 0;
  s->mine = NULL;
  s->join_epoch++;
  shmq__recover(s, i, SHMQ_REASON_NACKED);
  shmq__lock_release(s->lock_fd, i);
}

/* ---- roles ---- */

int shmq__role_get(struct shmq_segment *s, _Atomic uint32_t *role) {
  int error = -EBADMSG; /* names a participant that does not exist, whatever we do */
  for (int tries = 0; tries < 1000; tries++) {
    uint32_t holder = a_load(role);
    if (holder == s->me) return 0;
    if (holder == 0) {
      if (a_cas(role, &holder, s->me)) return 0;
      continue;
    }
    int rc = shmq__recover_if_dead(s, holder);
    if (rc < 0) return rc == -EINVAL ? -EBADMSG : rc;
    if (rc > 0) continue;
    if (a_load(&slot_of(s, holder)->state) != SLOT_RECOVERING) return -EBUSY;
    error = -EBUSY; /* dead, and somebody else is at it: the role comes free in a moment */
    shmq__sleep_ns(100000);
  }
  return error;
}

bool shmq__guarded(const struct shmq_segment *s) {
  uint32_t guard = a_load(&s->header->guard);
  if (guard == 0 || guard == s->me || guard > s->geometry.participants) return false;
  return shmq__lock_is_held(s->lock_fd, guard) == 1;
}

/* ---- looking ---- */

int shmq__recover_if_dead(struct shmq_segment *s, uint32_t i) {
  if (i == 0 || i > s->geometry.participants) return -EINVAL;
  if (i == s->me) return 0;
  if (s->defunct) return -ESTALE;
  if (a_load(&slot_of(s, i)->state) == SLOT_CLEAN) return 1;
  int rc = shmq__lock_try(s->lock_fd, i);
  if (rc == -EAGAIN) return 0;
  if (rc < 0) return rc;
  recover_unowned(s, i);
  shmq__lock_release(s->lock_fd, i);
  return 1;
}

int shmq__recover_dead(struct shmq_segment *s) {
  int recovered = 0;
  for (uint32_t i = 1; i <= s->geometry.participants; i++) {
    if (a_load(&slot_of(s, i)->state) == SLOT_CLEAN) continue;
    int rc = shmq__recover_if_dead(s, i);
    if (rc < 0) return rc;
    recovered += rc;
  }
  return recovered;
}
