/* SPDX-License-Identifier: Apache-2.0
 *
 * When a child that has died is started again: after a delay that doubles with each death and begins anew when one
 * has lived long enough; never again when too many have died in a short time.
 */
#ifndef SHMQD_RESTART_H
#define SHMQD_RESTART_H

#include <stdint.h>

enum { RESTART_FAILURES_MAX = 64, EXIT_NO_RESTART = 125 };

struct restart_policy {
  int64_t first_ns, most_ns; /* the delay */
  int64_t reset_ns;          /* who lives so long begins anew */
  unsigned failures;         /* this many, 0: any number, */
  int64_t within_ns;         /* in this time are too many */
};

struct restart {
  int64_t delay_ns;                      /* the next one, 0: the first */
  unsigned count;                        /* deaths ever */
  int64_t died_ns[RESTART_FAILURES_MAX]; /* the latest, by count */
};

/* A child that began at started_ns has died now. `random`: any number, it spreads the delay by a quarter.
 * Returns ns to wait, or -1: it has failed. */
int64_t restart_after(struct restart *restart, const struct restart_policy *policy,
                      int64_t started_ns, int64_t now_ns, uint32_t random);

#endif
