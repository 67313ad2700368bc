/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_CENSUS_H
#define SHMQD_CENSUS_H

#include "daemon.h"

/* Look, on a helper thread, what a process has done in a segment; if it is dead, recover it. The supervisor is told
 * (CHANNEL_SEEN). It does not look itself: whoever can write to a segment's file can have a reader killed. */
void census_look(struct daemon *daemon, pid_t pid, const char *segment, size_t bytes);

#endif
