/* SPDX-License-Identifier: Apache-2.0
 *
 * How late something was, in time that its process could have had a processor. The kernel counts how long a process was
 * runnable and did not run. It does not count what nobody had: a virtual machine whose processor was given to
 * another, an interrupt that came late. A watcher on each processor, which sleeps to the next millisecond
 * over and over, sees those.
 */
#ifndef TEST_STALLS_H
#define TEST_STALLS_H

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "support/check.h"

enum { WATCHERS_MAX = 64, STALLS_MAX = 8192 };

struct span {
  int64_t from_ns, to_ns;
};
struct stalls {
  pid_t watcher[WATCHERS_MAX];
  _Atomic unsigned count[WATCHERS_MAX];
  struct span span[WATCHERS_MAX][STALLS_MAX];
};

struct moment {
  int64_t now_ns, waited_ns; /* runnable without running, so far */
};
static inline int64_t waited_so_far_ns(void) {
  static int fd = -1;
  char text[96] = "";
  long long ran, waited = 0;
  if (fd < 0) fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
  if (fd >= 0 && pread(fd, text, sizeof text - 1, 0) > 0) sscanf(text, "%lld %lld", &ran, &waited);
  return waited;
}
/* The two belong together: it did not wait in between. */
static inline struct moment moment(void) {
  struct moment m;
  do {
    m.waited_ns = waited_so_far_ns();
    m.now_ns = shmq_now_ns();
  } while (waited_so_far_ns() != m.waited_ns);
  return m;
}

/* What lies behind `due_ns`, less the waiting since `before` that must lie there, too. An upper bound. */
static inline struct span late_since(struct moment before, int64_t due_ns) {
  struct moment end = moment();
  int64_t waited = end.waited_ns - before.waited_ns, early = due_ns - before.now_ns;
  if (early > 0) waited -= early;
  if (waited > 0) end.now_ns -= waited;
  return (struct span){due_ns, end.now_ns > due_ns ? end.now_ns : due_ns};
}

static inline void stalls_watch(struct stalls *s, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set)) return;
  for (;;) {
    struct moment before = moment();
    int64_t due = before.now_ns + MILLISECOND;
    struct timespec at = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) continue;
    struct span late = late_since(before, due);
    if (late.to_ns - late.from_ns < MILLISECOND / 4) continue;
    unsigned n = s->count[cpu];
    s->span[cpu][n % STALLS_MAX] = late;
    s->count[cpu] = n + 1;
  }
}

static inline struct stalls *stalls_begin(void) {
  int n = (int)sysconf(_SC_NPROCESSORS_CONF);
  struct stalls *s =
      mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(s != MAP_FAILED);
  for (int cpu = 0; cpu < n && cpu < WATCHERS_MAX; cpu++) {
    s->watcher[cpu] = fork();
    CHECK(s->watcher[cpu] >= 0);
    if (s->watcher[cpu]) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    stalls_watch(s, cpu);
    _exit(0);
  }
  return s;
}

static inline void stalls_end(const struct stalls *s) {
  for (int cpu = 0; cpu < WATCHERS_MAX && s->watcher[cpu]; cpu++) {
    kill(s->watcher[cpu], SIGKILL);
    waitpid(s->watcher[cpu], NULL, 0);
  }
}

/* What is left of a span without what the processor that stalled for most of it did not have. */
static inline int64_t without_stalls(const struct stalls *s, struct span span) {
  int64_t most = 0;
  for (int cpu = 0; cpu < WATCHERS_MAX; cpu++) {
    int64_t stalled = 0;
    unsigned n = s->count[cpu] < STALLS_MAX ? s->count[cpu] : STALLS_MAX;
    for (unsigned i = 0; i < n; i++) {
      const struct span *at = &s->span[cpu][i];
      int64_t from = at->from_ns > span.from_ns ? at->from_ns : span.from_ns;
      int64_t to = at->to_ns < span.to_ns ? at->to_ns : span.to_ns;
      if (to > from) stalled += to - from;
    }
    if (stalled > most) most = stalled;
  }
  return span.to_ns - span.from_ns - most;
}

#endif
