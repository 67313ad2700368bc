/* SPDX-License-Identifier: Apache-2.0
 *
 * Several attachments over ONE mapping. Each thread has an attachment of its own, as the library asks, but all of
 * them reach the segment at the same addresses: the thread sanitizer tells conflicting accesses by
 * their address, and two mappings of the same memory would hide every race between them.
 */
#ifndef RACE_SHARE_H
#define RACE_SHARE_H

#include <sys/mman.h>

#include "os/lock.h"
#include "support/fresh.h"

/* What the kernel orders by its locks the sanitizer does not see: who gets a dead participant's lock comes after
 * everything that it did. Built with -Wl,--wrap, these say so. */
static _Atomic uint32_t lock_order;
#ifdef __SANITIZE_THREAD__
int __real_shmq__lock_try(int fd, uint32_t byte);
int __wrap_shmq__lock_try(int fd, uint32_t byte);
int __wrap_shmq__lock_try(int fd, uint32_t byte) {
  int rc = __real_shmq__lock_try(fd, byte);
  if (rc == 0) (void)atomic_load(&lock_order);
  return rc;
}
void __real_shmq__lock_release(int fd, uint32_t byte);
void __wrap_shmq__lock_release(int fd, uint32_t byte);
void __wrap_shmq__lock_release(int fd, uint32_t byte) {
  (void)atomic_fetch_add(&lock_order, 1);
  __real_shmq__lock_release(fd, byte);
}
#endif

/* Let s use base's mapping, which must outlive it. */
static inline void share_mapping(shmq_segment *s, const shmq_segment *base) {
  munmap(s->memory, s->geometry.bytes);
  s->memory = NULL; /* not s's to unmap */
  s->header = base->header;
  s->queues = base->queues;
  s->slots = base->slots;
  s->block_words = base->block_words;
  s->blocks = base->blocks;
  shmq__ring_views(s->rings, base->memory, &s->geometry, s->configs);
}

static inline shmq_segment *attached_beside(int fd, const shmq_segment *base) {
  shmq_segment *s = attached(fd);
  share_mapping(s, base);
  return s;
}

/* As die() for all handles of the attachment. */
static inline void die_beside(shmq_segment *s) {
  while (s->first) {
    shmq *q = s->first;
    s->first = q->next;
    free(q);
  }
  shmq__attachment_unregister(s);
  (void)atomic_fetch_add(&lock_order, 1);
  close(s->lock_fd);
  shmq__segment_unmap(s);
  free(s);
}

#endif
