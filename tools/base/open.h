/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening queues for the commands that use them.
 */
#ifndef TOOLS_BASE_OPEN_H
#define TOOLS_BASE_OPEN_H

#include <shmq/shmq.h>

/* Open the queue called `name` and join it under the role of this command; complains. Returns a
 * status. */
int open_queue(const char *name, const char *role, shmq **queue);

/* The same without joining, for what only changes or waits for the queue's state. */
int open_quietly(const char *name, shmq **queue);

#endif
