/* SPDX-License-Identifier: Apache-2.0
 *
 * One worker of `shmq work`: a process that leases messages from a queue one at a time and runs a
 * command on each.
 */
#ifndef TOOLS_WORKER_H
#define TOOLS_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "crew.h"

struct worker {
  const char *queue;
  char *const *command;    /* ends with NULL */
  const char *dead_letter; /* queue of the segment for what failed max_attempts times, or NULL */
  uint64_t max_attempts;   /* 0: as the queue says */
  uint64_t queue_attempts; /* the queue's own limit, 0: none */
  int64_t retry_delay_ns;
  bool until_empty;
  const char *places; /* where to run, NULL: anywhere */
};

/* Work until the queue is empty (if asked) or shut down, or a signal comes. `context` is a struct
 * worker. Returns a status. */
int worker_run(const void *context, unsigned number, struct crew_tally *tally);

#endif
