/* SPDX-License-Identifier: Apache-2.0
 *
 * The one seam to the kernel's asynchronous I/O. An operation is submitted, and its `done` is called
 * from io_run on the same thread, once, with a count or a negative errno. Behind the seam are the rungs: an
 * io_uring that waits on futexes itself, one that reads an eventfd for them, one without special flags, or none at
 * all (epoll and threads).
 *
 * The caller owns the operation and its buffer again when `done` is called, not before: whoever
 * must go earlier marks itself as going and waits for it.
 */
#ifndef SHMQD_IO_H
#define SHMQD_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum io_what {
  IO_POLL, /* one shot; flags: poll events; the result is what happened */
  IO_READ, /* fd, buffer, bytes, offset; flags: RWF_ */
  IO_WRITE,
  IO_SYNC,  /* fdatasync */
  IO_CALL,  /* `call` on a helper thread: whatever blocks and has no operation of its own */
  IO_FUTEX, /* until the 32 bits at `buffer`, in shared memory, are woken or are not `offset`; the result is 0 */
  IO_CANCEL /* the IO_POLL or IO_FUTEX in `target`, which then completes, with -ECANCELED or otherwise */
};

struct io_op {
  enum io_what what;
  int fd;
  uint32_t flags;
  void *buffer;
  size_t bytes;
  uint64_t offset;
  struct io_op *target;
  int (*call)(struct io_op *op);
  void (*done)(struct io_op *op, int result); /* may be NULL for IO_CANCEL */

  /* the rung's own */
  struct io_op *next;
  int result;
  bool armed; /* an IO_POLL that has not happened yet */
};

enum io_rung { IO_AUTO, IO_URING_FUTEX, IO_URING_EVENTFD, IO_URING_PLAIN, IO_THREADS };
#define IO_RUNGS "auto|uring-futex|uring-eventfd|uring-plain|threads"

struct io;

/* Try the wanted rung (IO_AUTO: one after the other). To be called on the thread that runs it. */
int io_open(struct io **out, enum io_rung rung);
void io_close(struct io *io);
const char *io_name(const struct io *io);

void io_submit(struct io *io, struct io_op *op);

/* Call done for some of what has completed; if nothing has, wait for it until the deadline (shmq.h's kind).
 * Returns for how many, or a negative errno other than -EINTR. */
int io_run(struct io *io, int64_t deadline_ns);

/* Have io_run wake up for io_wake, which any thread may call. */
void io_watch_wakes(struct io *io);
void io_wake(const struct io *io);

/* Submitted and not done. */
unsigned io_in_flight(const struct io *io);

#endif
