/* SPDX-License-Identifier: Apache-2.0
 *
 * A living process that sleeps in a put or a get until the victim's call wakes it.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "world.h"

static bool sleeper_gets(const struct world *w) {
  return (w->call->side & MAIN_TAKE) == 0 || (w->call->side & OUT_PUT) != 0;
}

static _Noreturn void sleeper_body(struct world *w) {
  unsigned char data[BLOCK_BYTES];
  shmq_segment *segment = NULL;
  shmq *queue = NULL;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const char *name = (w->call->side & OUT_PUT) != 0 ? "out" : "main";
  if (shmq_attach(&segment, w->name) < 0 || shmq_open_in(&queue, segment, name, SHMQ_NOSPIN) < 0)
    _exit(1);
  shmq_join_segment(segment, "sleeper", NULL);
  int64_t deadline = shmq_after_ns(3 * PATIENCE_NS);
  uint64_t id = w->page->sleeper.id;
  w->page->sleeper.ready = 1;
  int64_t rc;
  if (sleeper_gets(w)) {
    rc = shmq_get(queue, data, sizeof data, deadline);
    id = rc > 0 ? message_id(data, (size_t)rc) : 0;
  } else {
    message_fill(data, id, message_size(w));
    rc = shmq_put(queue, data, message_size(w), deadline);
  }
  w->page->sleeper.id = id;
  w->page->sleeper.result = rc;
  w->page->sleeper.returned_ns = shmq_now_ns();
  shmq_close(queue);
  shmq_detach(segment);
  _exit(0);
}

static char state_of(pid_t pid) {
  char path[32], text[256];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  char *end = strrchr(text, ')');
  return end == NULL ? 0 : end[2];
}

bool sleeper_start(struct world *w) {
  w->page->sleeper.id = sleeper_gets(w) ? 0 : ledger_new(w, BY_SLEEPER, message_size(w));
  w->sleeper = fork();
  if (w->sleeper == 0) sleeper_body(w);
  if (w->sleeper < 0) return false;
  shmq_queue_info info;
  uint32_t queue = (w->call->side & OUT_PUT) != 0 ? 1 : 0;
  for (int64_t end = shmq_after_ns(PATIENCE_NS); shmq_now_ns() < end;) {
    sched_yield();
    if (!w->page->sleeper.ready || state_of(w->sleeper) != 'S') continue;
    if (shmq_view_queue(w->view, queue, &info) < 0) return false;
    if (info.sleeping_takers + info.sleeping_putters > 0) return true;
  }
  return false;
}
