/* SPDX-License-Identifier: Apache-2.0
 *
 * What a rung is to io.c, and the helper threads that rungs share.
 */
#ifndef SHMQD_IO_RUNG_H
#define SHMQD_IO_RUNG_H

#include <stdbool.h>

#include "io.h"

struct io_rung_ops {
  const char *name;
  bool futexes; /* it does IO_FUTEX itself; else io_bells.c does */
  bool reads;   /* an eventfd can be read as an operation, and need not be polled */
  int (*open)(void **state);
  void (*close)(void *state);
  /* The rung's own operations; IO_CALL never comes here. */
  void (*submit)(void *state, struct io_op *op);
  /* Collect completions: set op->result and hand it to io_complete. */
  int (*run)(void *state, struct io *io, int64_t deadline_ns);
};

extern const struct io_rung_ops io_uring_futex_rung, io_uring_eventfd_rung, io_uring_plain_rung,
    io_threads_rung;

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

/* ---- futexes by helper threads ---- */
struct bells;
/* `wake` as above. -ENOSYS: the kernel has no futex_waitv. */
int bells_open(struct bells **out, int wake);
void bells_close(struct bells *bells);
int bells_submit(struct bells *bells, struct io_op *op);
/* Take it back, so that it will not be done; false: it is done already. */
bool bells_cancel(struct bells *bells, const struct io_op *op);
struct io_op *bells_take(struct bells *bells);

#endif
