/* SPDX-License-Identifier: Apache-2.0
 *
 * What is common to the rungs: choosing one by trying, the helper threads, the list of completions.
 */
#include "io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "io_rung.h"
#include "say.h"
#include "shmq/shmq.h"

enum {
  HELPERS = 4,
  DONE_LEAST = 4 /* at once, or a quarter: who is answered may ask again, and the device has the next, while the rest is worked on */
};

struct io {
  const struct io_rung_ops *rung;
  void *state;
  unsigned in_flight;
  struct io_op *done, **done_end;
  unsigned done_count;
  struct pool *pool;   /* started by the first IO_CALL */
  struct bells *bells; /* of the rungs that cannot wait on futexes */
  int wake;            /* readable: helpers have done something, or io_wake was called */
  uint64_t wakes;
  struct io_op wake_op;
  bool watched;
};

static const struct io_rung_ops *const rungs[] = {[IO_URING_FUTEX] = &io_uring_futex_rung,
                                                  [IO_URING_EVENTFD] = &io_uring_eventfd_rung,
                                                  [IO_URING_PLAIN] = &io_uring_plain_rung,
                                                  [IO_THREADS] = &io_threads_rung};

static int try_rung(struct io *io, enum io_rung rung) {
  io->rung = rungs[rung];
  int rc = io->rung->futexes ? 0 : bells_open(&io->bells, io->wake);
  if (!rc) rc = io->rung->open(&io->state);
  if (rc) {
    bells_close(io->bells);
    io->bells = NULL;
  }
  return rc;
}

/* CVE-2025-39698: a waiter's memory could be used after it was freed, 6.7 to 6.12.43 and 6.13 to 6.16.3. */
static bool futexes_are_safe(void) {
  struct utsname name;
  unsigned a = 0, b = 0, c = 0;
  if (uname(&name) || sscanf(name.release, "%u.%u.%u", &a, &b, &c) < 2) return true;
  unsigned version = a << 16 | b << 8 | (c > 255 ? 255 : c);
  return version < 0x060700 || (version >= 0x060c2c && version < 0x060d00) || version >= 0x061004;
}

static int choose(struct io *io, enum io_rung wanted) {
  bool safe = futexes_are_safe();
  if (wanted != IO_AUTO) {
    if (wanted == IO_URING_FUTEX && !safe)
      say(SAY_WARNING,
          "this kernel may have CVE-2025-39698: uring-eventfd is safer than uring-futex");
    return try_rung(io, wanted);
  }
  int rc = -ENOSYS;
  for (enum io_rung rung = safe ? IO_URING_FUTEX : IO_URING_EVENTFD; rc && rung <= IO_THREADS;
       rung++)
    rc = try_rung(io, rung);
  return rc;
}

int io_open(struct io **out, enum io_rung wanted) {
  struct io *io = calloc(1, sizeof *io);
  if (!io) return -ENOMEM;
  io->done_end = &io->done;
  io->wake = eventfd(0, EFD_CLOEXEC);
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
  bells_close(io->bells);
  io->rung->close(io->state);
  close(io->wake);
  free(io);
}

const char *io_name(const struct io *io) { return io->rung->name; }
unsigned io_in_flight(const struct io *io) { return io->in_flight - io->watched; }

void io_complete(struct io *io, struct io_op *op, int result) {
  op->result = result;
  op->next = NULL;
  *io->done_end = op;
  io->done_end = &op->next;
  io->done_count++;
}

/* ---- the helpers ---- */

static void complete_list(struct io *io, struct io_op *list) {
  for (struct io_op *next; list; list = next) {
    next = list->next;
    io_complete(io, list, list->result);
  }
}

static void news(struct io_op *op, int result) {
  struct io *io = (struct io *)((char *)op - offsetof(struct io, wake_op));
  if (!io->rung->reads && read(io->wake, &io->wakes, sizeof io->wakes) < 0) result = -errno;
  (void)result;
  if (io->pool) complete_list(io, pool_take(io->pool));
  if (io->bells) complete_list(io, bells_take(io->bells));
  io_submit(io, op);
}

void io_watch_wakes(struct io *io) {
  if (io->watched) return;
  io->watched = true;
  io->wake_op = (struct io_op){.what = io->rung->reads ? IO_READ : IO_POLL,
                               .fd = io->wake,
                               .flags = io->rung->reads ? 0 : POLLIN,
                               .buffer = &io->wakes,
                               .bytes = sizeof io->wakes,
                               .done = news};
  io_submit(io, &io->wake_op);
}

void io_wake(const struct io *io) {
  static const uint64_t one = 1;
  if (write(io->wake, &one, sizeof one) < 0) return; /* full: it is readable */
}

static void submit_call(struct io *io, struct io_op *op) {
  io_watch_wakes(io);
  int rc = io->pool ? 0 : pool_open(&io->pool, HELPERS, io->wake);
  if (rc)
    io_complete(io, op, rc);
  else
    pool_submit(io->pool, op);
}

static void submit_futex(struct io *io, struct io_op *op) {
  io_watch_wakes(io);
  int rc = bells_submit(io->bells, op);
  if (rc) io_complete(io, op, rc);
}

static void cancel_futex(struct io *io, struct io_op *op) {
  bool found = bells_cancel(io->bells, op->target);
  if (found) io_complete(io, op->target, -ECANCELED);
  io_complete(io, op, found ? 0 : -ENOENT);
}

/* ---- operations ---- */

void io_submit(struct io *io, struct io_op *op) {
  io->in_flight++;
  if (op->what == IO_CALL)
    submit_call(io, op);
  else if (op->what == IO_FUTEX && io->bells)
    submit_futex(io, op);
  else if (op->what == IO_CANCEL && op->target->what == IO_FUTEX && io->bells)
    cancel_futex(io, op);
  else
    io->rung->submit(io->state, op);
}

static int call_done(struct io *io) {
  int n = 0;
  int most = io->done_count / 4 > DONE_LEAST ? (int)io->done_count / 4 : DONE_LEAST;
  for (struct io_op *op; n < most && (op = io->done); n++) {
    io->done = op->next;
    if (!io->done) io->done_end = &io->done;
    io->done_count--;
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
