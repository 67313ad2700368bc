/* SPDX-License-Identifier: Apache-2.0
 *
 * Making the connection: a name becomes an address on a helper thread, and the connection is waited for in the ring.
 */
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "resource/stream.h"

static void cancelled(struct io_op *op, int result) {
  (void)result;
  ((struct stream *)op->buffer)->pending--;
}

/* An attempt that takes too long. */
void stream_cancel_connect(struct stream *s) {
  s->cancel = (struct io_op){
      .what = IO_CANCEL, .fd = -1, .target = &s->op, .buffer = s, .done = cancelled};
  s->pending++;
  io_submit(stream_io(s), &s->cancel);
}

static void connected(struct io_op *op, int result) {
  struct stream *s = op->buffer;
  int error = 0;
  socklen_t size = sizeof error;
  s->pending--;
  if (result == -ECANCELED)
    error = ETIMEDOUT;
  else if (result < 0)
    error = -result;
  else if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size))
    error = errno;
  if (!error) {
    stream_went_up(s, s->fd);
    return;
  }
  close(s->fd);
  stream_went_down(s, -error);
}

static void start_connect(struct stream *s) {
  s->fd = socket(s->address.name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int rc = s->fd < 0 ? -errno : 0;
  if (!rc && connect(s->fd, (struct sockaddr *)&s->address.name, s->address.bytes)) rc = -errno;
  if (!rc) {
    stream_went_up(s, s->fd);
  } else if (rc == -EINPROGRESS) {
    s->state = STREAM_CONNECTING;
    s->op = (struct io_op){
        .what = IO_POLL, .fd = s->fd, .flags = POLLOUT, .buffer = s, .done = connected};
    s->pending++;
    io_submit(stream_io(s), &s->op);
    alarm_set(stream_alarms(s), &s->limit, shmq_after_ns(stream_setting(s, "timeout")));
  } else {
    if (s->fd >= 0) close(s->fd);
    stream_went_down(s, rc);
  }
}

static int address_of_path(struct address *a, const char *path) {
  struct sockaddr_un *un = (struct sockaddr_un *)&a->name;
  if (strlen(path) >= sizeof un->sun_path) return -ENAMETOOLONG;
  *un = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(un->sun_path, path, strlen(path));
  a->bytes = sizeof *un;
  return 0;
}

/* HOST:PORT. A host with several addresses has each tried in its turn. */
static int address_of_host(struct address *a, const char *text, unsigned turn) {
  char host[256];
  const char *port = strrchr(text, ':');
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *one;
  unsigned n = 0;
  snprintf(host, sizeof host, "%.*s", (int)(port - text), text);
  if (getaddrinfo(host, port + 1, &hints, &list)) return -EHOSTUNREACH;
  for (one = list; one; one = one->ai_next) n++;
  for (one = list, n = turn % n; n; n--) one = one->ai_next;
  memcpy(&a->name, one->ai_addr, one->ai_addrlen);
  a->bytes = one->ai_addrlen;
  freeaddrinfo(list);
  return 0;
}

/* On a helper thread: names take their time. */
static int resolve(struct io_op *op) {
  struct stream *s = op->buffer;
  const char *text = section_text(s->base.section, "connect");
  if (strncmp(text, "unix:", 5) == 0) return address_of_path(&s->address, text + 5);
  return address_of_host(&s->address, text + 4, s->attempts);
}

static void resolved(struct io_op *op, int result) {
  struct stream *s = op->buffer;
  s->pending--;
  if (result)
    stream_went_down(s, result);
  else
    start_connect(s);
}

void stream_connect(struct stream *s) {
  s->state = STREAM_RESOLVING;
  s->since_ns = shmq_now_ns();
  s->attempts++;
  s->op = (struct io_op){.what = IO_CALL, .fd = -1, .buffer = s, .call = resolve, .done = resolved};
  s->pending++;
  io_submit(stream_io(s), &s->op);
}
