/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "placement.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "window.h"

#define BURSTS 5
#define BURST_SECONDS 0.003
#define ROUNDS 50 /* between two looks at the clock */
#define STOP (-1L)

const char *placement_name(enum placement p) {
  static const char *const names[PLACEMENTS] = {"adj", "near", "far", "any", "mix"};
  return names[p];
}

enum placement placement_of(double ns) {
  if (ns <= 0) return PLACEMENT_ANY;
  return ns < 120 ? PLACEMENT_ADJACENT : ns < 300 ? PLACEMENT_NEAR : PLACEMENT_FAR;
}

bool placement_same(double probe, double other) {
  return placement_of(probe) == placement_of(other) && probe <= other * 1.25 &&
         other <= probe * 1.25;
}

/* ---- CPUs ---- */

static int chosen[CPU_SETSIZE], chosen_count;

void placement_use(const int *cpus, int count) {
  chosen_count = count < CPU_SETSIZE ? count : CPU_SETSIZE;
  for (int i = 0; i < chosen_count; i++) chosen[i] = cpus[i];
}

static void choose_all(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  (void)sched_getaffinity(0, sizeof set, &set);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set)) chosen[chosen_count++] = cpu;
  if (chosen_count == 0) chosen_count = 1; /* the system would not say: CPU 0 */
}

int placement_count(void) {
  if (chosen_count == 0) choose_all();
  return chosen_count;
}

int placement_cpu(int number) { return chosen[number % placement_count()]; }

void placement_pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

void placement_unpin(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int i = 0; i < placement_count(); i++) CPU_SET(chosen[i], &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

/* ---- the probe ---- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static _Noreturn void echo(_Atomic long *line) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  placement_pin(placement_cpu(1));
  for (long i = 1;; i++) {
    long seen;
    while ((seen = atomic_load_explicit(line, memory_order_acquire)) != 2 * i - 1)
      if (seen == STOP) _exit(0);
    atomic_store_explicit(line, 2 * i, memory_order_release);
  }
}

/* Nanoseconds a round trip. By time, so that a busy machine delays it without bound to the rounds. */
static double burst(_Atomic long *line, long *i) {
  double start = window_now(), now = start;
  long done = 0;
  for (; now - start < BURST_SECONDS; done += ROUNDS, now = window_now())
    for (long end = *i + ROUNDS; *i < end; ++*i) {
      atomic_store_explicit(line, 2 * *i - 1, memory_order_release);
      while (atomic_load_explicit(line, memory_order_acquire) != 2 * *i) {}
    }
  return (now - start) * 1e9 / (double)done;
}

double placement_probe(void) {
  double bursts[BURSTS];
  long i = 1;
  if (placement_count() < 2) return 0;
  _Atomic long *line = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (line == MAP_FAILED) return 0;
  pid_t other = fork();
  if (other == 0) echo(line);
  if (other > 0) {
    placement_pin(placement_cpu(0));
    (void)burst(line, &i); /* the echo has started when this returns */
    for (int b = 0; b < BURSTS; b++) bursts[b] = burst(line, &i);
    atomic_store(line, STOP);
    waitpid(other, NULL, 0);
    placement_unpin(); /* what this process starts next is not to inherit it */
    qsort(bursts, BURSTS, sizeof *bursts, by_value);
  }
  munmap((void *)line, 4096);
  return other > 0 ? bursts[BURSTS / 2] : 0;
}
