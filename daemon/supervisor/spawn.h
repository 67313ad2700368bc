/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting a child: a fork in which nothing of the supervisor's is left but what is stated here.
 */
#ifndef SHMQD_SPAWN_H
#define SHMQD_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

enum { SPAWN_KEEP_FIRST = 3, SPAWN_KEEP_MAX = 4 };

struct spawn {
  int (*run)(void *ctx); /* in the child; what it returns is the exit status */
  void *ctx;
  int output; /* becomes standard output and standard error; -1: the supervisor's own */
  int keep[SPAWN_KEEP_MAX]; /* become descriptors 3, 4, ...; all others are closed */
  int keep_count;
  bool session;       /* it leads one; else only a process group */
  int parent_death;   /* a signal when the supervisor dies; 0: none */
  const char *places; /* of libshmq-pin; "" and "none": not bound */
  unsigned place;     /* which of them */
};

/* Start it. Returns its pid, *pidfd is the caller's; or a negative errno. */
pid_t spawn(const struct spawn *spawn, int *pidfd);

#endif
