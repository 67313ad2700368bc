/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/duplex.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { IN, OUT };
enum { READ_BYTES = 64 << 10, WRITE_BYTES = 64 << 10, TURN_READS = 4 };

/* ---- the end ---- */

static void close_if_over(struct duplex *d) {
  if (!d->closing || d->pending) return;
  close(d->in_fd);
  close(d->out_fd);
  d->in_fd = d->out_fd = -1;
  d->in_bytes = d->out_bytes = 0;
  d->closed(d, d->error);
}

static void cancelled(struct io_op *op, int result) {
  struct duplex *d = op->buffer;
  (void)result;
  d->pending--;
  close_if_over(d);
}

void duplex_break(struct duplex *d, int error) {
  if (d->closing || d->in_fd < 0) return;
  d->closing = true;
  d->error = error;
  d->pending++; /* it must not be closed under its caller */
  for (int i = IN; i <= OUT; i++) {
    if (!d->polled[i]) continue;
    d->cancel[i] = (struct io_op){
        .what = IO_CANCEL, .fd = -1, .target = &d->poll[i], .buffer = d, .done = cancelled};
    d->pending++;
    io_submit(d->io, &d->cancel[i]);
  }
  d->pending--;
  close_if_over(d);
}

void duplex_free(struct duplex *d) {
  if (d->in_fd >= 0) close(d->in_fd);
  if (d->out_fd >= 0) close(d->out_fd);
  free(d->in);
  free(d->out);
}

/* ---- buffers ---- */

static int make_room(char **buffer, size_t used, size_t *room, size_t more) {
  if (*room - used >= more) return 0;
  size_t bigger = *room ? *room : READ_BYTES;
  while (bigger - used < more) bigger *= 2;
  char *moved = realloc(*buffer, bigger);
  if (!moved) return -ENOMEM;
  *buffer = moved;
  *room = bigger;
  return 0;
}

int duplex_put(struct duplex *d, const char *data, size_t bytes) {
  int rc = make_room(&d->out, d->out_bytes, &d->out_room, bytes);
  if (rc) return rc;
  memcpy(d->out + d->out_bytes, data, bytes);
  d->out_bytes += bytes;
  return 0;
}

void duplex_consume(struct duplex *d, size_t bytes) {
  if (d->closing) return;
  d->in_bytes -= bytes;
  memmove(d->in, d->in + bytes, d->in_bytes);
}

/* ---- in and out ---- */

static void watch(struct duplex *d, int which);

/* Returns how many bytes came, 0 for none just now, or why it is over. */
static ssize_t read_some(struct duplex *d) {
  int rc = make_room(&d->in, d->in_bytes, &d->in_room, READ_BYTES);
  if (rc) return rc;
  ssize_t n = read(d->in_fd, d->in + d->in_bytes, READ_BYTES);
  if (n > 0) d->in_bytes += (size_t)n;
  if (n > 0) return n;
  return n == 0 ? -ECONNRESET : errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static void receive(struct duplex *d) {
  ssize_t n = 1, total = 0;
  for (int i = 0; i < TURN_READS && n > 0; i++) {
    n = read_some(d);
    if (n > 0) total += n;
  }
  if (total) d->received(d);
  if (n < 0)
    duplex_break(d, (int)n);
  else if (!d->closing)
    watch(d, IN);
}

/* No more than lies there now: others may have the peer's end too, and go on writing. */
void duplex_finish(struct duplex *d, int error) {
  int left = 0;
  if (d->closing || d->in_fd < 0) return;
  if (ioctl(d->in_fd, FIONREAD, &left)) left = 0;
  ssize_t n = 1, total = 0;
  while (n > 0 && total < left && (n = read_some(d)) > 0) total += n;
  if (total) d->received(d);
  duplex_break(d, error);
}

void duplex_flush(struct duplex *d) {
  size_t done = 0;
  ssize_t n = 1;
  if (d->closing || d->in_fd < 0 || d->polled[OUT]) return;
  while (done < d->out_bytes && n > 0) {
    size_t bytes = d->out_bytes - done < WRITE_BYTES ? d->out_bytes - done : WRITE_BYTES;
    if (d->writing) d->writing(d, d->written + bytes);
    n = write(d->out_fd, d->out + done, bytes);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) n = 0;
    if (n < 0) n = -errno;
    if (n > 0) done += (size_t)n, d->written += (size_t)n;
  }
  d->out_bytes -= done;
  memmove(d->out, d->out + done, d->out_bytes);
  if (n < 0)
    duplex_break(d, (int)n);
  else if (d->out_bytes)
    watch(d, OUT);
}

static void ready(struct io_op *op, int result) {
  struct duplex *d = op->buffer;
  int which = op == &d->poll[OUT];
  d->polled[which] = false;
  d->pending--;
  if (d->closing)
    close_if_over(d);
  else if (result < 0)
    duplex_break(d, result);
  else if (which == OUT)
    duplex_flush(d);
  else
    receive(d);
}

static void watch(struct duplex *d, int which) {
  d->poll[which] = (struct io_op){.what = IO_POLL,
                                  .fd = which == IN ? d->in_fd : d->out_fd,
                                  .flags = which == IN ? POLLIN : POLLOUT,
                                  .buffer = d,
                                  .done = ready};
  d->polled[which] = true;
  d->pending++;
  io_submit(d->io, &d->poll[which]);
}

void duplex_open(struct duplex *d, struct io *io, int in_fd, int out_fd) {
  d->io = io;
  d->in_fd = in_fd;
  d->out_fd = out_fd;
  d->closing = false;
  d->in_bytes = d->out_bytes = 0;
  d->written = 0;
  watch(d, IN);
}
