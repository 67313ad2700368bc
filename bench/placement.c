/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "placement.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "window.h"

#define BURSTS 5
#define ROUNDS 20000

const char *placement_name(enum placement p) {
  static const char *const names[PLACEMENTS] = {"adj", "near", "far"};
  return names[p];
}

enum placement placement_of(double ns) {
  return ns < 120 ? PLACEMENT_ADJACENT : ns < 300 ? PLACEMENT_NEAR : PLACEMENT_FAR;
}

void placement_pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

void placement_cpus(int cpus[2]) {
  static int found[2] = {-1, -1};
  if (found[0] < 0) { /* asked first before anything is pinned */
    cpu_set_t set;
    int n = 0;
    CPU_ZERO(&set);
    (void)sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
      if (CPU_ISSET(cpu, &set)) found[n++] = cpu;
    if (n < 2) found[1] = found[0];
  }
  cpus[0] = found[0];
  cpus[1] = found[1];
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double placement_probe(void) {
  int cpus[2];
  double bursts[BURSTS];
  placement_cpus(cpus);
  _Atomic long *line = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t echo = fork();
  if (echo == 0) {
    placement_pin(cpus[1]);
    for (long i = 1; i <= (long)BURSTS * ROUNDS; i++) {
      while (atomic_load_explicit(line, memory_order_acquire) != 2 * i - 1) {
      }
      atomic_store_explicit(line, 2 * i, memory_order_release);
    }
    _exit(0);
  }
  placement_pin(cpus[0]);
  long i = 1;
  for (int b = 0; b < BURSTS; b++) {
    double start = window_now();
    for (long end = i + ROUNDS; i < end; i++) {
      atomic_store_explicit(line, 2 * i - 1, memory_order_release);
      while (atomic_load_explicit(line, memory_order_acquire) != 2 * i) {
      }
    }
    bursts[b] = (window_now() - start) * 1e9 / ROUNDS;
  }
  waitpid(echo, NULL, 0);
  munmap((void *)line, 4096);
  qsort(bursts, BURSTS, sizeof *bursts, by_value);
  return bursts[BURSTS / 2];
}
