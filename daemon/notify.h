/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service manager is told (sd_notify(3)'s protocol), and what it keeps for us (sd_pid_notify_with_fds(3)).
 */
#ifndef SHMQD_NOTIFY_H
#define SHMQD_NOTIFY_H

#include <sys/types.h>

/* Lines of VARIABLE=value; nothing if no service manager listens. Never waits. 0, 1: nobody listens, or a negative
 * errno. */
int notify_systemd(const char *state);
/* The same with descriptors. */
int notify_with_fds(const char *state, const int *fds, int count);

/* The other side: one message and the pid of who sent it. Its length or a negative errno. */
ssize_t notify_receive(int socket, char *text, size_t room, pid_t *pid);

#endif
