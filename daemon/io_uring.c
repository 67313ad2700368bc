/* SPDX-License-Identifier: Apache-2.0
 *
 * The rung that is meant: one ring, whose only submitter is this thread. Completions are worked on when
 * we enter the kernel and not in the middle of anything (DEFER_TASKRUN), and we enter only if
 * there is something to submit, to reap or to wait for. No LINK, DRAIN or TIMEOUT: order and deadlines
 * are kept in user space.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "io_rung.h"
#include "shmq/shmq.h"

enum { ENTRIES = 256, REAP = 64 };

static int ring_init(struct io_uring *ring, unsigned flags) {
  struct io_uring_params params = {.flags = flags | IORING_SETUP_CQSIZE, .cq_entries = 8 * ENTRIES};
  return io_uring_queue_init_params(ENTRIES, ring, &params);
}

static int uring_open(void **state, bool plain) {
  struct io_uring *ring = calloc(1, sizeof *ring);
  if (!ring) return -ENOMEM;
  unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL;
  int rc = ring_init(ring, plain ? 0 : flags);
  if (!rc && !(ring->features & IORING_FEAT_EXT_ARG)) { /* no wait with a timeout: before 5.11 */
    io_uring_queue_exit(ring);
    rc = -ENOSYS;
  }
  if (rc) {
    free(ring);
    return rc;
  }
  *state = ring;
  return 0;
}

static void uring_close(void *state) {
  struct io_uring *ring = state;
  io_uring_queue_exit(ring);
  free(ring);
}

static struct io_uring_sqe *get_sqe(struct io_uring *ring) {
  struct io_uring_sqe *sqe;
  while (!(sqe = io_uring_get_sqe(ring))) io_uring_submit(ring);
  return sqe;
}

static void uring_submit(void *state, struct io_op *op) {
  struct io_uring_sqe *sqe = get_sqe(state);
  unsigned bytes = op->bytes > INT32_MAX ? INT32_MAX : (unsigned)op->bytes;
  switch (op->what) {
  case IO_POLL: io_uring_prep_poll_add(sqe, op->fd, op->flags); break;
  case IO_READ: io_uring_prep_read(sqe, op->fd, op->buffer, bytes, op->offset); break;
  case IO_WRITE: io_uring_prep_write(sqe, op->fd, op->buffer, bytes, op->offset); break;
  case IO_SYNC: io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC); break;
  case IO_CANCEL: io_uring_prep_cancel(sqe, op->target, 0); break;
  case IO_CALL: io_uring_prep_nop(sqe); break;
  }
  if (op->what == IO_READ || op->what == IO_WRITE) sqe->rw_flags = (int)op->flags;
  io_uring_sqe_set_data(sqe, op);
}

static int reap(struct io_uring *ring, struct io *io) {
  struct io_uring_cqe *cqes[REAP];
  int total = 0;
  for (unsigned n; (n = io_uring_peek_batch_cqe(ring, cqes, REAP)) > 0; total += (int)n) {
    for (unsigned i = 0; i < n; i++) io_complete(io, io_uring_cqe_get_data(cqes[i]), cqes[i]->res);
    io_uring_cq_advance(ring, n);
  }
  return total;
}

static bool must_enter(const struct io_uring *ring) {
  return io_uring_sq_ready(ring) ||
         (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static int wait_one(struct io_uring *ring, int64_t deadline_ns) {
  struct io_uring_cqe *cqe;
  if (deadline_ns == SHMQ_FOREVER) return io_uring_submit_and_wait(ring, 1);
  int64_t left = deadline_ns - shmq_now_ns();
  if (left < 0) left = 0;
  struct __kernel_timespec ts = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
  return io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
}

static int uring_run(void *state, struct io *io, int64_t deadline_ns) {
  struct io_uring *ring = state;
  int n = reap(ring, io);
  int rc = 0;
  if (n || deadline_ns == SHMQ_NOWAIT) {
    if (must_enter(ring)) rc = io_uring_submit_and_get_events(ring);
  } else {
    rc = wait_one(ring, deadline_ns);
  }
  n += reap(ring, io);
  return n ? n : rc < 0 ? rc : 0;
}

const struct io_rung_ops io_uring_rung = {.name = "uring",
                                          .open = uring_open,
                                          .close = uring_close,
                                          .submit = uring_submit,
                                          .run = uring_run};
