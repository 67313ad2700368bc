/* SPDX-License-Identifier: Apache-2.0
 *
 * What a consumer costs that sleeps on an empty queue: how often it wakes up, as the kernel counts it. One queue has
 * a guard, the other has none; both sleep at the same time.
 */
#define _GNU_SOURCE
#include <shmq/shmq.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "life.h"

enum { SETTLE = 3 /* seconds: a wait's first looks come sooner */ };

struct sleeper {
  char name[48];
  pid_t pid;
  shmq_segment *guarded; /* NULL: it has no guard */
  long switches;
};

static _Noreturn void sleep_in_get(const char *name) {
  char data[64];
  shmq *queue;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (shmq_open(&queue, name, 0) < 0) _exit(1);
  (void)shmq_get(queue, data, sizeof data, SHMQ_FOREVER);
  _exit(1); /* nobody puts */
}

static bool sleeper_start(struct sleeper *s, bool guard) {
  shmq_queue_options queue = {.capacity = 64, .message_bytes = 64};
  int64_t next;
  snprintf(s->name, sizeof s->name, "bench-idle-%d-%d", (int)getpid(), guard);
  if (shmq_create(s->name, &(shmq_options){.queues = &queue, .queue_count = 1}) < 0) return false;
  if (guard && (shmq_attach(&s->guarded, s->name) < 0 || shmq_guard(s->guarded, &next) < 0))
    return false;
  s->pid = fork();
  if (s->pid == 0) sleep_in_get(s->name);
  return s->pid > 0;
}

static void sleeper_stop(struct sleeper *s) {
  if (s->pid > 0) {
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
  }
  shmq_detach(s->guarded);
  (void)shmq_unlink(s->name);
}

/* -1: it has ended. */
static long voluntary_switches(pid_t pid) {
  char path[64], line[128];
  long n = -1;
  snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *f = fopen(path, "re");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) break;
  if (f) fclose(f);
  return n;
}

static void add(struct suite *s, const char *name, double reach, long switches, unsigned seconds) {
  struct figure f = {.name = name, .unit = "/s", .reach = reach, .less_is_better = true};
  struct outcome o = {
      .placement = PLACEMENT_ANY, .windows = 1, .value = (double)switches / seconds};
  if (switches < 0)
    suite_miss(s, name, "the sleeper ended");
  else
    suite_add(s, &f, &o);
}

void figures_idle(struct suite *s) {
  static const char *const names[] = {"idle: wake-ups of a sleeping consumer",
                                      "idle: wake-ups of a sleeping consumer, with a guard"};
  struct sleeper sleeper[2] = {0};
  unsigned seconds = s->quick ? 10 : 60;
  bool wanted = suite_wants(s, names[0]);
  if (!suite_wants(s, names[1]) && !wanted) return;
  bool ok = sleeper_start(&sleeper[0], false) && sleeper_start(&sleeper[1], true);
  if (ok) sleep(SETTLE);
  for (int i = 0; ok && i < 2; i++) sleeper[i].switches = voluntary_switches(sleeper[i].pid);
  if (ok) sleep(seconds);
  for (int i = 0; i < 2; i++) {
    long now = ok ? voluntary_switches(sleeper[i].pid) : -1;
    add(s, names[i], i == 0 ? 1 : 0, now < 0 ? -1 : now - sleeper[i].switches, seconds);
    sleeper_stop(&sleeper[i]);
  }
}
