/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments of a test's own, seen from inside (needs shmq-internal). They are memfds, so a test that fails
 * leaves nothing behind. Several attachments in one process are several participants, and `die`
 * lets one go the way the kernel does when its process is killed.
 */
#ifndef TEST_FRESH_H
#define TEST_FRESH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "core/block.h"
#include "core/participant.h"
#include "core/recover.h"
#include "core/ring.h"
#include "core/txn.h"
#include "queue.h"
#include "shmq/inspect.h"

#define MILLISECOND INT64_C(1000000)
/* Long enough for a loaded machine; only a call that hangs ever waits as long. */
#define PATIENCE shmq_after_ns(30000 * MILLISECOND)

#define MUST(call)                                                                              \
  do {                                                                                          \
    long must_rc = (long)(call);                                                                \
    if (must_rc < 0) {                                                                          \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, shmq_strerror((int)must_rc)); \
      abort();                                                                                  \
    }                                                                                           \
  } while (0)

static inline int fresh_fd(const shmq_options *options) {
  int fd = -1;
  MUST(shmq_create_memfd(options, &fd));
  return fd;
}

static inline shmq_segment *attached(int fd) {
  shmq_segment *s = NULL;
  MUST(shmq_attach_fd(&s, fd));
  return s;
}

static inline shmq *opened(shmq_segment *s, const char *name) {
  shmq *q = NULL;
  MUST(shmq_open_in(&q, s, name, 0));
  return q;
}

/* Attach anew and open a queue; the attachment goes with close. */
static inline shmq *peer(int fd, const char *name) {
  shmq *q = opened(attached(fd), name);
  q->segment->owned_by_queue = true;
  return q;
}

/* A segment with one queue. *fd is for further peers and is the caller's to close. */
static inline shmq *fresh_queue(const shmq_queue_options *queue, int *fd) {
  shmq_options options = {.queues = queue, .queue_count = 1, .participants = 8};
  *fd = fresh_fd(&options);
  return peer(*fd, NULL);
}

/* Lose the lock and the mapping with everything held left lying: what death does. */
static inline void die(shmq *q) {
  shmq_segment *s = q->segment;
  shmq__attachment_unregister(s);
  close(s->lock_fd);
  shmq__segment_unmap(s);
  free(s);
  free(q);
}

/* Set a ring that was never used to begin at a position, as if it had always worked. */
static inline void wind_to(const shmq__ring_view *r, uint64_t position) {
  for (uint64_t i = 0; i < r->capacity; i++) {
    uint64_t p = position_add(position, i);
    atomic_store(cell_word(r, p), cell_free(turn_of(r, p)));
  }
  atomic_store(&r->index->tail, index_make(position, 1, 0));
  atomic_store(&r->index->head, index_make(position, 1, 0));
}

/* Positions worth beginning at: zero, the turn's wrap, the wrap of a block's 42 bits, the wrap of all. */
static inline uint64_t wrap_position(const shmq__ring_view *r, unsigned which) {
  const uint64_t wraps[] = {0, UINT64_C(1) << (22 + r->shift), UINT64_C(1) << 42, UINT64_C(1) << 48};
  return position_sub(wraps[which % 4], which % 4 ? 3 : 0);
}
enum { WRAPS = 4 };

static inline int put_number(shmq *q, uint64_t n) { return shmq_put(q, &n, sizeof n, SHMQ_NOWAIT); }

/* The number got, or a negative errno. */
static inline int64_t get_number(shmq *q) {
  uint64_t n = 0;
  ssize_t rc = shmq_get(q, &n, sizeof n, SHMQ_NOWAIT);
  return rc < 0 ? rc : rc == sizeof n ? (int64_t)n : -EPROTO;
}

static inline uint64_t number_in(const shmq_message *m) {
  uint64_t n = 0;
  if (m->size == sizeof n) memcpy(&n, m->data, sizeof n);
  return n;
}

static inline shmq_queue_info queue_info(int fd, uint32_t index) {
  shmq_view *view;
  shmq_queue_info info;
  MUST(shmq_view_open_fd(&view, fd));
  MUST(shmq_view_queue(view, index, &info));
  shmq_view_close(view);
  return info;
}

static inline shmq_audit audit(int fd) {
  shmq_view *view;
  shmq_audit result;
  MUST(shmq_view_open_fd(&view, fd));
  MUST(shmq_view_audit(view, &result));
  shmq_view_close(view);
  return result;
}

static inline uint32_t blocks_free(int fd) {
  shmq_view *view;
  shmq_segment_info info;
  MUST(shmq_view_open_fd(&view, fd));
  MUST(shmq_view_segment(view, &info));
  shmq_view_close(view);
  return info.blocks_free;
}

#endif
