/* SPDX-License-Identifier: Apache-2.0
 *
 * A few threads for what blocks. They touch nothing but the operation they were given.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io_rung.h"

struct list {
  struct io_op *first, **end;
};

struct pool {
  pthread_mutex_t lock; /* guards everything below but wake */
  pthread_cond_t work;
  struct list waiting, done;
  bool closing;
  unsigned count;
  int wake;
  pthread_t threads[];
};

static void list_put(struct list *list, struct io_op *op) {
  op->next = NULL;
  *list->end = op;
  list->end = &op->next;
}

static struct io_op *list_take(struct list *list) {
  struct io_op *op = list->first;
  list->first = op->next;
  if (!list->first) list->end = &list->first;
  return op;
}

static int run_blocking(struct io_op *op) {
  struct iovec part = {.iov_base = op->buffer, .iov_len = op->bytes};
  ssize_t n;
  switch (op->what) {
  case IO_CALL: return op->call(op);
  case IO_READ: n = preadv2(op->fd, &part, 1, (off_t)op->offset, (int)op->flags); break;
  case IO_WRITE: n = pwritev2(op->fd, &part, 1, (off_t)op->offset, (int)op->flags); break;
  case IO_SYNC: n = fdatasync(op->fd); break;
  default: return -EINVAL;
  }
  return n < 0 ? -errno : (int)n;
}

static void *helper(void *argument) {
  struct pool *pool = argument;
  static const uint64_t one = 1;
  pthread_mutex_lock(&pool->lock);
  for (;;) {
    while (!pool->waiting.first && !pool->closing) pthread_cond_wait(&pool->work, &pool->lock);
    if (!pool->waiting.first) break;
    struct io_op *op = list_take(&pool->waiting);
    pthread_mutex_unlock(&pool->lock);
    int result = run_blocking(op);
    pthread_mutex_lock(&pool->lock);
    op->result = result;
    bool first = !pool->done.first;
    list_put(&pool->done, op);
    if (first && write(pool->wake, &one, sizeof one) < 0) continue; /* full: it is readable */
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

/* Signals are for the thread that runs the loop. */
static int start(struct pool *pool) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&pool->threads[pool->count], NULL, helper, pool);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!rc) pool->count++;
  return -rc;
}

int pool_open(struct pool **out, unsigned threads, int wake) {
  struct pool *pool = calloc(1, sizeof *pool + threads * sizeof(pthread_t));
  if (!pool) return -ENOMEM;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
  pool->waiting.end = &pool->waiting.first;
  pool->done.end = &pool->done.first;
  pool->wake = wake;
  *out = pool;
  for (unsigned i = 0; i < threads; i++) {
    int rc = start(pool);
    if (rc && i == 0) {
      pool_close(pool);
      return rc;
    }
  }
  return 0;
}

void pool_close(struct pool *pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  pool->closing = true;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (unsigned i = 0; i < pool->count; i++) pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}

void pool_submit(struct pool *pool, struct io_op *op) {
  pthread_mutex_lock(&pool->lock);
  list_put(&pool->waiting, op);
  pthread_cond_signal(&pool->work);
  pthread_mutex_unlock(&pool->lock);
}

struct io_op *pool_take(struct pool *pool) {
  pthread_mutex_lock(&pool->lock);
  struct io_op *list = pool->done.first;
  pool->done.first = NULL;
  pool->done.end = &pool->done.first;
  pthread_mutex_unlock(&pool->lock);
  return list;
}
