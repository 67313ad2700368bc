/* SPDX-License-Identifier: Apache-2.0
 *
 * A message on a socket with descriptors beside it. Never waits.
 */
#ifndef SHMQD_SEND_FDS_H
#define SHMQD_SEND_FDS_H

#include <sys/socket.h>

enum { SEND_FDS_MAX = 2 };

/* Send `message`, which has no control data, with count descriptors, which stay the caller's. 0 or a negative errno. */
int send_fds(int socket, struct msghdr *message, const int *fds, int count);

#endif
