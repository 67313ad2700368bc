/* SPDX-License-Identifier: Apache-2.0
 *
 * A crew: worker processes that do the same, and a parent that starts them, replaces one that is
 * killed, shows how far they are, and passes on the request to stop. The parent never touches a
 * queue itself, so nothing that happens to a worker can hold it up.
 */
#ifndef TOOLS_CREW_H
#define TOOLS_CREW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <shmq/shmq.h>

enum { CREW_MAX = SHMQ_PARTICIPANTS_MAX };

/* What one worker has done. In memory shared with the parent: written by the worker, read by the
 * parent; it outlives the worker. */
struct crew_tally {
  _Atomic uint64_t done;
  _Atomic uint64_t failed; /* attempts that failed */
  _Atomic uint64_t dead;   /* messages given up after too many of them */
  _Atomic pid_t running;   /* process group of the command that runs now, 0: none */
};

/* The work, in a process of its own. It ends when stop_requested(). Returns a status. */
typedef int crew_work(const void *context, unsigned number, struct crew_tally *tally);

struct crew_sums {
  uint64_t done, failed, dead, busy;
};

/* Run `workers` of them until all have ended. Returns the first status
 * that was not 0; sums may be NULL. */
int crew_run(unsigned workers, crew_work *work, const void *context, bool quiet,
             struct crew_sums *sums);

#endif
