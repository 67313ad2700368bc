/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the cases: model [-c CASE] [-d DEATHS] [-s STOPS] [-p PREEMPTIONS] [-n STATES] [-r RUNS] [-S SEED]
 *
 * Without -r: searches every case within the bounds that cases.c states, or those given. With -r: that many random
 * executions of each case, from consecutive seeds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cases.h"

static int search(const struct model_case *m, const struct sched_bounds *b) {
  struct sched_case c = model_setup(m);
  struct sched_result r = sched_search(&c, b);
  printf("%-28s %d deaths, %d stops: %9lu states, %8lu executions, %9lu steps, %4u deep, preemptions %s%.0d: %s\n",
         m->name, b->deaths, b->stops, r.states, r.executions, r.steps, r.deepest,
         b->preemptions < 0 ? "any" : "", b->preemptions < 0 ? 0 : b->preemptions,
         r.error ? r.error : r.complete ? "complete" : "NOT COMPLETE");
  fflush(stdout);
  return r.error || !r.complete;
}

static int at_random(const struct model_case *m, const struct sched_bounds *b, int runs, uint64_t seed) {
  struct sched_case c = model_setup(m);
  unsigned deepest = 0;
  unsigned long steps = 0;
  for (int i = 0; i < runs; i++) {
    struct sched_result r = sched_random(&c, b, seed + (uint64_t)i);
    if (r.error) {
      printf("%s: seed %llu: %s\n", m->name, (unsigned long long)seed + (unsigned long long)i, r.error);
      return 1;
    }
    steps += r.steps;
    if (r.deepest > deepest) deepest = r.deepest;
  }
  printf("%-28s %d random executions from seed %llu, %lu steps, %u deep\n", m->name, runs,
         (unsigned long long)seed, steps, deepest);
  return 0;
}

int main(int argc, char **argv) {
  const char *only = NULL;
  int option, runs = 0, failed = 0, ran = 0;
  uint64_t seed = 1;
  struct sched_bounds given = {-1, -1, -2, 0};
  while ((option = getopt(argc, argv, "c:d:s:p:n:r:S:")) != -1) {
    switch (option) {
      case 'c': only = optarg; break;
      case 'd': given.deaths = atoi(optarg); break;
      case 's': given.stops = atoi(optarg); break;
      case 'p': given.preemptions = atoi(optarg); break;
      case 'n': given.states = strtoul(optarg, NULL, 10); break;
      case 'r': runs = atoi(optarg); break;
      case 'S': seed = strtoull(optarg, NULL, 10); break;
      default: return 2;
    }
  }
  for (int i = 0; i < model_case_count; i++) {
    const struct model_case *m = &model_cases[i];
    if (only && strcmp(only, m->name) != 0) continue;
    struct sched_bounds b = m->bounds;
    if (given.deaths >= 0) b.deaths = given.deaths;
    if (given.stops >= 0) b.stops = given.stops;
    if (given.preemptions > -2) b.preemptions = given.preemptions;
    if (given.states > 0) b.states = given.states;
    if (b.states == 0 && runs == 0) continue; /* at random only */
    failed += runs > 0 ? at_random(m, &b, runs, seed) : search(m, &b);
    ran++;
  }
  return failed > 0 || ran == 0;
}
