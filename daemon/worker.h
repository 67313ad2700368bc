/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_WORKER_H
#define SHMQD_WORKER_H

#include "config.h"

/* What the supervisor leaves open in it. */
enum { WORKER_CHANNEL = 3, WORKER_LOCK };

/* The worker's process: open the resources of the configuration and serve the sessions that come through the
 * channel, until it is told to drain or the supervisor is gone. `directory` is the daemon's, `epoch` the worker's
 * number. Returns its exit status. */
int worker_run(const struct config *config, const char *directory, uint32_t epoch);

#endif
