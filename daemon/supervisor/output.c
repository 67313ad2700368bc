/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/output.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "say.h"
#include "shmq/shmq.h"

enum { READS_AT_ONCE = 16 };
static const int64_t second_ns = 1000000000;

static void say_left_out(struct output *o) {
  if (o->left_out) say(SAY_WARNING, "%s: %u lines were left out", o->name, o->left_out);
  o->left_out = 0;
}

static bool may_say(struct output *o) {
  int64_t now = shmq_now_ns();
  if (now - o->second_ns >= second_ns) {
    say_left_out(o);
    o->second_ns = now;
    o->lines = 0;
  }
  if (o->lines_most == 0 || o->lines++ < o->lines_most) return true;
  if (!o->left_out++) say(SAY_WARNING, "%s: says too much, some of it is left out", o->name);
  return false;
}

static void end_line(struct output *o) {
  if (o->used && may_say(o)) say(SAY_NOTICE, "%s: %.*s", o->name, (int)o->used, o->line);
  o->used = 0;
}

/* A line that is too long is cut: the rest of it is not another line. */
static void take(struct output *o, char c) {
  if (c == '\n') {
    if (!o->cutting) end_line(o);
    o->cutting = false;
    return;
  }
  if (o->cutting) return;
  o->line[o->used++] = c ? c : '?'; /* it would end what is said */
  if (o->used < sizeof o->line) return;
  end_line(o);
  o->cutting = true;
}

static void readable(struct source *source, uint32_t events) {
  struct output *o = SOURCE_OWNER(source, struct output, source);
  char bytes[4096];
  ssize_t n = 0;
  (void)events;
  for (int i = 0; i < READS_AT_ONCE && (n = read(source->fd, bytes, sizeof bytes)) > 0; i++)
    for (ssize_t k = 0; k < n; k++) take(o, bytes[k]);
  if (n == 0) output_close(o);
}

int output_open(struct output *o, int epoll, const char *name, unsigned lines_most,
                int *child_end) {
  int ends[2];
  *o =
      (struct output){.source = {.fd = -1}, .epoll = epoll, .name = name, .lines_most = lines_most};
  if (pipe2(ends, O_CLOEXEC)) return -errno;
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  *child_end = ends[1];
  int rc = source_add(epoll, &o->source, ends[0], EPOLLIN, readable);
  if (!rc) return 0;
  close(ends[0]);
  close(ends[1]);
  o->source.fd = -1;
  return rc;
}

void output_close(struct output *o) {
  if (o->source.fd < 0) return;
  end_line(o);
  say_left_out(o);
  source_close(o->epoll, &o->source);
}
