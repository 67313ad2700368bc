/* SPDX-License-Identifier: Apache-2.0
 *
 * The rungs that are meant: one ring, whose only submitter is this thread. Completions are worked on when
 * we enter the kernel and not in the middle of anything (DEFER_TASKRUN), and we enter only if
 * there is something to submit, to reap or to wait for. No LINK, DRAIN or TIMEOUT: order and deadlines
 * are kept in user space. The ring accepts the opcodes of io.h and no others.
 */
#include <errno.h>
#include <liburing.h>
#include <linux/futex.h>
#include <stdlib.h>

#include "io_rung.h"
#include "shmq/shmq.h"

/* Reads go to the kernel piece by piece: the device begins with the first reads while the next are prepared. A read
 * of 4 KiB takes the kernel 2.5 us to pass on, and a device that has answered all it had is idle meanwhile. The first FEW
 * therefore go one by one. */
enum { ENTRIES = 256, REAP = 64, FEW = 8, PIECE = 4 };

/* Linux 6.7; Debian 12's headers have neither of them. */
enum { OP_FUTEX_WAIT = 51, FUTEX2_U32 = 2 };

struct uring {
  struct io_uring ring;
  unsigned reads; /* under way */
};

static void uring_close(void *state) {
  struct uring *u = state;
  io_uring_queue_exit(&u->ring);
  free(u);
}

static struct io_uring_sqe *get_sqe(struct io_uring *ring) {
  struct io_uring_sqe *sqe;
  while (!(sqe = io_uring_get_sqe(ring))) io_uring_submit(ring);
  return sqe;
}

static void prep_futex(struct io_uring_sqe *sqe, const struct io_op *op) {
  io_uring_prep_rw(OP_FUTEX_WAIT, sqe, FUTEX2_U32, op->buffer, 0, op->offset);
  sqe->addr3 = FUTEX_BITSET_MATCH_ANY;
}

/* An eventfd's count does not. */
static bool is_from_device(const struct io_op *op) {
  return op->what == IO_READ && op->bytes > sizeof(uint64_t);
}

static void submit_some(struct uring *u) {
  unsigned piece = u->reads < FEW ? 1 : PIECE;
  u->reads++;
  if (io_uring_sq_ready(&u->ring) >= piece) io_uring_submit(&u->ring);
}

static void uring_submit(void *state, struct io_op *op) {
  struct uring *u = state;
  struct io_uring_sqe *sqe = get_sqe(&u->ring);
  unsigned bytes = op->bytes > INT32_MAX ? INT32_MAX : (unsigned)op->bytes;
  switch (op->what) {
  case IO_POLL: io_uring_prep_poll_add(sqe, op->fd, op->flags); break;
  case IO_READ: io_uring_prep_read(sqe, op->fd, op->buffer, bytes, op->offset); break;
  case IO_WRITE: io_uring_prep_write(sqe, op->fd, op->buffer, bytes, op->offset); break;
  case IO_SYNC: io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC); break;
  case IO_CANCEL: io_uring_prep_cancel(sqe, op->target, 0); break;
  case IO_FUTEX: prep_futex(sqe, op); break;
  case IO_CALL: io_uring_prep_nop(sqe); break;
  }
  if (op->what == IO_READ || op->what == IO_WRITE) sqe->rw_flags = (int)op->flags;
  io_uring_sqe_set_data(sqe, op);
  if (is_from_device(op)) submit_some(u);
}

/* ---- opening ---- */

