/* SPDX-License-Identifier: Apache-2.0
 *
 * What a rung is to io.c, and the helper threads that all rungs share.
 */
#ifndef SHMQD_IO_RUNG_H
#define SHMQD_IO_RUNG_H

#include <stdbool.h>

#include "io.h"

struct io_rung_ops {
  const char *name;
  int (*open)(void **state, bool plain);
  void (*close)(void *state);
  /* The rung's own operations; IO_CALL never comes here. */
  void (*submit)(void *state, struct io_op *op);
  /* Collect completions: set op->result and hand it to io_complete. */
  int (*run)(void *state, struct io *io, int64_t deadline_ns);
};

extern const struct io_rung_ops io_uring_rung, io_threads_rung;

/* Queue an operation's completion; io_run calls done afterwards. */
void io_complete(struct io *io, struct io_op *op, int result);

/* ---- helper threads ---- */
struct pool;
/* `wake` is an eventfd that becomes readable when something is done. */
int pool_open(struct pool **out, unsigned threads, int wake);
void pool_close(struct pool *pool);
/* Run op->call, or the blocking form of a read, write or sync. */
void pool_submit(struct pool *pool, struct io_op *op);
/* Take the list of what is done, in order. */
struct io_op *pool_take(struct pool *pool);

#endif
