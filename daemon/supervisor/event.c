/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/event.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "shmq/shmq.h"

int source_add(int epoll, struct source *source, int fd, uint32_t events,
               void (*ready)(struct source *source, uint32_t events)) {
  struct epoll_event event = {.events = events, .data.ptr = source};
  *source = (struct source){.fd = fd, .ready = ready};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

void source_change(int epoll, struct source *source, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = source};
  epoll_ctl(epoll, EPOLL_CTL_MOD, source->fd, &event);
}

/* Others may hold the same open file (the worker has the clients' sockets): closing alone does not remove it. */
void source_close(int epoll, struct source *source) {
  if (source->fd < 0) return;
  epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL);
  close(source->fd);
  source->fd = -1;
}

static int timeout_ms(int64_t deadline_ns) {
  if (deadline_ns == SHMQ_FOREVER) return -1;
  int64_t left = deadline_ns - shmq_now_ns();
  if (left <= 0) return 0;
  return left > INT64_C(3600000000000) ? 3600000 : (int)((left + 999999) / 1000000);
}

int source_run(int epoll, int64_t deadline_ns) {
  struct epoll_event event;
  int n = epoll_wait(epoll, &event, 1, timeout_ms(deadline_ns));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  if (n > 0) {
    struct source *source = event.data.ptr;
    source->ready(source, event.events);
  }
  return 0;
}