/* Nothing else is accepted from now on, and no flags: no LINK, no DRAIN, no registered files. */
static int restrict_ring(struct io_uring *ring, bool futexes) {
  static const uint8_t allowed[] = {IORING_OP_POLL_ADD, IORING_OP_READ,         IORING_OP_WRITE,
                                    IORING_OP_FSYNC,    IORING_OP_ASYNC_CANCEL, OP_FUTEX_WAIT};
  enum { ALLOWED = sizeof allowed };
  struct io_uring_restriction r[ALLOWED + 1] = {
      {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS}};
  unsigned n = futexes ? ALLOWED : ALLOWED - 1;
  for (unsigned i = 0; i < n; i++) {
    r[i + 1].opcode = IORING_RESTRICTION_SQE_OP;
    r[i + 1].sqe_op = allowed[i];
  }
  /* liburing 2.3 has calls for both, but its library does not export them. */
  unsigned fd = (unsigned)ring->ring_fd;
  int rc = io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, r, n + 1);
  return rc < 0 ? rc : io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static int uring_open(void **state, unsigned flags, bool futexes) {
  struct uring *u = calloc(1, sizeof *u);
  if (!u) return -ENOMEM;
  struct io_uring *ring = &u->ring;
  struct io_uring_params params = {.flags = flags | IORING_SETUP_CQSIZE, .cq_entries = 8 * ENTRIES};
  int rc = io_uring_queue_init_params(ENTRIES, ring, &params);
  if (rc) {
    free(u);
    return rc;
  }
  if (!(ring->features & IORING_FEAT_EXT_ARG))
    rc = -ENOSYS; /* no wait with a timeout: before 5.11 */
  if (!rc && flags & IORING_SETUP_R_DISABLED) rc = restrict_ring(ring, futexes);
  *state = u;
  if (rc) uring_close(u);
  return rc;
}

enum {
  SPECIAL_FLAGS = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                  IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED
};

static int plain_open(void **state) { return uring_open(state, 0, false); }
static int eventfd_open(void **state) { return uring_open(state, SPECIAL_FLAGS, false); }

/* Does it know FUTEX_WAIT? A word that differs ends the wait at once. */
static int futex_open(void **state) {
  uint32_t word = 1;
  struct io_op probe = {.what = IO_FUTEX, .buffer = &word, .offset = 0};
  struct io_uring_cqe *cqe;
  int rc = uring_open(state, SPECIAL_FLAGS, true);
  if (rc) return rc;
  uring_submit(*state, &probe);
  struct io_uring *ring = &((struct uring *)*state)->ring;
  rc = io_uring_submit_and_wait(ring, 1);
  if (rc >= 0) rc = io_uring_wait_cqe(ring, &cqe);
  if (!rc) {
    rc = cqe->res == -EAGAIN ? 0 : -ENOSYS;
    io_uring_cqe_seen(ring, cqe);
  }
  if (rc) uring_close(*state);
  return rc;
}

/* ---- completions ---- */

/* A word that had changed already needs no waiting: that is no error. */
static void complete(struct uring *u, struct io *io, struct io_op *op, int result) {
  if (is_from_device(op)) u->reads--;
  io_complete(io, op, op->what == IO_FUTEX && result == -EAGAIN ? 0 : result);
}

static int reap(struct uring *u, struct io *io) {
  struct io_uring_cqe *cqes[REAP];
  int total = 0;
  for (unsigned n; (n = io_uring_peek_batch_cqe(&u->ring, cqes, REAP)) > 0; total += (int)n) {
    for (unsigned i = 0; i < n; i++) complete(u, io, io_uring_cqe_get_data(cqes[i]), cqes[i]->res);
    io_uring_cq_advance(&u->ring, n);
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
  struct uring *u = state;
  struct io_uring *ring = &u->ring;
  int n = reap(u, io);
  int rc = 0;
  if (n || deadline_ns == SHMQ_NOWAIT) {
    if (must_enter(ring)) rc = io_uring_submit_and_get_events(ring);
  } else {
    rc = wait_one(ring, deadline_ns);
  }
  n += reap(u, io);
  return n ? n : rc < 0 ? rc : 0;
}

#define URING_RUNG(NAME, OPEN, FUTEXES)                                                  \
  {                                                                                      \
    .name = NAME, .futexes = FUTEXES, .reads = true, .open = OPEN, .close = uring_close, \
    .submit = uring_submit, .run = uring_run                                             \
  }
const struct io_rung_ops io_uring_futex_rung = URING_RUNG("uring-futex", futex_open, true);
const struct io_rung_ops io_uring_eventfd_rung = URING_RUNG("uring-eventfd", eventfd_open, false);
const struct io_rung_ops io_uring_plain_rung = URING_RUNG("uring-plain", plain_open, false);
