/* SPDX-License-Identifier: Apache-2.0
 *
 * One worker of `shmq work`: a process that leases messages from a queue one at a time and runs a
 * command on each. / */
#ifndef TOOLS_WORKER_H
#define TOOLS_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What one worker has done. In memory shared with the parent: written by the worker, read by the
 * parent; it outlives the worker. */
struct worker_tally {
  _Atomic uint64_t done;   /* acknowledged */
  _Atomic uint64_t failed; /* attempts that failed */
  _Atomic uint64_t dead;   /* messages given up after too many of them */
  _Atomic pid_t running;   /* the command that runs now, 0: none */
};

struct worker {
  const char *queue;
  char *const *command;    /* ends with NULL */
  const char *dead_letter; /* queue of the segment for what failed max_attempts times, or NULL */
  uint64_t max_attempts;   /* 0: as the queue says */
  uint64_t queue_attempts; /* the queue's own limit, 0: none */
  int64_t retry_delay_ns;
  bool until_empty;
  const char *places; /* where to run, NULL: anywhere */
  unsigned number;    /* from 0: which of the places */
  struct worker_tally *tally;
};

/* Work until the queue is empty (if asked) or shut down, or a signal comes. Returns a status. */
int worker_run(const struct worker *worker);

#endif
