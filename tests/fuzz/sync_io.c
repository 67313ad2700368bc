/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's seam to the kernel without concurrency, so that an input does the same each time: what is
 * submitted is done at once, and its completion is called from io_run.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io.h"

struct io {
  struct io_op *done, **done_end;
  struct io_op *polls;
  unsigned in_flight;
};

int io_open(struct io **out, enum io_rung rung) {
  (void)rung;
  struct io *io = calloc(1, sizeof *io);
  if (!io) return -ENOMEM;
  io->done_end = &io->done;
  *out = io;
  return 0;
}

void io_close(struct io *io) { free(io); }
const char *io_name(const struct io *io) { return io ? "sync" : ""; }
void io_watch_wakes(struct io *io) { (void)io; }
void io_wake(const struct io *io) { (void)io; }
unsigned io_in_flight(const struct io *io) { return io->in_flight; }

static void complete(struct io *io, struct io_op *op, int result) {
  op->result = result;
  op->next = NULL;
  *io->done_end = op;
  io->done_end = &op->next;
}

static int cancel(struct io *io, struct io_op *target) {
  for (struct io_op **at = &io->polls; *at; at = &(*at)->next) {
    if (*at != target) continue;
    *at = target->next;
    complete(io, target, -ECANCELED);
    return 0;
  }
  return -ENOENT;
}

static int run_now(struct io *io, struct io_op *op) {
  struct iovec part = {.iov_base = op->buffer, .iov_len = op->bytes};
  ssize_t n;
  switch (op->what) {
    case IO_CALL: return op->call(op);
    case IO_READ: n = preadv2(op->fd, &part, 1, (off_t)op->offset, (int)op->flags); break;
    case IO_WRITE: n = pwritev2(op->fd, &part, 1, (off_t)op->offset, (int)op->flags); break;
    case IO_SYNC: n = fdatasync(op->fd); break;
    default: return cancel(io, op->target);
  }
  return n < 0 ? -errno : (int)n;
}

void io_submit(struct io *io, struct io_op *op) {
  io->in_flight++;
  if (op->what != IO_POLL && op->what != IO_FUTEX) {
    complete(io, op, run_now(io, op));
    return;
  }
  op->next = io->polls;
  io->polls = op;
}

static int happened(const struct io_op *op) {
  struct pollfd p = {.fd = op->fd, .events = (short)op->flags};
  if (op->what == IO_FUTEX) return *(const volatile uint32_t *)op->buffer != (uint32_t)op->offset;
  return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

static void look_at_polls(struct io *io) {
  for (struct io_op **at = &io->polls, *op; (op = *at);) {
    int what = happened(op);
    if (!what) {
      at = &op->next;
      continue;
    }
    *at = op->next;
    complete(io, op, op->what == IO_FUTEX ? 0 : what);
  }
}

int io_run(struct io *io, int64_t deadline_ns) {
  int n = 0;
  (void)deadline_ns;
  look_at_polls(io);
  for (struct io_op *op; (op = io->done); n++) {
    io->done = op->next;
    if (!io->done) io->done_end = &io->done;
    io->in_flight--;
    if (op->done) op->done(op, op->result);
  }
  return n;
}
