/* SPDX-License-Identifier: Apache-2.0
 *
 * The lowest rung, for containers that forbid io_uring: epoll for what is polled, threads for the rest.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "io_rung.h"
#include "shmq/shmq.h"

enum { THREADS = 4, EVENTS = 64 };

struct threads {
  int epoll;
  int wake;
  struct pool *pool;
  struct io_op *now, **now_end; /* completed without waiting: cancellations and refusals */
};

static void threads_close(void *state) {
  struct threads *t = state;
  pool_close(t->pool);
  if (t->wake >= 0) close(t->wake);
  if (t->epoll >= 0) close(t->epoll);
  free(t);
}

static int threads_open(void **state) {
  struct threads *t = calloc(1, sizeof *t);
  if (!t) return -ENOMEM;
  t->now_end = &t->now;
  t->epoll = epoll_create1(EPOLL_CLOEXEC);
  t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  int rc = t->epoll < 0 || t->wake < 0 ? -errno : pool_open(&t->pool, THREADS, t->wake);
  if (!rc && epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->wake, &event)) rc = -errno;
  if (rc)
    threads_close(t);
  else
    *state = t;
  return rc;
}

static void complete_now(struct threads *t, struct io_op *op, int result) {
  op->result = result;
  op->next = NULL;
  *t->now_end = op;
  t->now_end = &op->next;
}

/* One shot: the descriptor stays in the set, disarmed, until it is polled again or closed. */
static void poll_add(struct threads *t, struct io_op *op) {
  struct epoll_event event = {.events = op->flags | EPOLLONESHOT, .data.ptr = op};
  op->armed = true;
  if (epoll_ctl(t->epoll, EPOLL_CTL_MOD, op->fd, &event) == 0) return;
  if (errno == ENOENT && epoll_ctl(t->epoll, EPOLL_CTL_ADD, op->fd, &event) == 0) return;
  op->armed = false;
  if (errno == EPERM) /* a plain file is always ready */
    complete_now(t, op, (int)op->flags);
  else
    complete_now(t, op, -errno);
}

/* What has happened already completes by itself: it may be on its way in the same turn. */
static void poll_cancel(struct threads *t, struct io_op *op) {
  if (!op->target->armed) {
    complete_now(t, op, -ENOENT);
    return;
  }
  op->target->armed = false;
  epoll_ctl(t->epoll, EPOLL_CTL_DEL, op->target->fd, NULL);
  complete_now(t, op->target, -ECANCELED);
  complete_now(t, op, 0);
}

static void threads_submit(void *state, struct io_op *op) {
  struct threads *t = state;
  if (op->what == IO_POLL)
    poll_add(t, op);
  else if (op->what == IO_CANCEL)
    poll_cancel(t, op);
  else
    pool_submit(t->pool, op);
}

static int complete_list(struct io *io, struct io_op *list) {
  int n = 0;
  for (struct io_op *next; list; list = next, n++) {
    next = list->next;
    io_complete(io, list, list->result);
  }
  return n;
}

static int take_now(struct threads *t, struct io *io) {
  struct io_op *list = t->now;
  t->now = NULL;
  t->now_end = &t->now;
  return complete_list(io, list);
}

static int take_pool(struct threads *t, struct io *io) {
  uint64_t count;
  if (read(t->wake, &count, sizeof count) < 0) count = 0;
  return complete_list(io, pool_take(t->pool));
}

static int wait_ms(int64_t deadline_ns) {
  if (deadline_ns == SHMQ_NOWAIT) return 0;
  if (deadline_ns == SHMQ_FOREVER) return -1;
  int64_t left = deadline_ns - shmq_now_ns();
  return left <= 0 ? 0 : left > 3600000000000 ? 3600000 : (int)((left + 999999) / 1000000);
}

static int threads_run(void *state, struct io *io, int64_t deadline_ns) {
  struct threads *t = state;
  struct epoll_event events[EVENTS];
  int n = take_now(t, io);
  int count = epoll_wait(t->epoll, events, EVENTS, n ? 0 : wait_ms(deadline_ns));
  if (count < 0) return n ? n : -errno;
  for (int i = 0; i < count; i++) {
    struct io_op *op = events[i].data.ptr;
    if (op) {
      op->armed = false;
      io_complete(io, op, (int)events[i].events);
      n++;
    } else {
      n += take_pool(t, io);
    }
  }
  return n;
}

const struct io_rung_ops io_threads_rung = {.name = "threads",
                                            .open = threads_open,
                                            .close = threads_close,
                                            .submit = threads_submit,
                                            .run = threads_run};
