/* SPDX-License-Identifier: Apache-2.0
 *
 * A daemon of the benchmark's own, and the groups of figures about it.
 */
#ifndef BENCH_DAEMON_H
#define BENCH_DAEMON_H

#include <shmq/rpc.h>
#include <sys/types.h>

#include "suite.h"

struct bench_daemon {
  char dir[256]; /* holds control, tree/ and log/ */
  char socket[300];
  pid_t pid;
};

/* Start build/daemon/shmqd in a new directory below s->dir. cpu: where all of it runs, -1: anywhere. Returns 0, or
 * says on stderr what is wrong. */
int bench_daemon_start(struct bench_daemon *d, const struct suite *s, int cpu);
/* End it and remove its directory. */
void bench_daemon_stop(struct bench_daemon *d);

/* A session with so many credits; ends the program if there is none to be had. */
shmq_client *bench_connect(const struct bench_daemon *d, uint32_t credits, unsigned flags);

/* Requests of one kind that are kept in flight. `check` looks at an answer. */
struct load {
  shmq_client *client;
  shmq_ask ask;
  unsigned depth;
  void (*prepare)(struct load *load); /* before each: sets what changes; may be NULL */
  void (*check)(const struct load *load, const shmq_result *result, uint64_t prepared);
  uint64_t state;    /* of prepare's random numbers */
  uint64_t prepared; /* what the next request asks for */
};

/* Keep them in flight for so many seconds. Returns how many were answered meanwhile, a second. */
double load_run(struct load *load, double seconds);

/* The next of a row of random numbers (xorshift): the same for every run. */
uint64_t load_random(uint64_t *state);

/* The groups. */
void figures_daemon_read(struct suite *s);
void figures_daemon_append(struct suite *s);
void figures_daemon_share(struct suite *s);

#endif
