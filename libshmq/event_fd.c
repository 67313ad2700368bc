/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue's descriptor for event loops.
 */
#include <stdlib.h>

#include "os/futex_fd.h"
#include "pollable.h"

struct shmq__pollable {
  struct shmq__futex_fd *futex_fd;
};

static int make(shmq *q, bool with_thread) {
  if (q->pollable && shmq__futex_fd_inherited(q->pollable->futex_fd)) shmq__pollable_free(q);
  if (q->pollable) return 0;
  struct shmq__pollable *p = calloc(1, sizeof *p);
  if (!p) return -ENOMEM;
  int rc = shmq__futex_fd_make(&p->futex_fd, with_thread);
  if (rc < 0)
    free(p);
  else
    q->pollable = p;
  return rc;
}

int shmq_event_fd(shmq *q) {
  if (!q) return -EINVAL;
  /* The variable exists so that the fallback can be tried on kernels that do not need it. */
  int rc = make(q, getenv("SHMQ_EVENT_FD_THREAD") != NULL);
  return rc < 0 ? rc : shmq__futex_fd_descriptor(q->pollable->futex_fd);
}

int shmq_event_arm(shmq *q) {
  bool ordered;
  if (!q || !q->pollable) return -EINVAL;
  if (shmq__readable(q)) return 1;
  uint32_t value = shmq__event_announce(&q->queue->not_empty, &ordered);
  int rc = shmq__futex_fd_arm(q->pollable->futex_fd, &q->queue->not_empty.word, value, ordered);
  if (rc < 0) return rc;
  return shmq__readable(q) ? 1 : 0;
}

/* A wake-up between the look and the sleep changes the word, so the kernel does not sleep. */
int shmq_event_word(shmq *q, uint32_t **word, uint32_t *value) {
  bool ordered;
  if (!q || !word || !value) return -EINVAL;
  if (shmq__readable(q)) return 1;
  *value = shmq__event_announce(&q->queue->not_empty, &ordered);
  *word = (uint32_t *)(void *)&q->queue->not_empty.word;
  if (!ordered) return -EOPNOTSUPP;
  return shmq__readable(q) ? 1 : 0;
}

void shmq__pollable_free(shmq *q) {
  if (!q->pollable) return;
  shmq__futex_fd_free(q->pollable->futex_fd);
  free(q->pollable);
  q->pollable = NULL;
  if (shmq__readable(q)) signal_takers(q, 1); /* we may have been the one who was woken for it */
}
