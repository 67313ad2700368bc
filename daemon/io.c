/* SPDX-License-Identifier: Apache-2.0
 *
 * What is common to the rungs: choosing one by trying, the helper threads, the list of completions.
 */
#include "io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io_rung.h"
#include "shmq/shmq.h"

enum { HELPERS = 4 };

struct io {
  const struct io_rung_ops *rung;
  void *state;
  unsigned in_flight;
  struct io_op *done, **done_end;
  struct pool *pool; /* started by the first IO_CALL */
  int wake;
  struct io_op wake_poll;
};

static int try_rung(struct io *io, const struct io_rung_ops *rung, bool plain) {
  io->rung = rung;
  return rung->open(&io->state, plain);
}

static int choose(struct io *io, enum io_rung wanted) {
  int rc = -ENOSYS;
  if (wanted == IO_AUTO || wanted == IO_URING) rc = try_rung(io, &io_uring_rung, false);
  if (rc && wanted != IO_THREADS && wanted != IO_URING) rc = try_rung(io, &io_uring_rung, true);
  if (rc && (wanted == IO_AUTO || wanted == IO_THREADS)) rc = try_rung(io, &io_threads_rung, true);
  return rc;
}

int io_open(struct io **out, enum io_rung wanted) {
  struct io *io = calloc(1, sizeof *io);
  if (!io) return -ENOMEM;
  io->done_end = &io->done;
  io->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int rc = io->wake < 0 ? -errno : choose(io, wanted);
  if (rc) {
    if (io->wake >= 0) close(io->wake);
    free(io);
    return rc;
  }
  *out = io;
  return 0;
}

void io_close(struct io *io) {
  if (!io) return;
  pool_close(io->pool);
  io->rung->close(io->state);
  close(io->wake);
  free(io);
}

const char *io_name(const struct io *io) { return io->rung->name; }
unsigned io_in_flight(const struct io *io) { return io->in_flight - (io->pool ? 1 : 0); }

void io_complete(struct io *io, struct io_op *op, int result) {
  op->result = result;
  op->next = NULL;
  *io->done_end = op;
  io->done_end = &op->next;
}

/* ---- the helpers ---- */

static void pool_news(struct io_op *op, int result) {
  struct io *io = op->buffer;
  uint64_t count;
  (void)result;
  if (read(io->wake, &count, sizeof count) < 0) count = 0;
  for (struct io_op *o = pool_take(io->pool), *next; o; o = next) {
    next = o->next;
    io_complete(io, o, o->result);
  }
  io_submit(io, op);
}

static int start_pool(struct io *io) {
  int rc = pool_open(&io->pool, HELPERS, io->wake);
  if (rc) return rc;
  io->wake_poll = (struct io_op){
      .what = IO_POLL, .fd = io->wake, .flags = POLLIN, .buffer = io, .done = pool_news};
  io_submit(io, &io->wake_poll);
  return 0;
}

/* ---- operations ---- */

void io_submit(struct io *io, struct io_op *op) {
  io->in_flight++;
  if (op->what != IO_CALL) {
    io->rung->submit(io->state, op);
    return;
  }
  int rc = io->pool ? 0 : start_pool(io);
  if (rc)
    io_complete(io, op, rc);
  else
    pool_submit(io->pool, op);
}

static int call_done(struct io *io) {
  int n = 0;
  for (struct io_op *op; (op = io->done); n++) {
    io->done = op->next;
    if (!io->done) io->done_end = &io->done;
    io->in_flight--;
    if (op->done) op->done(op, op->result);
  }
  return n;
}

int io_run(struct io *io, int64_t deadline_ns) {
  int rc = io->rung->run(io->state, io, io->done ? SHMQ_NOWAIT : deadline_ns);
  int n = call_done(io);
  return n ? n : rc == -EINTR || rc == -ETIME ? 0 : rc < 0 ? rc : 0;
}
