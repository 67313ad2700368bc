/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service manager is told (sd_notify(3)'s protocol), and what it keeps for us (sd_pid_notify_with_fds(3)).
 */
#ifndef SHMQD_NOTIFY_H
#define SHMQD_NOTIFY_H

/* Lines of VARIABLE=value; nothing if no service manager listens. Never waits. 0, 1: nobody listens, or a negative
 * errno. */
int notify_systemd(const char *state);
/* The same with descriptors. */
int notify_with_fds(const char *state, const int *fds, int count);

#endif
